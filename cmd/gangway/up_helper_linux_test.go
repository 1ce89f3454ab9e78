package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/internal/lab"
	"gangway/launcher/auth"
	"gangway/nodeagent/proc"
)

// daemon is a launcher that stays, started by gangway up as users do.
type daemon struct {
	*bed
	*process
	data   string
	socket string
	listen string // host:port
	ca     string // file with the authority's certificate
}

// upLocal starts a launcher on this machine, with this machine as its node.
func upLocal(t *testing.T, args ...string) *daemon {
	t.Helper()
	bin := gangwayBinary(t)
	b := keptBed(t)
	b.bin = bin
	return b.up(filepath.Join(b.base, "data"), append([]string{"--tmpdir", b.base}, args...)...)
}

// keptBed is a bed on this machine, without a program yet, for launchers that
// leave agents behind: what is left at the end is ended.
func keptBed(t *testing.T) *bed {
	t.Helper()
	base, err := os.MkdirTemp("/tmp", "gwu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		endLocal(t, base)
		_ = os.RemoveAll(base)
	})
	// As /tmp: other users have their directories in it.
	if err := os.Chmod(base, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return &bed{t: t, base: base, limit: 10 * time.Minute}
}

// up starts a launcher on data in the bed and waits until it serves.
func (b *bed) up(data string, args ...string) *daemon {
	b.t.Helper()
	s := &daemon{bed: b, data: data}
	address := "127.0.0.1:0"
	if b.lab != nil {
		address = b.lab.Launcher().Addr().String() + ":7701"
	}
	s.process = b.start(nil, nil, append([]string{"up", "--json", "--data", data, "--listen", address}, args...)...)
	b.t.Cleanup(s.stop)
	waitFor(b.t, "the launcher is up", 20*time.Second, func() bool {
		select {
		case <-s.done:
			b.t.Fatalf("gangway up ended with status %d\n%s", s.status(), s.process.err)
		default:
		}
		for _, line := range lines(s.process.err.String()) {
			var e struct{ Msg, Socket, Listen string }
			if json.Unmarshal([]byte(line), &e) == nil && e.Msg == "the launcher is up" {
				s.socket, s.listen = e.Socket, e.Listen
				return true
			}
		}
		return false
	})
	ca, err := auth.OpenCA(data, auth.CAOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	s.ca = filepath.Join(filepath.Dir(data), "ca-of-"+filepath.Base(data)+".pem")
	if err := os.WriteFile(s.ca, ca.Certificate(), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// stop ends the launcher as a service manager does; it may be called again.
func (s *daemon) stop() {
	_ = s.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(15 * time.Second):
		s.t.Errorf("15 s after SIGTERM the launcher is still there\n%s", s.process.err)
		_ = s.Process.Kill()
		<-s.done
	}
}

// url is the address of the API.
func (s *daemon) url() string { return "https://" + s.listen }

func (s *daemon) keyring() *auth.Keyring {
	s.t.Helper()
	k, err := auth.OpenKeyring(s.data, auth.KeyringOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

func (s *daemon) authority() *auth.CA {
	s.t.Helper()
	ca, err := auth.OpenCA(s.data, auth.CAOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return ca
}

// account makes a SharedKey account and a file with its key.
func (s *daemon) account(name string, role auth.Role) (keyFile, key string) {
	s.t.Helper()
	secret, err := s.keyring().AddAccount(auth.Principal{Name: name, Role: role, NodeUser: userOf(role)})
	if err != nil {
		s.t.Fatal(err)
	}
	keyFile = filepath.Join(filepath.Dir(s.data), name+".key")
	if err := os.WriteFile(keyFile, []byte(secret.Reveal()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return keyFile, secret.Reveal()
}

// userOf is a node user for a role: others' work runs as root for admins only.
func userOf(role auth.Role) string {
	u, err := user.Current()
	switch {
	case role == auth.Admin || err != nil:
		return ""
	case u.Uid == "0":
		return "nobody"
	}
	return u.Username
}

// token makes a bearer token.
func (s *daemon) token(name string, role auth.Role) string {
	s.t.Helper()
	_, secret, err := s.keyring().AddToken(auth.Principal{Name: name, Role: role, NodeUser: userOf(role)}, time.Hour)
	if err != nil {
		s.t.Fatal(err)
	}
	return secret.Reveal()
}

// overSocket is a client of the unix socket as this test's user.
func (s *daemon) overSocket() *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
	}
	tr := &http.Transport{DialContext: dial, DialTLSContext: dial} // without TLS, whatever the address says
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// secretFree fails if one of the texts is in what the launcher has logged.
func (s *daemon) secretFree(secrets ...string) {
	s.t.Helper()
	log := s.process.err.String() + s.process.out.String()
	for _, x := range secrets {
		if x != "" && strings.Contains(log, x) {
			s.t.Errorf("a secret is in the launcher's log")
		}
	}
}

// endLocal ends what a local launcher that is gone has left on this machine:
// agents and the shims of kept jobs outlive it on purpose.
func endLocal(t *testing.T, base string) {
	t.Helper()
	shared := map[string]bool{} // nobody is left who would remove it
	defer func() {
		for dir := range shared {
			_ = os.RemoveAll(dir)
		}
	}()
	waitFor(t, "no process of "+base+" left", 20*time.Second, func() bool {
		pids := pidsOf(base)
		for _, pid := range pids {
			env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			for v := range strings.SplitSeq(string(env), "\x00") {
				if id, ok := strings.CutPrefix(v, "GANGWAY_ID="); ok && id != "" {
					shared[proc.SharedMemoryDir("/gangway-"+id)] = true
				}
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
}

// pidsOf lists this machine's processes that name a directory in their arguments
// or environment.
func pidsOf(base string) []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		env, _ := os.ReadFile(d + "/environ")
		args, _ := os.ReadFile(d + "/cmdline")
		if pid != os.Getpid() && (bytes.Contains(env, []byte(base)) || bytes.Contains(args, []byte(base))) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// upLab starts a launcher on n0 of a lab whose other hosts are its nodes by ssh.
func upLab(t *testing.T, n int, opts ...lab.Option) *daemon {
	t.Helper()
	if why := lab.Missing(); why != "" {
		t.Skip(why)
	}
	bin := gangwayBinary(t)
	b := &bed{t: t, bin: bin, limit: 10 * time.Minute, lab: lab.New(t, n, append(opts, lab.Share(buildDir))...)}
	return b.up(filepath.Join(b.lab.Dir(), "data"), "--hosts", fmt.Sprintf("n[1-%d]", n))
}

// logged waits until the launcher has logged a line with all of the words.
func (s *daemon) logged(limit time.Duration, words ...string) {
	s.t.Helper()
	waitFor(s.t, "the launcher has logged "+strings.Join(words, ", "), limit, func() bool {
		sc := bufio.NewScanner(strings.NewReader(s.process.err.String()))
		for sc.Scan() {
			found := true
			for _, w := range words {
				found = found && strings.Contains(sc.Text(), w)
			}
			if found {
				return true
			}
		}
		return false
	})
}
