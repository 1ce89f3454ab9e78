//go:build linux

// Package lab builds several Linux hosts on one machine for tests: each host
// is a set of namespaces (network, pid, mount, uts, ipc) with its own host
// name, /etc/hosts, sysfs, /dev/shm, /tmp, /run and its own sshd, wired to a
// bridge that lives in a namespace of its own. The hosts share every other
// directory, as nodes with a parallel file system do.
//
// It needs root, iproute2 and openssh-server. Nothing of a lab outlives the
// process that built it: every host hangs on a keeper process that ends when
// the builder's end of a pipe closes, and the kernel then ends the rest.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// MaxHosts is how many hosts a lab can have beside the launcher's.
const MaxHosts = 200

// bringUp is how long a whole lab may take to come up; a lab of 8 hosts takes
// well under a second on an idle machine.
const bringUp = 60 * time.Second

// Lab is a running set of hosts. Host 0, named n0, is where a launcher runs;
// hosts 1…n are named n1…nN.
type Lab struct {
	dir   string // shared by all hosts at the same path
	sw    *keeper
	hosts []*Host

	config *config // nil when found by Open
}

type config struct {
	privateHome bool
	homeSize    map[int]int64 // host → bytes
	tmpSize     map[int]int64
	keys        map[int]keyTrust
	extraHosts  []string
	shared      []string // directories visible at the same path in every host
	dir         string   // given by the caller, else made
	detached    bool     // survives the builder; only Open's user ends it
}

// Option changes how a lab is built.
type Option func(*config)

// PrivateHome gives every host its own home directory, for clusters without a
// shared file system. Without it the hosts share one.
func PrivateHome() Option { return func(c *config) { c.privateHome = true } }

// SmallHome gives the named hosts a home directory of their own that holds
// only so many bytes.
func SmallHome(bytes int64, hosts ...int) Option {
	return func(c *config) {
		for _, i := range hosts {
			c.homeSize[i] = bytes
		}
	}
}

// SmallTmp limits /tmp of the named hosts to so many bytes.
func SmallTmp(bytes int64, hosts ...int) Option {
	return func(c *config) {
		for _, i := range hosts {
			c.tmpSize[i] = bytes
		}
	}
}

// BadHostKey puts another key than the host's own into known_hosts, as after
// a reinstallation or with someone in the middle.
func BadHostKey(hosts ...int) Option { return trust(keyChanged, hosts) }

// UnknownHostKey leaves the hosts out of known_hosts.
func UnknownHostKey(hosts ...int) Option { return trust(keyUnknown, hosts) }

func trust(k keyTrust, hosts []int) Option {
	return func(c *config) {
		for _, i := range hosts {
			c.keys[i] = k
		}
	}
}

// ExtraHosts appends lines to every host's /etc/hosts.
func ExtraHosts(lines ...string) Option {
	return func(c *config) { c.extraHosts = append(c.extraHosts, lines...) }
}

// Share makes directories under /tmp visible in every host at the same path.
// The lab's own directory, the working directory's module, the running
// executable's directory and the test's temporary directories always are.
func Share(dirs ...string) Option {
	return func(c *config) { c.shared = append(c.shared, dirs...) }
}

// Dir puts the lab's files there instead of a new directory under /tmp; the
// path should be short, unix sockets may live under it.
func Dir(dir string) Option { return func(c *config) { c.dir = dir } }

// Detached lets the lab outlive the process that builds it; Open finds it
// again by its directory, and Close ends it.
func Detached() Option { return func(c *config) { c.detached = true } }

// New builds a lab of n hosts and the launcher's for a test and ends it with
// the test. It skips the test, saying why, where a lab can't be built.
func New(t testing.TB, n int, opts ...Option) *Lab {
	t.Helper()
	if why := Missing(); why != "" {
		t.Skipf("no lab of namespaces here: %s", why)
	}
	// One call makes the test's directory; later ones are its siblings.
	opts = append(opts, Share(filepath.Dir(t.TempDir())))
	l, err := Up(context.Background(), n, opts...)
	if err != nil {
		t.Fatalf("build a lab of %d hosts: %v", n, err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}

// Missing says what a lab needs that isn't here; empty when it can be built.
func Missing() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "no ip command (package iproute2)"
	}
	if _, err := os.Stat(sshdPath); err != nil {
		return "no " + sshdPath + " (package openssh-server)"
	}
	if err := tryNamespaces(); err != nil {
		return "namespaces are not allowed: " + err.Error()
	}
	return ""
}

// Up builds a lab of n hosts and the launcher's, with sshd answering on all.
func Up(ctx context.Context, n int, opts ...Option) (*Lab, error) {
	if n < 0 || n > MaxHosts {
		return nil, fmt.Errorf("lab of %d hosts: must be 0…%d", n, MaxHosts)
	}
	ctx, cancel := context.WithTimeout(ctx, bringUp)
	defer cancel()
	c := &config{homeSize: map[int]int64{}, tmpSize: map[int]int64{}, keys: map[int]keyTrust{}}
	for _, o := range opts {
		o(c)
	}
	sweep()
	dir, err := makeDir(c.dir)
	if err != nil {
		return nil, err
	}
	l := &Lab{dir: dir, config: c}
	for i := range n + 1 {
		l.hosts = append(l.hosts, &Host{
			lab: l, index: i,
			name: "n" + strconv.Itoa(i),
			addr: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}),
		})
	}
	if err := l.build(ctx, c); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if c.detached {
		if err := l.save(); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context, c *config) error {
	if err := l.writeFiles(c); err != nil {
		return err
	}
	var err error
	if l.sw, err = startKeeper(switchScript, nil, c.detached); err != nil {
		return err
	}
	for _, h := range l.hosts {
		if err := h.start(c); err != nil {
			return err
		}
	}
	if err := l.sw.wait(ctx, "ready"); err != nil {
		return err
	}
	if err := l.wire(ctx); err != nil {
		return err
	}
	for _, h := range l.hosts {
		if err := h.keeper.release(ctx); err != nil {
			return fmt.Errorf("host %s: %w", h.name, err)
		}
		if err := h.startSSHD(); err != nil {
			return fmt.Errorf("sshd on %s: %w", h.name, err)
		}
	}
	for _, h := range l.hosts {
		if err := h.waitSSHD(ctx); err != nil {
			return fmt.Errorf("sshd on %s: %w", h.name, err)
		}
	}
	return nil
}

// Close ends every process of the lab and removes its files.
func (l *Lab) Close() error {
	var keepers []*keeper
	for _, h := range l.hosts {
		if h.keeper != nil {
			keepers = append(keepers, h.keeper)
		}
	}
	if l.sw != nil {
		keepers = append(keepers, l.sw)
	}
	errs := make([]error, len(keepers), len(keepers)+1)
	var all sync.WaitGroup
	for i, k := range keepers {
		all.Go(func() { errs[i] = k.kill() })
	}
	all.Wait()
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

// Host returns host i: 0 is the launcher's, 1…n the nodes.
func (l *Lab) Host(i int) *Host { return l.hosts[i] }

// Launcher returns host n0, from where a launcher is run.
func (l *Lab) Launcher() *Host { return l.hosts[0] }

// Len returns the number of nodes, the launcher's host not counted.
func (l *Lab) Len() int { return len(l.hosts) - 1 }

// Dir returns a directory that all hosts and the builder share.
func (l *Lab) Dir() string { return l.dir }

// Home returns the path of the user's home directory inside the hosts.
func (l *Lab) Home() string { return filepath.Join(l.dir, "home") }

// SSHConfig returns the path of the ssh client's configuration; it is also
// ~/.ssh/config on every host.
func (l *Lab) SSHConfig() string { return filepath.Join(l.dir, "home/.ssh/config") }

const dirPrefix = "gwlab-"

func makeDir(dir string) (string, error) {
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(filepath.Join(abs, stateFile)); err == nil {
			return "", fmt.Errorf("%s holds a running lab: end it first", abs)
		}
		return abs, os.MkdirAll(abs, 0o755)
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		return "", err
	}
	// The name tells whose it is, so that a later lab can remove it once its
	// builder is gone.
	made, err := os.MkdirTemp("/tmp", fmt.Sprintf("%s%d-%s-", dirPrefix, os.Getpid(), start))
	if err != nil {
		return "", err
	}
	return made, os.Chmod(made, 0o755)
}

// sweep removes the files of labs whose builder was killed. Their processes
// are gone already: keepers end with their builder.
func sweep() {
	dirs, _ := filepath.Glob("/tmp/" + dirPrefix + "*-*-*")
	for _, d := range dirs {
		part := strings.Split(strings.TrimPrefix(filepath.Base(d), dirPrefix), "-")
		pid, err := strconv.Atoi(part[0])
		if err != nil || len(part) != 3 {
			continue
		}
		if start, err := startTime(pid); err != nil || start != part[1] {
			os.RemoveAll(d)
		}
	}
}
