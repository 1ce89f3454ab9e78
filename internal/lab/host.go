//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Host is one machine of a lab.
type Host struct {
	lab    *Lab
	index  int
	name   string
	addr   netip.Addr
	keeper *keeper
	sshd   int // pid of its sshd, as seen from outside
}

// hostScript builds a host's file systems. It gets the lab's directory, the
// host's name, the sizes and the shared directories from the environment, and
// waits for its network interface before it configures it.
const hostScript = `set -e
mount --make-rprivate /
mount -t proc proc /proc
hostname "$NAME"
H="$LAB/hosts/$NAME"
# A sysfs shows the interfaces of the network namespace it was mounted in; the
# cgroup mounts under it are put back.
mkdir -p "$H/cg"
if [ -d /sys/fs/cgroup ]; then mount --rbind /sys/fs/cgroup "$H/cg"; fi
mount -t sysfs sysfs /sys
if [ -d /sys/fs/cgroup ]; then mount --rbind "$H/cg" /sys/fs/cgroup; fi
umount -l "$H/cg" 2>/dev/null || true
mkdir -p /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/lock /run/user /run/aside
# Shared directories that lie under /tmp stay where they are: they are held
# aside while the host's own /tmp goes over them.
n=0
while read -r d; do
  n=$((n+1)); mkdir "/run/aside/$n"; mount --rbind "$d" "/run/aside/$n"
done <<X
$SHARED
X
mount -t tmpfs -o "mode=1777$TMPSIZE" tmpfs /tmp
n=0
while read -r d; do
  n=$((n+1)); mkdir -p "$d"; mount --rbind "/run/aside/$n" "$d"
  umount -l "/run/aside/$n"; rmdir "/run/aside/$n"
done <<X
$SHARED
X
rmdir /run/aside
for f in hosts passwd shadow resolv.conf machine-id; do
  if [ -e "$H/$f" ] && [ -e "/etc/$f" ]; then mount --bind "$H/$f" "/etc/$f"; fi
done
mount --bind "$H/boot_id" /proc/sys/kernel/random/boot_id
if [ "$OWNHOME" = 1 ]; then
  mount -t tmpfs -o "mode=700$HOMESIZE" tmpfs "$LAB/home"
  cp -a "$LAB/ssh" "$LAB/home/.ssh"
fi
rm -rf /run/mount # what mount noted down
echo mounted
read -r go
ip -batch - <<X
link set lo up
addr add $ADDR/24 dev eth0
link set eth0 up
X
` + hold

func (h *Host) start(c *config) error {
	size := func(m map[int]int64) string {
		if b, ok := m[h.index]; ok {
			return fmt.Sprintf(",size=%d", b)
		}
		return ""
	}
	_, small := c.homeSize[h.index]
	env := []string{
		"LAB=" + h.lab.dir, "NAME=" + h.name, "ADDR=" + h.addr.String(),
		"TMPSIZE=" + size(c.tmpSize), "HOMESIZE=" + size(c.homeSize),
		"SHARED=" + strings.Join(sharedUnderTmp(append([]string{h.lab.dir}, c.shared...)), "\n"),
	}
	if c.privateHome || small {
		env = append(env, "OWNHOME=1")
	}
	var err error
	if h.keeper, err = startKeeper(hostScript, env, c.detached); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	return nil
}

// sharedUnderTmp returns the directories under /tmp that the hosts are to see,
// outermost only: those given, the working directory's module and the running
// executable's directory (a checkout may lie under /tmp).
func sharedUnderTmp(dirs []string) []string {
	if wd, err := os.Getwd(); err == nil {
		dirs = append(dirs, moduleRoot(wd))
	}
	if exe, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(exe))
	}
	var under []string
	for _, d := range dirs {
		d = filepath.Clean(d)
		if fi, err := os.Stat(d); err == nil && fi.IsDir() && strings.HasPrefix(d, "/tmp/") {
			under = append(under, d)
		}
	}
	slices.Sort(under)
	var outer []string
	for _, d := range under {
		if n := len(outer); n > 0 && (outer[n-1] == d || strings.HasPrefix(d, outer[n-1]+"/")) {
			continue
		}
		outer = append(outer, d)
	}
	return outer
}

func moduleRoot(dir string) string {
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
	}
	return dir
}

// Name returns the host's name: n0, n1, …
func (h *Host) Name() string { return h.name }

// Addr returns the address of the host's only interface, eth0.
func (h *Host) Addr() netip.Addr { return h.addr }

// Root returns the path by which the builder sees the host's own file systems:
// Root()+"/tmp" is the host's /tmp.
func (h *Host) Root() string { return h.keeper.root() }

// Cmd is an exec.Cmd whose process lives in a host. It is a direct child of
// the caller: Process.Signal and Wait act on the program itself.
type Cmd struct {
	*exec.Cmd
	host *Host
}

// Command prepares a program to run in the host, as exec.CommandContext does.
// Its environment is the caller's with the host's HOME.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = h.environ()
	c.Dir = h.lab.dir
	return &Cmd{Cmd: c, host: h}
}

// environ is the caller's environment without what belongs to the caller's own
// machine: home, temporary directory and login session.
func (h *Host) environ() []string {
	var env []string
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		switch k {
		case "HOME", "TMPDIR", "HOSTNAME", "PWD", "OLDPWD", "SSH_AUTH_SOCK", "SSH_CONNECTION", "SSH_CLIENT",
			"XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME":
		default:
			env = append(env, kv)
		}
	}
	return append(env, "HOME="+h.lab.Home(), "HOSTNAME="+h.name)
}

// Start starts the program in the host.
func (c *Cmd) Start() error {
	if err := c.host.keeper.inside(c.Cmd.Start); err != nil {
		return fmt.Errorf("on %s: %w", c.host.name, err)
	}
	return nil
}

// Run starts the program and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns what it wrote to its standard output; an
// exec.ExitError carries the end of its standard error.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("Stdout already set")
	}
	var out, diag bytes.Buffer
	c.Stdout = &out
	capture := c.Stderr == nil
	if capture {
		c.Stderr = &diag
	}
	err := c.Run()
	var ee *exec.ExitError
	if capture && errors.As(err, &ee) {
		ee.Stderr = diag.Bytes()
	}
	return out.Bytes(), err
}

// CombinedOutput runs the program and returns its output and errors together.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("Stdout or Stderr already set")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
