package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func TestUnknownHostKey(t *testing.T) {
	s := newSite(t)
	d := s.start("n1", sshdOptions{unknown: true})
	must(t, os.WriteFile(s.path("known_hosts"), []byte("# nobody\n"), 0o600))
	e := s.refusal(s.pool("n1"), "n1", HostKey)
	wantText(t, e, "not known", ssh.FingerprintSHA256(d.key), s.path("known_hosts"), "ssh -F "+s.path("config")+" n1",
		fmt.Sprintf("ssh-keyscan -p %d 127.0.0.1 >> %s", d.port, s.path("known_hosts")))

	s.add("Host *\n  StrictHostKeyChecking accept-new\n")
	s.hello(s.pool("n1"), "n1")
	text, err := os.ReadFile(s.path("known_hosts"))
	must(t, err)
	if !strings.Contains(string(text), fmt.Sprintf("[127.0.0.1]:%d ssh-ed25519 ", d.port)) {
		t.Errorf("known_hosts has %q", text)
	}
	s.hello(s.pool("n1"), "n1") // known now
	if again, _ := os.ReadFile(s.path("known_hosts")); string(again) != string(text) {
		t.Error("the key was written down twice")
	}
}

func TestChangedHostKey(t *testing.T) {
	for _, c := range []struct{ name, checking string }{{"strict", "yes"}, {"accept-new", "accept-new"}} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			d := s.start("n1", sshdOptions{unknown: true})
			other, _ := newKey(t, "")
			must(t, os.WriteFile(s.path("known_hosts"), []byte("# a comment\nbroken line\n"), 0o600))
			s.know(d.port, other.PublicKey())
			s.add("Host *\n  StrictHostKeyChecking %s\n", c.checking)
			e := s.refusal(s.pool("n1"), "n1", HostKey)
			wantText(t, e, "has changed", ssh.FingerprintSHA256(d.key), ssh.FingerprintSHA256(other.PublicKey()),
				s.path("known_hosts")+":3", "do not proceed", fmt.Sprintf("ssh-keygen -R '[127.0.0.1]:%d' -f %s", d.port, s.path("known_hosts")))
		})
	}
	t.Run("no", func(t *testing.T) {
		s := newSite(t)
		d := s.start("n1", sshdOptions{unknown: true})
		other, _ := newKey(t, "")
		s.know(d.port, other.PublicKey())
		s.add("Host *\n  StrictHostKeyChecking no\n")
		var mu sync.Mutex
		var warnings []string
		s.hello(s.poolWith(SSHConfig{Warn: func(w string) { mu.Lock(); defer mu.Unlock(); warnings = append(warnings, w) }}, "n1"), "n1")
		mu.Lock()
		defer mu.Unlock()
		if len(warnings) != 1 || !strings.Contains(warnings[0], "has changed") {
			t.Errorf("warnings: %q", warnings)
		}
	})
	t.Run("other type", func(t *testing.T) {
		s := newSite(t)
		d := s.start("n1", sshdOptions{unknown: true})
		line := fmt.Sprintf("[127.0.0.1]:%d %s\n", d.port, ecdsaLine(t))
		must(t, os.WriteFile(s.path("known_hosts"), []byte(line), 0o600))
		wantText(t, s.refusal(s.pool("n1"), "n1", HostKey), "has changed", "ssh-ed25519", "ecdsa-sha2-nistp256", "do not proceed")
	})
	t.Run("revoked", func(t *testing.T) {
		s := newSite(t)
		d := s.start("n1", sshdOptions{})
		f, err := os.OpenFile(s.path("known_hosts"), os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		fmt.Fprintf(f, "@revoked * %s", ssh.MarshalAuthorizedKey(d.key))
		must(t, f.Close())
		wantText(t, s.refusal(s.pool("n1"), "n1", HostKey), "revoked", s.path("known_hosts")+":2")
	})
}

func TestHostKeyAliasAndHashedNames(t *testing.T) {
	s := newSite(t)
	d := s.start("n1", sshdOptions{unknown: true})
	s.add("Host n1\n  HostKeyAlias cluster-node\n")
	line := "|1|" + hashOf("cluster-node") + " " + string(ssh.MarshalAuthorizedKey(d.key))
	must(t, os.WriteFile(s.path("known_hosts"), []byte(line), 0o600))
	s.hello(s.pool("n1"), "n1")
}

func TestKeys(t *testing.T) {
	s := newSite(t)
	s.start("n1", sshdOptions{})
	keys := func(lines string) *sshPool {
		saved := s.config.String()
		defer func() { s.config.Reset(); s.config.WriteString(saved) }()
		s.add("Host *\n%s", lines)
		return s.pool("n1")
	}
	s.strayKey("stray", "")
	locked := s.writeKey("locked", "secret")
	must(t, os.WriteFile(s.path("junk"), []byte("no key\n"), 0o600))

	t.Run("wrong key", func(t *testing.T) {
		e := s.refusal(keys("  IdentityFile "+s.path("stray")+"\n"), "n1", Auth)
		wantText(t, e, "permission denied for user "+s.user, s.path("stray"), "SHA256:", "ssh-copy-id")
	})
	t.Run("second key", func(t *testing.T) {
		s.hello(keys(fmt.Sprintf("  IdentityFile %s\n  IdentityFile ~/.ssh/missing\n  IdentityFile %%d/.ssh/id_ed25519\n", s.path("stray"))), "n1")
	})
	t.Run("unusable", func(t *testing.T) {
		e := s.refusal(keys(fmt.Sprintf("  IdentityFile %s\n  IdentityFile %s\n", s.path("junk"), s.path("gone"))), "n1", Auth)
		wantText(t, e, "no key at all", s.path("junk"), s.path("gone")+" (there is no such file)")
	})
	t.Run("wrong user", func(t *testing.T) {
		e := s.refusal(keys("  User nobody-such\n"), "n1", Auth)
		wantText(t, e, "permission denied for user nobody-such")
	})
	t.Run("encrypted without agent", func(t *testing.T) {
		e := s.refusal(keys("  IdentityFile "+s.path("locked")+"\n"), "n1", Auth)
		wantText(t, e, "encrypted", s.path("locked"), "ssh-add "+s.path("locked"))
	})

	ring := agent.NewKeyring()
	socket := serveAgent(t, ring)
	add := func(name string) {
		text, err := os.ReadFile(s.path(name))
		must(t, err)
		var key any
		if name == "locked" {
			key, err = ssh.ParseRawPrivateKeyWithPassphrase(text, []byte("secret"))
		} else {
			key, err = ssh.ParseRawPrivateKey(text)
		}
		must(t, err)
		must(t, ring.Add(agent.AddedKey{PrivateKey: key}))
	}
	add("locked")
	t.Run("encrypted, in the agent", func(t *testing.T) {
		t.Setenv("SSH_AUTH_SOCK", socket)
		s.hello(keys("  IdentitiesOnly yes\n  IdentityFile "+s.path("locked")+"\n"), "n1")
	})
	t.Run("IdentityAgent", func(t *testing.T) {
		s.hello(keys("  IdentityAgent "+socket+"\n  IdentityFile none\n"), "n1")
		t.Setenv("MY_AGENT", socket)
		s.hello(keys("  IdentityAgent $MY_AGENT\n  IdentityFile none\n"), "n1")
		t.Setenv("SSH_AUTH_SOCK", socket)
		s.refusal(keys("  IdentityAgent none\n  IdentityFile none\n"), "n1", Auth)
	})
	t.Run("public half", func(t *testing.T) {
		t.Setenv("SSH_AUTH_SOCK", socket)
		must(t, os.WriteFile(s.path("chosen.pub"), ssh.MarshalAuthorizedKey(locked.PublicKey()), 0o600))
		s.hello(keys("  IdentitiesOnly yes\n  IdentityFile "+s.path("chosen.pub")+"\n"), "n1")
	})
	t.Run("IdentitiesOnly leaves the agent's other keys out", func(t *testing.T) {
		t.Setenv("SSH_AUTH_SOCK", socket)
		e := s.refusal(keys("  IdentitiesOnly yes\n  IdentityFile "+s.path("stray")+"\n"), "n1", Auth)
		if strings.Contains(e.Error(), "agent (") {
			t.Error("an agent's key was offered")
		}
	})
	t.Run("too many keys", func(t *testing.T) {
		for i := range 8 {
			s.strayKey(fmt.Sprint("stray", i), "")
			add(fmt.Sprint("stray", i))
		}
		must(t, ring.Remove(locked.PublicKey()))
		t.Setenv("SSH_AUTH_SOCK", socket)
		wantText(t, s.refusal(keys(""), "n1", Auth), "too many keys", "IdentitiesOnly")
	})
	t.Run("dead agent", func(t *testing.T) {
		t.Setenv("SSH_AUTH_SOCK", filepath.Join(s.dir, "nothing"))
		s.hello(keys(""), "n1")
		wantText(t, s.refusal(keys("  IdentityFile none\n"), "n1", Auth), "ssh-agent at "+filepath.Join(s.dir, "nothing"))
	})
}

func TestHostWantsMoreThanAKey(t *testing.T) {
	s := newSite(t)
	s.start("n1", sshdOptions{options: []string{"AuthenticationMethods publickey,publickey"}})
	wantText(t, s.refusal(s.pool("n1"), "n1", Auth), "the key was taken", "second factor")
}

func TestCertificate(t *testing.T) {
	s := newSite(t)
	ca, _ := newKey(t, "")
	must(t, os.WriteFile(filepath.Join(s.dir, "ca.pub"), ssh.MarshalAuthorizedKey(ca.PublicKey()), 0o600))
	s.start("n1", sshdOptions{options: []string{"TrustedUserCAKeys " + filepath.Join(s.dir, "ca.pub")}})
	key := s.strayKey("short", "")
	cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{s.user}, ValidBefore: ssh.CertTimeInfinity}
	must(t, cert.SignCert(randReader{}, ca))
	must(t, os.WriteFile(s.path("short-cert.pub"), ssh.MarshalAuthorizedKey(cert), 0o600))
	s.add("Host *\n  IdentityFile %s\n", s.path("short"))
	s.hello(s.pool("n1"), "n1")
}

func serveAgent(t *testing.T, ring agent.Agent) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { agent.ServeAgent(ring, c); c.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return socket
}

func TestUnreachable(t *testing.T) {
	s := newSite(t)
	port := freePort(t)
	s.add("Host refused\n  HostName 127.0.0.1\n  Port %d\n", port)
	s.add("Host nowhere\n  HostName nowhere.invalid\n")
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, by its queue, and says nothing
	must(t, err)
	defer l.Close()
	s.add("Host mute\n  HostName 127.0.0.1\n  Port %d\n  ConnectTimeout 1\n", l.Addr().(*net.TCPAddr).Port)
	p := s.pool("refused", "nowhere", "mute")
	wantText(t, s.refusal(p, "refused", Unreachable), fmt.Sprintf("127.0.0.1:%d", port), "refused", "is sshd running")
	wantText(t, s.refusal(p, "mute", Unreachable), "did not speak ssh in 1s")
	// Without a name server the answer differs, and takes its time.
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if _, err := p.Connect(ctx, "nowhere"); err == nil {
		t.Error("an invalid name was found")
	} else {
		wantText(t, err, "nowhere.invalid")
	}
	if _, err := p.Connect(t.Context(), "stranger"); err == nil {
		t.Error("a node outside of the pool was connected")
	}
}

func TestNotAnSSHServer(t *testing.T) {
	s := newSite(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		if c, err := l.Accept(); err == nil {
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			c.Close()
		}
	})
	defer func() { l.Close(); wg.Wait() }()
	s.add("Host web\n  HostName 127.0.0.1\n  Port %d\n", l.Addr().(*net.TCPAddr).Port)
	wantText(t, s.refusal(s.pool("web"), "web", Unreachable), "no ssh with", "is that sshd's port")
}

func TestProxyJump(t *testing.T) {
	s := newSite(t)
	gate := s.start("gate", sshdOptions{})
	middle := s.start("middle", sshdOptions{})
	n1 := s.start("n1", sshdOptions{})
	n2 := s.start("n2", sshdOptions{})
	s.add("Host n1 n2 n3\n  ProxyJump gate,%s@middle\n", s.user)
	s.add("Host n3\n  HostName 127.0.0.1\n  Port %d\n", freePort(t))
	p := s.pool("n1", "n2", "n3", "gate")
	var wg sync.WaitGroup
	for _, n := range []string{"n1", "n2", "gate"} {
		wg.Go(func() { s.hello(p, n) })
	}
	wg.Wait()
	for name, d := range map[string]*sshd{"gate": gate, "middle": middle, "n1": n1, "n2": n2} {
		if got := strings.Count(d.log.String(), "Accepted publickey"); got != 1 {
			t.Errorf("%d logins at %s, want 1: jumps are shared", got, name)
		}
	}
	wantText(t, s.refusal(p, "n3", Unreachable), "from jump host middle", "refused")

	// The first hop's own ProxyJump counts.
	s.add("Host n4\n  HostName 127.0.0.1\n  Port %d\n  UserKnownHostsFile %s\n  ProxyJump n1\n", n2.port, s.path("known_hosts"))
	s.hello(s.pool("n4"), "n4")
	if got := strings.Count(middle.log.String(), "Accepted publickey"); got != 2 {
		t.Errorf("%d logins at the middle, want 2", got)
	}
}

func TestJumpHostErrorsNameIt(t *testing.T) {
	s := newSite(t)
	s.start("gate", sshdOptions{unknown: true, options: []string{}})
	s.start("closed", sshdOptions{options: []string{"AllowTcpForwarding no"}})
	s.start("n1", sshdOptions{})
	must(t, appendFile(s.path("known_hosts"), ""))
	s.add("Host n1\n  ProxyJump gate\nHost n2\n  ProxyJump closed\n")
	p := s.pool("n1", "n2")
	wantText(t, s.refusal(p, "n1", HostKey), "n1: jump host gate: the host key of gate", "is not known")
	wantText(t, s.refusal(p, "n2", Unreachable), "AllowTcpForwarding")
}

func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func TestProxyCommand(t *testing.T) {
	nc, err := lookPath("ssh")
	if err != nil {
		t.Skip("needs ssh for a ProxyCommand")
	}
	s := newSite(t)
	gate := s.start("gate", sshdOptions{})
	s.start("n1", sshdOptions{})
	s.add("Host n1\n  ProxyCommand %s -F none -i %s -o UserKnownHostsFile=%s -p %d -W %%h:%%p 127.0.0.1\n", nc, s.path("id_ed25519"), s.path("known_hosts"), gate.port)
	s.hello(s.pool("n1"), "n1")
	s.config.Reset()
	s.add("Host n1\n  ProxyCommand false\n")
	e := s.refusal(s.pool("n1"), "n1", Unreachable)
	wantText(t, e, "ProxyCommand `false`", "exit status 1")
}

// TestSilentPeer stops the sshd process that serves the connection: the network
// is up, nothing answers.
func TestSilentPeer(t *testing.T) {
	s := newSite(t)
	d := s.start("n1", sshdOptions{})
	p := s.pool("n1")
	c, err := p.Connect(t.Context(), "n1")
	must(t, err)
	defer c.Close()
	echo(t, c)

	stopped := descendants(t, d.cmd.Process.Pid)
	if len(stopped) == 0 {
		t.Fatal("no sshd serves the connection")
	}
	for _, pid := range stopped {
		must(t, signal(pid, "STOP"))
	}
	defer func() {
		for _, pid := range stopped {
			signal(pid, "KILL")
		}
	}()
	began := time.Now()
	_, err = c.Read(make([]byte, 1))
	took := time.Since(began)
	var e *Error
	if !errors.As(err, &e) || e.Kind != Lost || !e.Retry() {
		t.Errorf("read gave %v", err)
	}
	t.Logf("noticed after %v: %v", took, err)
	if took > 5*time.Second {
		t.Errorf("the silence was noticed after %v, want 5 s at most", took)
	}
	s.hello(p, "n1") // a new connection is made
}

// TestBrokenConnection kills the serving sshd and connects again.
func TestBrokenConnection(t *testing.T) {
	s := newSite(t)
	d := s.start("n1", sshdOptions{})
	p := s.pool("n1")
	for range 3 {
		c, err := p.Connect(t.Context(), "n1")
		must(t, err)
		echo(t, c)
		for _, pid := range descendants(t, d.cmd.Process.Pid) {
			signal(pid, "KILL")
		}
		_, err = c.Read(make([]byte, 1))
		var e *Error
		if !errors.As(err, &e) || e.Kind != Lost {
			t.Errorf("reading from a broken connection gave %v", err)
		}
		c.Close()
	}
}

func TestReconnectUsesTheLivingConnection(t *testing.T) {
	s := newSite(t)
	d := s.start("n1", sshdOptions{})
	p := s.pool("n1")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { s.hello(p, "n1") })
	}
	wg.Wait()
	if n := strings.Count(d.log.String(), "Accepted publickey"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

func TestCloseEndsStreams(t *testing.T) {
	s := newSite(t)
	s.start("n1", sshdOptions{})
	p := s.pool("n1")
	c, err := p.Connect(t.Context(), "n1")
	must(t, err)
	echo(t, c)
	must(t, p.Close())
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the stream outlived its pool")
	}
	if _, err := p.Connect(t.Context(), "n1"); err == nil {
		t.Error("a closed pool connects")
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	s := newSite(t)
	d := s.start("n1", sshdOptions{})
	p := s.pool("n1")
	for wait := time.Millisecond; wait < 600*time.Millisecond; wait = wait * 5 / 4 {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		c, err := p.Connect(ctx, "n1")
		cancel()
		if err == nil {
			echo(t, c)
			c.Close()
			os.RemoveAll(d.bin())
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", wait, err)
		}
		// A script on the host may notice a little later that nobody listens.
		part := func(f string) bool { return strings.HasSuffix(f, ".part") }
		for limit := time.Now().Add(5 * time.Second); slices.ContainsFunc(files(t, d.bin()), part); {
			if time.Now().After(limit) {
				t.Fatalf("after %v: left %q", wait, files(t, d.bin()))
			}
			time.Sleep(5 * time.Millisecond) // a poll of the host's directory
		}
	}
}
