package auth

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func nullLog() *log.Logger { return log.New(bytes.NewBuffer(nil), "", 0) }

func TestTokenLife(t *testing.T) {
	dir, c := t.TempDir()+"/data", newClock()
	k := openKeyring(t, dir, c)
	alice := Principal{Name: "alice", Role: Submitter, NodeUser: "alice"}
	tok, secret, err := k.AddToken(alice, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	// Another process, open since before.
	other := openKeyring(t, dir, c)
	for _, k := range []*Keyring{k, other} {
		if got := must2(k.Bearer(secret.Reveal()))(t); got != alice {
			t.Errorf("Bearer = %+v, want %+v", got, alice)
		}
	}
	wrong := secret.Reveal()[:len(secret.Reveal())-10] + "AAAAAAAAAA"
	for text, s := range map[string]string{
		"unknown token":                   wrong,
		"not one of this launcher's":      "",
		"they start with gangway_":        secret.Reveal() + "A",
		"and have 64":                     strings.ToUpper(secret.Reveal()),
		"have 64 characters":              "gangway_" + tok.ID + "_",
		"start with gangway_ and have 64": secret.Reveal()[:len(secret.Reveal())-1] + "\n",
	} {
		_, err := k.Bearer(s)
		wantError(t, err, true, text)
	}
	c.add(time.Hour - 1)
	must2(k.Bearer(secret.Reveal()))(t)
	c.add(1)
	_, err = k.Bearer(secret.Reveal())
	wantError(t, err, true, "expired at")
	_, err = k.Bearer(wrong)
	wantError(t, err, true, "unknown token") // says nothing about the right one

	_, second, err := k.AddToken(alice, 0)
	if err != nil {
		t.Fatal(err)
	}
	list := must2(other.Tokens())(t)
	if len(list) != 2 || list[0].ID != tok.ID {
		t.Fatalf("Tokens = %v", list)
	}
	if err := other.RevokeToken(list[1].ID); err != nil {
		t.Fatal(err)
	}
	_, err = k.Bearer(second.Reveal())
	wantError(t, err, true, "unknown token")
	wantError(t, other.RevokeToken(list[1].ID), false, "no token has the id")
}

func TestAccounts(t *testing.T) {
	dir, c := t.TempDir()+"/data", newClock()
	k := openKeyring(t, dir, c)
	p := Principal{Name: "team1", Role: Admin, NodeUser: "root"}
	key := must2(k.AddAccount(p))(t)
	if n := len(decode64(key.Reveal())); n != 64 {
		t.Errorf("key has %d bytes", n)
	}
	got, who, err := openKeyring(t, dir, c).SharedKey("team1")
	if err != nil || !bytes.Equal(got, decode64(key.Reveal())) || who != p {
		t.Errorf("SharedKey = %d bytes, %+v, %v", len(got), who, err)
	}
	_, err = k.AddAccount(p)
	wantError(t, err, false, "account team1 exists")
	next := must2(k.RenewAccount("team1"))(t)
	if got, _, _ := k.SharedKey("team1"); !bytes.Equal(got, decode64(next.Reveal())) || next.Reveal() == key.Reveal() {
		t.Error("the new key is not in use")
	}
	if list := must2(k.Accounts())(t); len(list) != 1 || list[0].Principal != p {
		t.Errorf("Accounts = %+v", list)
	}
	if err := k.RevokeAccount("team1"); err != nil {
		t.Fatal(err)
	}
	_, _, err = k.SharedKey("team1")
	wantError(t, err, true, "unknown account")
	for _, name := range []string{"", "ab", "Team1", "a-b-c", "aaaaaaaaaaaaaaaaaaaaaaaaa", "täm"} {
		_, err := k.AddAccount(Principal{Name: name, Role: Admin})
		wantError(t, err, false, "is not an account's name")
	}
}

func TestPrincipalsThatCannotBe(t *testing.T) {
	k := openKeyring(t, t.TempDir()+"/data", newClock())
	for text, p := range map[string]Principal{
		"is not a user's name":   {Name: "a b", Role: Reader},
		"has no role":            {Name: "alice"},
		"alice has no role":      {Name: "alice", Role: 4},
		"root is a submitter":    {Name: "root", Role: Submitter, NodeUser: "nobody"},
		"can't be root":          {Name: "alice", Role: Submitter, NodeUser: "root"},
		"node user \"-x\" is no": {Name: "alice", Role: Submitter, NodeUser: "-x"},
	} {
		_, _, err := k.AddToken(p, 0)
		wantError(t, err, false, text)
	}
}

func TestLocalUsers(t *testing.T) {
	k := openKeyring(t, t.TempDir()+"/data", newClock())
	for uid, want := range map[int]Principal{
		0:    {"root", Admin, "root"},
		500:  {"gangway", Admin, "gangway"},
		1000: {"alice", Submitter, "alice"},
	} {
		if got := must2(k.Local(uid))(t); got != want {
			t.Errorf("Local(%d) = %+v, want %+v", uid, got, want)
		}
	}
	_, err := k.Local(1001)
	wantError(t, err, true, "knows no user 1001")
	_, err = k.Local(-1)
	wantError(t, err, true, "unknown")
	if err := k.SetLocalUsers(false); err != nil {
		t.Fatal(err)
	}
	_, err = k.Local(1000)
	wantError(t, err, true, "not let in")
	must2(k.Local(0))(t)
	must2(k.Local(500))(t)
	if on := must2(k.LocalUsers())(t); on {
		t.Error("LocalUsers is still on")
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		have, want Role
		ok         bool
	}{
		{0, 0, false}, {0, Reader, false}, {Admin, 0, false}, {9, Reader, false}, {Admin, 9, false},
		{Reader, Reader, true}, {Reader, Submitter, false}, {Submitter, Reader, true}, {Submitter, Admin, false}, {Admin, Submitter, true},
	} {
		if got := c.have.Allows(c.want); got != c.ok {
			t.Errorf("%v.Allows(%v) = %v", c.have, c.want, got)
		}
	}
	a := Principal{Name: "a", Role: Submitter}
	if !a.May(Submitter, "a") || a.May(Reader, "b") || a.May(Reader, "") || (Principal{Role: Submitter}).May(Reader, "") {
		t.Error("a submitter may more or less than its own")
	}
	if !(Principal{Name: "x", Role: Admin}).May(Submitter, "b") {
		t.Error("an admin may not all")
	}
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing here")
	}
	dir, c := t.TempDir()+"/a/data", newClock()
	k := openKeyring(t, dir, c)
	openCA(t, dir, c)
	_, secret, err := k.AddToken(Principal{Name: "alice", Role: Reader}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if m := mode(t, dir); m != 0o700 {
		t.Errorf("directory has mode %o", m)
	}
	for _, e := range must2(os.ReadDir(dir))(t) {
		if m := mode(t, filepath.Join(dir, e.Name())); m != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), m)
		}
	}
	for _, name := range []string{keyringName, caName, membersName} {
		path := filepath.Join(dir, name)
		for _, m := range []os.FileMode{0o640, 0o604, 0o622} {
			if err := os.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
			_, kerr := OpenKeyring(dir, KeyringOptions{})
			_, cerr := OpenCA(dir, CAOptions{})
			wantError(t, errors.Join(kerr, cerr), false, "chmod 600 "+path)
			if name == keyringName { // seen by a launcher that runs
				_, err := k.Bearer(secret.Reveal())
				wantError(t, err, false, "other users")
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Bearer(secret.Reveal()); err != nil {
		t.Errorf("after the mode is right again: %v", err)
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	_, err = OpenKeyring(dir, KeyringOptions{})
	wantError(t, err, false, "chmod 700")
	if os.Geteuid() == 0 {
		must2(0, os.Chmod(dir, 0o700))(t)
		must2(0, os.Chown(filepath.Join(dir, caName), 12345, -1))(t)
		_, err = OpenCA(dir, CAOptions{})
		wantError(t, err, false, "belongs to uid 12345")
	}
}

func TestBrokenFileLetsNobodyIn(t *testing.T) {
	dir, c := t.TempDir()+"/data", newClock()
	k := openKeyring(t, dir, c)
	_, secret, err := k.AddToken(Principal{Name: "alice", Role: Reader}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for text, data := range map[string]string{
		"not JSON":                "{" + secret.Reveal(),
		"can't be used":           "",
		"format 2":                `{"version":2}`,
		"has no version":          `{}`,
		"unknown field":           `{"version":1,"deny":["alice"]}`,
		"more after":              `{"version":1}{}`,
		"token 1 is null":         `{"version":1,"tokens":[null]}`,
		"token 1: its id or hash": `{"version":1,"tokens":[{"id":"aabbccddeeff","sha256":""}]}`,
		"role":                    `{"version":1,"accounts":[{"name":"abc","role":"god"}]}`,
		"its key is not base64":   `{"version":1,"accounts":[{"name":"abc","role":"admin","key":"c2VjcmV0"}]}`,
	} {
		writeFile(t, 0o600, dir, keyringName, data)
		_, err := k.Bearer(secret.Reveal())
		wantError(t, err, false, text)
		_, err = OpenKeyring(dir, KeyringOptions{})
		wantError(t, err, false, text)
		if _, _, err := k.AddToken(Principal{Name: "bob", Role: Reader}, 0); err == nil {
			t.Error("a broken keyring was written over")
		}
		if strings.Contains(err.Error(), secret.Reveal()) {
			t.Errorf("the error has the secret: %v", err)
		}
	}
}

// A process that is killed at any moment leaves a keyring with every token that it
// said was kept.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir() + "/data"
	var kept []string
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "GANGWAY_TEST_ADD_TOKENS="+dir)
		out := must2(cmd.StdoutPipe())(t)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 3 + round { // then it is in the midst of one of the next
			if !lines.Scan() {
				break
			}
			kept = append(kept, lines.Text())
		}
		_ = cmd.Process.Kill()
		for lines.Scan() {
			kept = append(kept, lines.Text())
		}
		_ = cmd.Wait()
		k := must2(OpenKeyring(dir, KeyringOptions{}))(t)
		for _, s := range kept {
			if _, err := k.Bearer(s); err != nil {
				t.Fatalf("round %d: a token that was kept: %v", round, err)
			}
		}
	}
	if len(kept) < 12 {
		t.Errorf("only %d tokens were made", len(kept))
	}
	// Between the write and the rename.
	writeFile(t, 0o644, dir, keyringName+".new", `{"version":1,"tok`)
	k := must2(OpenKeyring(dir, KeyringOptions{}))(t)
	_, s, err := k.AddToken(Principal{Name: "bob", Role: Reader}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(kept, s.Reveal()) {
		must2(k.Bearer(s))(t)
	}
}

// Readers and writers of several processes at once lose nothing.
func TestConcurrentChanges(t *testing.T) {
	dir, c := t.TempDir()+"/data", newClock()
	first := openKeyring(t, dir, c)
	_, steady, err := first.AddToken(Principal{Name: "alice", Role: Reader}, 0)
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 4, 8
	var wg sync.WaitGroup
	for i := range writers {
		k := openKeyring(t, dir, c)
		wg.Go(func() {
			for j := range each {
				_, s, err := k.AddToken(Principal{Name: fmt.Sprintf("u%d-%d", i, j), Role: Reader}, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := first.Bearer(s.Reveal()); err != nil {
					t.Errorf("a token just made elsewhere: %v", err)
				}
				if _, err := k.Bearer(steady.Reveal()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(must2(first.Tokens())(t)); n != 1+writers*each {
		t.Errorf("%d tokens, want %d", n, 1+writers*each)
	}
}

func TestSecretsDontShow(t *testing.T) {
	dir, c := t.TempDir()+"/data", newClock()
	k, ca := openKeyring(t, dir, c), openCA(t, dir, c)
	key := must2(k.AddAccount(Principal{Name: "team", Role: Admin}))(t)
	tok, bearer, err := k.AddToken(Principal{Name: "alice", Role: Reader}, 0)
	if err != nil {
		t.Fatal(err)
	}
	jt, joins, err := ca.AddJoinToken(JoinSpec{})
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Public  Secret
		private Secret
		list    []Secret
	}
	for _, s := range []Secret{key, bearer, joins} {
		plain := s.Reveal()
		h := holder{s, s, []Secret{s}}
		var out bytes.Buffer
		for _, v := range []any{s, &s, h, &h, tok, jt, k, k.file, ca, JoinRequest{Token: s}, map[string]Secret{"a": s}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		}
		tail := plain[len(plain)-20:]
		for _, leak := range []string{tail, hex.EncodeToString([]byte(tail)), strings.ToUpper(hex.EncodeToString([]byte(tail)))} {
			if i := strings.Index(out.String(), leak); i >= 0 {
				t.Errorf("the secret shows in %q", out.String()[max(0, i-100):min(out.Len(), i+60)])
			}
		}
	}
	// At rest, tokens are hashes.
	for _, name := range []string{keyringName, membersName} {
		data := must2(os.ReadFile(filepath.Join(dir, name)))(t)
		for _, s := range []Secret{bearer, joins} {
			_, secret, _ := strings.Cut(strings.TrimPrefix(s.Reveal(), tokenPrefix), "_")
			if bytes.Contains(data, []byte(secret)) || bytes.Contains(data, []byte(s.Reveal())) {
				t.Errorf("%s has a token in it", name)
			}
		}
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, 0o600, dir, "ok", " s3cret \nmore\n")
	if s := must2(ReadSecret(dir+"/ok", nil))(t); s.Reveal() != "s3cret" {
		t.Errorf("got %q", s.Reveal())
	}
	if s := must2(ReadSecret("-", strings.NewReader("s3cret\n")))(t); s.Reveal() != "s3cret" {
		t.Errorf("got %q", s.Reveal())
	}
	_, err := ReadSecret("-", strings.NewReader(" \n"))
	wantError(t, err, false, "standard input has no secret")
	writeFile(t, 0o644, dir, "open", "s3cret")
	if runtime.GOOS != "windows" {
		_, err = ReadSecret(dir+"/open", nil)
		wantError(t, err, false, "chmod 600")
	}
}

// Whatever is added and revoked, a keyring read from the file says the same.
func TestKeyringIsItsFile(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := filepath.Join(t.TempDir(), "data")
		k := openKeyring(t, dir, newClock())
		want := map[string]Principal{} // by token
		ids := map[string]string{}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			if len(want) > 0 && rapid.Bool().Draw(rt, "revoke") {
				for s := range want {
					if err := k.RevokeToken(ids[s]); err != nil {
						rt.Fatal(err)
					}
					delete(want, s)
					_, err := k.Bearer(s)
					wantError(t, err, true, "unknown")
					break
				}
				continue
			}
			p := Principal{Name: rapid.StringMatching(`[a-zäß\\@$][a-z0-9.@$-]{0,20}`).Draw(rt, "name"), Role: Role(rapid.IntRange(1, 3).Draw(rt, "role"))}
			tok, s, err := k.AddToken(p, 0)
			if err != nil {
				rt.Fatal(err)
			}
			want[s.Reveal()], ids[s.Reveal()] = p, tok.ID
		}
		got := map[string]Principal{}
		again := openKeyring(t, dir, newClock())
		for s := range want {
			got[s], _ = again.Bearer(s)
		}
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatal(d)
		}
	})
}
