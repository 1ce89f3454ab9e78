//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keeper is the process 1 of a set of namespaces; the namespaces live as long
// as it does.
type keeper struct {
	pid   int
	start string // kernel start time: tells the process from a later one of that pid
	ids   string // identity of its pid namespace, as /proc/PID/ns/pid shows it

	cmd   *exec.Cmd     // nil when found again by Open
	ended chan struct{} // closed when cmd has been waited for
	life  io.WriteCloser
	lines *bufio.Reader
	reap  sync.Once
	errs  *lockedBuffer
}

// hold is the end of every keeper's script. A lab of a test ends at the end of
// its builder (end of file on stdin); a detached one waits to be killed.
const hold = `
echo ready
exec >/dev/null 2>&1
# Process 1 inherits every orphan; with SIGCHLD ignored the kernel reaps them.
# The shell itself can't ignore it.
if [ "$DETACHED" = 1 ]; then exec env --ignore-signal=CHLD sleep infinity </dev/null; fi
exec env --ignore-signal=CHLD cat
`

// switchScript makes the bridge that joins the hosts.
const switchScript = `set -e
mount --make-rprivate /
mount -t proc proc /proc
ip -batch - <<X
link add br0 type bridge stp_state 0 forward_delay 0
link set br0 up
X
` + hold

const hostNamespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS |
	syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

func startKeeper(script string, env []string, detached bool) (*keeper, error) {
	k := &keeper{errs: &lockedBuffer{}, ended: make(chan struct{})}
	k.cmd = exec.Command("/bin/sh", "-c", script)
	k.cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	if detached {
		k.cmd.Env = append(k.cmd.Env, "DETACHED=1")
	}
	k.cmd.Dir = "/"
	// A session of its own: a Ctrl-C at the terminal is for the builder only.
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: hostNamespaces, Setsid: true}
	k.cmd.Stderr = k.errs // only until the script's end: the keeper itself has none
	in, err := k.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := k.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a host's first process: %w", err)
	}
	k.life, k.lines = in, bufio.NewReader(out)
	k.pid = k.cmd.Process.Pid
	if k.start, err = startTime(k.pid); err == nil {
		k.ids, err = os.Readlink(k.ns("pid"))
	}
	if err != nil {
		return nil, errors.Join(err, k.kill())
	}
	return k, nil
}

func (k *keeper) ns(kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", k.pid, kind) }

// root returns the path of the keeper's file system as seen from outside.
func (k *keeper) root() string { return fmt.Sprintf("/proc/%d/root", k.pid) }

// wait returns when the script has printed the word.
func (k *keeper) wait(ctx context.Context, word string) error {
	stop := context.AfterFunc(ctx, func() { k.cmd.Process.Kill() })
	defer stop()
	line, err := k.lines.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != word {
		k.kill()
		return fmt.Errorf("set-up script ended before %q: got %q, %s", word, line, strings.TrimSpace(k.errs.String()))
	}
	return nil
}

// release tells a host's keeper that its interface is there, and waits until
// it is configured.
func (k *keeper) release(ctx context.Context) error {
	if err := k.wait(ctx, "mounted"); err != nil {
		return err
	}
	if _, err := io.WriteString(k.life, "go\n"); err != nil {
		return err
	}
	return k.wait(ctx, "ready")
}

// alive tells whether the keeper runs; one that is ending has no arguments
// any more.
func (k *keeper) alive() bool {
	s, err := startTime(k.pid)
	return err == nil && s == k.start && readStrings("/proc/"+strconv.Itoa(k.pid)+"/cmdline") != nil
}

// kill ends the keeper, and with it every process of its pid namespace.
func (k *keeper) kill() error {
	if k.cmd != nil {
		k.life.Close()
		k.cmd.Process.Kill()
		k.reap.Do(func() {
			go func() {
				defer close(k.ended)
				k.cmd.Wait()
			}()
		})
	} else if k.alive() {
		if err := unix.Kill(k.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	// The keeper itself can't end before its namespace's last process has been
	// waited for, which may be the caller's to do, later: so the test is that
	// none lives.
	for deadline := time.Now().Add(10 * time.Second); ; {
		procs, err := procsOf(k.ids)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(procs, Proc.Alive) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes of the lab survive SIGKILL, the first is %v", len(procs), procs[0])
		}
		select {
		case <-k.ended:
			return nil
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// inside runs start on a thread that has entered the keeper's namespaces: what
// start spawns lives in them, yet is a direct child of this process with a pid
// this process can signal and wait for (nsenter would stand in between and
// pass no signals on).
func (k *keeper) inside(start func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread can't come back, so it ends with the goroutine.
		runtime.LockOSThread()
		done <- func() error {
			type ns struct {
				kind string
				flag int
			}
			order := []ns{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC},
				{"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}}
			fds := make([]int, len(order))
			for i, n := range order {
				fd, err := unix.Open(k.ns(n.kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return fmt.Errorf("host is gone: %s namespace: %w", n.kind, err)
				}
				defer unix.Close(fd)
				fds[i] = fd
			}
			// A thread that shares its root with others may not change it.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare root directory: %w", err)
			}
			for i, n := range order {
				if err := unix.Setns(fds[i], n.flag); err != nil {
					return fmt.Errorf("enter %s namespace: %w", n.kind, err)
				}
			}
			return start()
		}()
	}()
	return <-done
}

// tryNamespaces finds out whether this process may make a host's namespaces.
func tryNamespaces() error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: hostNamespaces}
	return cmd.Run()
}

// startTime returns field 22 of /proc/PID/stat: clock ticks since boot.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	// The command's name may hold spaces and parentheses; the last one ends it.
	rest := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(rest) < 20 {
		return "", fmt.Errorf("/proc/%d/stat: %d fields after the name, want 20 or more", pid, len(rest))
	}
	if rest[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return rest[19], nil
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
