//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// port is the name of a host's end at the bridge.
func port(i int) string { return "p" + strconv.Itoa(i) }

// wire joins every host to the bridge by a pair of virtual interfaces.
func (l *Lab) wire(ctx context.Context) error {
	var b strings.Builder
	for _, h := range l.hosts {
		b.WriteString(h.cable())
	}
	return l.switchIP(ctx, b.String())
}

// cable returns ip's commands that join the host to the bridge. The hardware
// address is the host's for ever: its neighbours remember it.
func (h *Host) cable() string {
	// The kernel takes the pid as this process sees it: entering a network
	// namespace alone changes no pid.
	return fmt.Sprintf("link add %s type veth peer name eth0 address 02:4d:00:00:00:%02x netns %d\nlink set %[1]s master br0 up\n",
		port(h.index), h.index, h.keeper.pid)
}

// switchIP runs ip's commands in the bridge's namespace.
func (l *Lab) switchIP(ctx context.Context, batch string) error {
	cmd := exec.CommandContext(ctx, "nsenter", "--net="+l.sw.ns("net"), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip in the lab's switch: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Bridge port states of linux/if_bridge.h.
const (
	portDisabled   = 0
	portForwarding = 3
)

func (l *Lab) setPort(i, state int) error {
	cmd := exec.Command("nsenter", "--net="+l.sw.ns("net"), "bridge", "link", "set", "dev", port(i), "state", strconv.Itoa(state))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set port %s of the lab's switch: %w: %s", port(i), err, bytes.TrimSpace(out))
	}
	return nil
}

// Cut makes the switch drop everything from and to host i. The host's own
// interface stays up: neither side is told.
func (l *Lab) Cut(i int) error { return l.setPort(i, portDisabled) }

// Mend undoes Cut.
func (l *Lab) Mend(i int) error { return l.setPort(i, portForwarding) }

// Destroy takes host i away as a power loss does: its peers hear nothing, its
// processes are gone, and so is what was in its /tmp, /run and /dev/shm. It
// needs Recreate to come back; destroying it again does nothing.
func (l *Lab) Destroy(i int) error {
	h := l.hosts[i]
	if l.sw != nil && h.keeper.alive() {
		// First the cable: dying processes would say goodbye on their connections.
		// An error only means that the lab isn't whole.
		_ = l.Cut(i)
	}
	if err := h.keeper.kill(); err != nil {
		return err
	}
	// The kernel ends the rest of the namespace by itself, and a process that
	// gives back much memory takes its time.
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		procs, err := l.Procs(i)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(procs, func(p Proc) bool { return p.State != 'Z' }) {
			return nil
		}
	}
	return fmt.Errorf("host %s: its processes did not end", h.name)
}

// Recreate boots a destroyed host again: the same name, address and host key,
// another boot id, and nothing in its /tmp, /run and /dev/shm. A lab found by
// Open can't.
func (l *Lab) Recreate(ctx context.Context, i int) error {
	h := l.hosts[i]
	if l.config == nil {
		return fmt.Errorf("host %s: only the process that built the lab can boot it again", h.name)
	}
	if h.keeper.alive() {
		return fmt.Errorf("host %s runs: destroy it first", h.name)
	}
	ctx, cancel := context.WithTimeout(ctx, bringUp)
	defer cancel()
	// The kernel takes its end of the old cable away in its own time.
	_ = l.switchIP(ctx, "link del "+port(i)+"\n")
	if err := os.WriteFile(filepath.Join(l.dir, "hosts", h.name, "boot_id"), []byte(newUUID()+"\n"), 0o644); err != nil {
		return err
	}
	if err := h.start(l.config); err != nil {
		return err
	}
	if err := l.switchIP(ctx, h.cable()); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	if err := h.keeper.release(ctx); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	if err := h.startSSHD(); err != nil {
		return fmt.Errorf("sshd on %s: %w", h.name, err)
	}
	if err := h.waitSSHD(ctx); err != nil {
		return fmt.Errorf("sshd on %s: %w", h.name, err)
	}
	return nil
}

// Bytes returns what host i has received and sent through its interface since
// the lab was built, in bytes, link headers included.
func (l *Lab) Bytes(i int) (rx, tx uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", l.hosts[i].keeper.pid))
	if err != nil {
		return 0, 0, fmt.Errorf("interface counters of %s: %w", l.hosts[i].name, err)
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		name, rest, ok := strings.Cut(strings.TrimSpace(sc.Text()), ":")
		f := strings.Fields(rest)
		if !ok || name != "eth0" || len(f) < 9 {
			continue
		}
		if rx, err = strconv.ParseUint(f[0], 10, 64); err != nil {
			return 0, 0, err
		}
		if tx, err = strconv.ParseUint(f[8], 10, 64); err != nil {
			return 0, 0, err
		}
		return rx, tx, nil
	}
	return 0, 0, fmt.Errorf("host %s has no eth0", l.hosts[i].name)
}
