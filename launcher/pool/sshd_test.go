package pool

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// site is a client's files and the sshds it may reach, all on the loopback.
type site struct {
	t      *testing.T
	dir    string
	home   string // the client's; .ssh is in it
	config strings.Builder
	user   string
}

// sshd is one real sshd with its own host key and its own home directory.
type sshd struct {
	port int
	home string
	key  ssh.PublicKey
	cmd  *exec.Cmd
	log  *tail
}

type sshdOptions struct {
	home    string   // shared with another
	options []string // more of sshd_config, "Name=value"
	unknown bool     // not in known_hosts
	wrap    []string // command before sshd, e.g. unshare
}

func newSite(t *testing.T) *site {
	t.Helper()
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Skip("needs a real sshd: install openssh-server")
	}
	if os.Getuid() == 0 {
		// sshd's own requirement; Debian's service makes it at boot.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Skip("sshd needs /run/sshd: ", err)
		}
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	s := &site{t: t, dir: t.TempDir(), user: newConfigReader(SSHConfig{}, nil).user}
	s.home = filepath.Join(s.dir, "client")
	must(t, os.MkdirAll(filepath.Join(s.home, ".ssh"), 0o700))
	s.writeKey("id_ed25519", "")
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) path(name string) string { return filepath.Join(s.home, ".ssh", name) }

// writeKey makes a key pair in the client's .ssh and admits it everywhere.
func (s *site) writeKey(name, passphrase string) ssh.Signer {
	signer := s.strayKey(name, passphrase)
	f, err := os.OpenFile(filepath.Join(s.dir, "authorized"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	must(s.t, err)
	defer f.Close()
	_, err = f.Write(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	must(s.t, err)
	return signer
}

// strayKey makes a key pair that no host admits.
func (s *site) strayKey(name, passphrase string) ssh.Signer {
	signer, text := newKey(s.t, passphrase)
	must(s.t, os.WriteFile(s.path(name), text, 0o600))
	return signer
}

func newKey(t *testing.T, passphrase string) (ssh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	must(t, err)
	return signer, pem.EncodeToMemory(block)
}

// start brings up a host and names it in the client's ssh_config.
func (s *site) start(name string, o sshdOptions) *sshd {
	s.t.Helper()
	d := &sshd{home: o.home, log: &tail{}}
	dir := filepath.Join(s.dir, "host-"+name)
	must(s.t, os.MkdirAll(dir, 0o700))
	if d.home == "" {
		d.home = filepath.Join(dir, "home")
		must(s.t, os.MkdirAll(d.home, 0o700))
	}
	signer, text := newKey(s.t, "")
	d.key = signer.PublicKey()
	must(s.t, os.WriteFile(filepath.Join(dir, "hostkey"), text, 0o600))
	d.port = freePort(s.t)
	config := fmt.Sprintf(`ListenAddress 127.0.0.1:%d
HostKey %s/hostkey
AuthorizedKeysFile %s/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PidFile none
LogLevel VERBOSE
MaxStartups 100
SetEnv HOME=%s
`, d.port, dir, s.dir, d.home)
	sub := "Subsystem sftp internal-sftp\n"
	for _, line := range o.options {
		if strings.HasPrefix(line, "Subsystem") {
			sub = ""
		}
		config += line + "\n"
	}
	must(s.t, os.WriteFile(filepath.Join(dir, "config"), []byte(config+sub), 0o600))
	args := append(o.wrap, "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "config"))
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stderr = d.log
	must(s.t, d.cmd.Start())
	done := make(chan struct{})
	go func() { d.cmd.Wait(); close(done) }()
	s.t.Cleanup(func() {
		d.cmd.Process.Kill()
		<-done
		if s.t.Failed() {
			s.t.Logf("sshd of %s:\n%s", name, d.log)
		}
	})
	s.await(d, done)
	s.add("Host %s\n  HostName 127.0.0.1\n  Port %d\n  UserKnownHostsFile %s\n  GlobalKnownHostsFile none\n", name, d.port, s.path("known_hosts"))
	if !o.unknown {
		s.know(d.port, d.key)
	}
	return d
}

// await connects until sshd greets.
func (s *site) await(d *sshd, ended chan struct{}) {
	s.t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for time.Now().Before(limit) {
		select {
		case <-ended:
			s.t.Fatalf("sshd ended:\n%s", d.log)
		default:
		}
		if c, err := net.Dial("tcp", d.addr()); err == nil {
			c.SetDeadline(limit)
			_, err := bufio.NewReader(c).ReadString('\n')
			c.Close()
			if err == nil {
				return
			}
		}
		time.Sleep(5 * time.Millisecond) // a poll; nothing tells that it listens
	}
	s.t.Fatalf("sshd does not listen:\n%s", d.log)
}

func (d *sshd) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port)) }

// bin is where the program is expected on the host.
func (d *sshd) bin() string { return filepath.Join(d.home, ".cache/gangway/bin") }

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *site) know(port int, key ssh.PublicKey) {
	s.t.Helper()
	f, err := os.OpenFile(s.path("known_hosts"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	must(s.t, err)
	defer f.Close()
	fmt.Fprintf(f, "[127.0.0.1]:%d %s", port, ssh.MarshalAuthorizedKey(key))
}

func (s *site) add(format string, args ...any) { fmt.Fprintf(&s.config, format, args...) }

// pool opens the provider under test, with what was configured so far.
func (s *site) pool(nodes ...string) *sshPool { return s.poolWith(SSHConfig{}, nodes...) }

func (s *site) poolWith(cfg SSHConfig, nodes ...string) *sshPool {
	s.t.Helper()
	file := s.path("config")
	must(s.t, os.WriteFile(file, []byte(s.config.String()), 0o600))
	exe, err := os.Executable()
	must(s.t, err)
	if cfg.Binaries == nil {
		cfg.Binaries = []string{exe}
	}
	cfg.ConfigFile, cfg.Home = file, s.home
	if cfg.Warn == nil {
		cfg.Warn = func(line string) { s.t.Log("warning: ", line) }
	}
	var list []Node
	for _, n := range nodes {
		list = append(list, Node{Name: n})
	}
	p, err := SSH(cfg, list)
	must(s.t, err)
	s.t.Cleanup(func() { p.Close() })
	return p.(*sshPool)
}

// hello connects, checks that the stream carries bytes both ways and returns the
// program's greeting.
func (s *site) hello(p Provider, node string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	c, err := p.Connect(ctx, node)
	if err != nil {
		s.t.Fatalf("connecting to %s: %v", node, err)
	}
	defer c.Close()
	cancel() // the stream must not hang on the connecting's context
	return echo(s.t, c)
}

func echo(t *testing.T, c Conn) string {
	t.Helper()
	r := bufio.NewReader(c)
	greeting, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("greeting: %v; stderr: %s", err, c.Stderr())
	}
	// All byte values, more than a window, so that nothing is translated or cut.
	want := bytes.Repeat([]byte{0, 1, 2, 10, 13, 127, 128, 255}, 400<<10)
	var wg sync.WaitGroup
	wg.Go(func() { c.Write(want) })
	got := make([]byte, len(want))
	for n := 0; n < len(got); {
		k, err := r.Read(got[n:])
		if err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		n += k
	}
	wg.Wait()
	if !bytes.Equal(got, want) {
		t.Fatal("the bytes came back changed")
	}
	return strings.TrimSpace(greeting)
}

// refusal connects and returns the error that this must give.
func (s *site) refusal(p Provider, node string, kind Kind) *Error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	c, err := p.Connect(ctx, node)
	if err == nil {
		c.Close()
		s.t.Fatalf("%s could be reached", node)
	}
	s.t.Log(err)
	var e *Error
	if !errors.As(err, &e) {
		s.t.Fatalf("a %T, not an *Error: %v", err, err)
	}
	if e.Kind != kind || e.Node != node {
		s.t.Errorf("kind %d of node %q, want %d of %q", e.Kind, e.Node, kind, node)
	}
	return e
}

func wantText(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("the error does not say %q: %v", p, err)
		}
	}
}
