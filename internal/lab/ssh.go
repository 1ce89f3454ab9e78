//go:build linux

package lab

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

const sshdPath = "/usr/sbin/sshd"

// keyTrust is what the clients' known_hosts says of a host.
type keyTrust int

const (
	keyKnown keyTrust = iota
	keyChanged
	keyUnknown
)

// newKey writes an ed25519 private key and returns its public line.
func newKey(path string) (string, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		return "", err
	}
	sp, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sp)))
	if path == "" {
		return line, nil
	}
	if err := os.WriteFile(path+".pub", []byte(line+"\n"), 0o644); err != nil {
		return "", err
	}
	return line, os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

// writeFiles lays out the lab's directory:
//
//	home/            the user's home, .ssh in it; ssh/ is its model
//	hosts/NAME/      files bound over the host's own: hosts, passwd, …; sshd's
func (l *Lab) writeFiles(c *config) error {
	home, model := l.Home(), filepath.Join(l.dir, "ssh")
	for _, d := range []string{home, model, filepath.Join(home, ".ssh")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	user, err := newKey(filepath.Join(model, "id_ed25519"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.dir, "authorized_keys"), []byte(user+"\n"), 0o644); err != nil {
		return err
	}
	names := &strings.Builder{}
	names.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
	for _, h := range l.hosts {
		fmt.Fprintf(names, "%s %s\n", h.addr, h.name)
	}
	for _, line := range c.extraHosts {
		names.WriteString(line + "\n")
	}
	account, err := accountFiles(home)
	if err != nil {
		return err
	}
	known := &strings.Builder{}
	for _, h := range l.hosts {
		dir := filepath.Join(l.dir, "hosts", h.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		key, err := newKey(filepath.Join(dir, "host_key"))
		if err != nil {
			return err
		}
		switch c.keys[h.index] {
		case keyChanged:
			if key, err = newKey(""); err != nil {
				return err
			}
			fallthrough
		case keyKnown:
			fmt.Fprintf(known, "%s,%s %s\n", h.name, h.addr, key)
		}
		files := map[string]string{
			"hosts":       names.String(),
			"resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
			"boot_id":     newUUID() + "\n",
			"machine-id":  strings.ReplaceAll(newUUID(), "-", "") + "\n",
			"sshd_config": l.sshdConfig(dir),
		}
		for name, text := range account {
			files[name] = text
		}
		for name, text := range files {
			mode := os.FileMode(0o644)
			if name == "shadow" {
				mode = 0o600
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
				return err
			}
		}
	}
	for name, text := range map[string]string{
		"known_hosts": known.String(),
		"config": "Host n*\n  User root\n  IdentityFile " + home + "/.ssh/id_ed25519\n" +
			"  UserKnownHostsFile " + home + "/.ssh/known_hosts\n",
	} {
		if err := os.WriteFile(filepath.Join(model, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	// ssh refuses a private key that others can read, so no os.CopyFS here.
	return exec.Command("cp", "-a", model+"/.", filepath.Join(home, ".ssh")).Run()
}

// accountFiles returns /etc/passwd with root's home in the lab, so that tests
// touch nothing in the real one, and /etc/shadow when root is locked in it:
// sshd refuses locked accounts.
func accountFiles(home string) (map[string]string, error) {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	lines := strings.Split(string(passwd), "\n")
	for i, line := range lines {
		if f := strings.Split(line, ":"); len(f) == 7 && f[0] == "root" {
			f[5] = home
			lines[i] = strings.Join(f, ":")
		}
	}
	files["passwd"] = strings.Join(lines, "\n")
	if shadow, err := os.ReadFile("/etc/shadow"); err == nil && bytes.HasPrefix(shadow, []byte("root:!")) {
		files["shadow"] = "root:*" + strings.TrimLeft(string(shadow[len("root:"):]), "!*")
	}
	return files, nil
}

func (l *Lab) sshdConfig(dir string) string {
	return strings.Join([]string{
		"Port 22",
		"HostKey " + filepath.Join(dir, "host_key"),
		"AuthorizedKeysFile " + filepath.Join(l.dir, "authorized_keys"),
		"PidFile none",
		"StrictModes no",
		"UsePAM no",
		"UseDNS no",
		"PermitRootLogin prohibit-password",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"MaxStartups 200",
		"PrintMotd no",
		"Subsystem sftp /usr/lib/openssh/sftp-server",
	}, "\n") + "\n"
}

func (h *Host) startSSHD() error {
	dir := filepath.Join(h.lab.dir, "hosts", h.name)
	c := &Cmd{host: h, Cmd: exec.Command(sshdPath, "-D", "-f", filepath.Join(dir, "sshd_config"), "-E", filepath.Join(dir, "sshd.log"))}
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return err
	}
	h.sshd = c.Process.Pid
	// Reaped when the host ends; Close kills it with the rest.
	go c.Wait()
	return nil
}

// waitSSHD returns when something listens on the host's port 22. The kernel's
// table is asked, not the port: a connection would show up in sshd's log.
func (h *Host) waitSSHD(ctx context.Context) error {
	const listening = ":0016 00000000:0000 0A"
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", h.keeper.pid))
		if err != nil {
			return err
		}
		if strings.Contains(string(b), listening) {
			return nil
		}
		if _, err := startTime(h.sshd); err != nil {
			log, _ := os.ReadFile(filepath.Join(h.lab.dir, "hosts", h.name, "sshd.log"))
			return errors.New("ended at once: " + strings.TrimSpace(string(log)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
