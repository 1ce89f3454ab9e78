package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// User is a user of this machine.
type User struct {
	Name   string
	UID    int
	GID    int
	Groups []int // also GID; sorted
	Home   string
}

// Users looks users up. An error is an [ErrDenied] if there is no such user.
type Users interface {
	ByUID(uid int) (User, error)
	ByName(name string) (User, error)
}

const (
	userTimeout = 10 * time.Second // of a directory service's answer
	userLife    = time.Minute      // of an answer
	maxUsers    = 10000            // answers that are remembered
)

// SystemUsers looks users up where the machine's own programs do: without cgo the
// standard library reads /etc/passwd only, and a cluster's users are in LDAP or SSSD.
// So it asks getent and id, which ask the C library, and reads the files if these
// programs are not there. Answers are kept for a minute. The zero value is ready.
type SystemUsers struct {
	mu    sync.Mutex
	known map[string]userAnswer
}

type userAnswer struct {
	user User
	at   time.Time
}

// ByUID looks up a uid.
func (s *SystemUsers) ByUID(uid int) (User, error) {
	if uid < 0 {
		return User{}, deny("uid %d is nobody's", uid)
	}
	return s.lookup(strconv.Itoa(uid), func(u User) bool { return u.UID == uid })
}

// ByName looks up a login name.
func (s *SystemUsers) ByName(name string) (User, error) {
	if err := checkLogin(name); err != nil {
		return User{}, deny("%v", err)
	}
	if _, err := strconv.Atoi(name); err == nil {
		// getent would take it for a uid.
		return User{}, deny("%s is a number, not a login name", name)
	}
	// Directory services may ignore case: what comes back is another name then.
	return s.lookup(name, func(u User) bool { return u.Name == name })
}

func (s *SystemUsers) lookup(key string, right func(User) bool) (User, error) {
	s.mu.Lock()
	a, ok := s.known[key]
	s.mu.Unlock()
	if ok && time.Since(a.at) < userLife {
		a.user.Groups = slices.Clone(a.user.Groups)
		return a.user, nil
	}
	u, err := passwd(key)
	if err != nil {
		return User{}, err
	}
	if !right(u) {
		return User{}, deny("user %s is %s (uid %d) here: use that name", key, u.Name, u.UID)
	}
	if u.Groups, err = groups(u); err != nil {
		return User{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxUsers {
		s.known = map[string]userAnswer{}
	}
	s.known[key] = userAnswer{u, time.Now()}
	u.Groups = slices.Clone(u.Groups) // the answer's own stays as it is
	return u, nil
}

// passwd returns the user key, a uid or a name, without its groups.
func passwd(key string) (User, error) {
	out, err := ask("getent", "passwd", key)
	var exit *exec.ExitError
	switch {
	case err == nil:
		line, _, _ := strings.Cut(string(out), "\n")
		return parsePasswd(line)
	case errors.As(err, &exit) && exit.ExitCode() == 2: // getent: not in the database
		return User{}, deny("this machine knows no user %s", key)
	case !errors.Is(err, exec.ErrNotFound):
		return User{}, fmt.Errorf("looking up user %s: %w", key, err)
	}
	var u *user.User
	if _, nerr := strconv.Atoi(key); nerr == nil {
		u, err = user.LookupId(key)
	} else {
		u, err = user.Lookup(key)
	}
	var noID user.UnknownUserIdError
	var noName user.UnknownUserError
	if errors.As(err, &noID) || errors.As(err, &noName) {
		return User{}, deny("this machine knows no user %s", key)
	}
	if err != nil {
		return User{}, fmt.Errorf("looking up user %s: %w", key, err)
	}
	uid, uerr := strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	if uerr != nil || gerr != nil {
		return User{}, fmt.Errorf("looking up user %s: no uid on this system: %w", key, errors.ErrUnsupported)
	}
	return User{Name: u.Username, UID: uid, GID: gid, Home: u.HomeDir}, nil
}

// parsePasswd reads a line of passwd(5): name, password, uid, gid, full name, home
// and shell, separated by colons.
func parsePasswd(line string) (User, error) {
	f := strings.Split(strings.TrimSuffix(line, "\r"), ":")
	if len(f) != 7 {
		return User{}, fmt.Errorf("a passwd entry has %d fields instead of 7", len(f))
	}
	uid, uerr := strconv.ParseUint(f[2], 10, 32)
	gid, gerr := strconv.ParseUint(f[3], 10, 32)
	if uerr != nil || gerr != nil {
		return User{}, errors.New("a passwd entry has a uid or gid that is no number")
	}
	if err := checkLogin(f[0]); err != nil {
		return User{}, err
	}
	return User{Name: f[0], UID: int(uid), GID: int(gid), Home: f[5]}, nil
}

// groups returns the ids of all groups that the user is in.
func groups(u User) ([]int, error) {
	out, err := ask("id", "-G", "--", u.Name)
	fields := strings.Fields(string(out))
	if errors.Is(err, exec.ErrNotFound) {
		fields, err = (&user.User{Username: u.Name, Gid: strconv.Itoa(u.GID)}).GroupIds()
	}
	if err != nil {
		return nil, fmt.Errorf("looking up the groups of %s: %w", u.Name, err)
	}
	list := []int{u.GID}
	for _, f := range fields {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("looking up the groups of %s: %q is no number", u.Name, f)
		}
		list = append(list, int(n))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// ask runs a program of the system, never one of the same name that somebody's PATH
// has. It is exec.ErrNotFound if there is none.
func ask(name string, args ...string) ([]byte, error) {
	if runtime.GOOS == "windows" {
		return nil, exec.ErrNotFound
	}
	var path string
	for _, dir := range []string{"/usr/bin/", "/bin/", "/run/current-system/sw/bin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			path = dir + name
			break
		}
	}
	if path == "" {
		return nil, exec.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(context.Background(), userTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s did not answer within %v: check this machine's directory service (sssd, ldap)", name, userTimeout)
	}
	if msg := strings.TrimSpace(stderr.String()); err != nil && msg != "" {
		err = fmt.Errorf("%w: %s", err, msg)
	}
	return stdout.Bytes(), err
}

// ownUID returns this process's user, -1 on systems without uids.
func ownUID() int { return os.Geteuid() }
