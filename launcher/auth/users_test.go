package auth

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestSystemUsers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no uids here")
	}
	var s SystemUsers
	root := must2(s.ByUID(0))(t)
	if root.Name != "root" || root.GID != 0 || !slices.Contains(root.Groups, 0) || root.Home == "" {
		t.Errorf("root is %+v", root)
	}
	root.Groups[0] = 99 // the caller's own
	if again := must2(s.ByName("root"))(t); again.UID != 0 || !slices.Contains(again.Groups, 0) {
		t.Errorf("root is %+v", again)
	}
	if again := must2(s.ByUID(0))(t); !slices.Contains(again.Groups, 0) {
		t.Errorf("a caller changed what others see: %+v", again)
	}
	me, err := user.Current()
	if err != nil {
		t.Skipf("this user has no name: %v", err)
	}
	u := must2(s.ByUID(os.Geteuid()))(t)
	if u.Name != me.Username {
		t.Errorf("this user is %q, want %q", u.Name, me.Username)
	}
	_, err = s.ByUID(2147480001)
	wantError(t, err, true, "knows no user 2147480001")
	_, err = s.ByName("no-such-user-here")
	wantError(t, err, true, "knows no user")
	for _, name := range []string{"", "0", "-g", "a:b", "a\nb", "../x"} {
		_, err := s.ByName(name)
		wantError(t, err, true, "")
	}
}

// A user who is in groups besides its own is found with all of them.
func TestSystemUsersGroups(t *testing.T) {
	out, err := exec.Command("getent", "group").Output()
	if err != nil {
		t.Skipf("no getent: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 4 || f[3] == "" {
			continue
		}
		name, _, _ := strings.Cut(f[3], ",")
		u, err := (&SystemUsers{}).ByName(name)
		if errors.Is(err, ErrDenied) {
			continue // a member who does not exist
		}
		if err != nil || len(u.Groups) < 2 && u.GID == 0 {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
		return
	}
	t.Skip("no user of this machine is in another group")
}

func TestParsePasswd(t *testing.T) {
	for line, want := range map[string]string{
		"alice:x:1000:1000:Alice:/home/alice:/bin/sh": "alice",
		`DOM\bob:*:70000:4294967294::/home/bob:`:      `DOM\bob`,
		"alice:x:1000:1000:Alice:/home/alice":         "",
		"alice:x:-1:1000::/:":                         "",
		"alice:x:1:x::/:":                             "",
		":x:1:1::/:":                                  "",
	} {
		u, err := parsePasswd(line)
		if (err == nil) != (want != "") || u.Name != want {
			t.Errorf("parsePasswd(%q) = %+v, %v", line, u, err)
		}
	}
}
