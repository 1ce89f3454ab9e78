package pool

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// hostKeys checks the keys of one host against its known_hosts files.
type hostKeys struct {
	h    *hostConfig
	db   *knownhosts.HostKeyDB
	dir  string            // of the cleaned copies, while db is read
	real map[string]string // cleaned copy → file
	warn func(string)
	// write serialises additions to known_hosts files of this process.
	write *sync.Mutex
	// hint is the ssh command that reaches the host as configured.
	hint string
}

// loadHostKeys reads the host's files; those that don't exist are empty.
func loadHostKeys(h *hostConfig, hint string, write *sync.Mutex, warn func(string)) (*hostKeys, error) {
	k := &hostKeys{h: h, warn: warn, write: write, hint: hint, real: map[string]string{}}
	defer func() {
		if k.dir != "" {
			os.RemoveAll(k.dir)
		}
	}()
	var files []string
	for _, f := range append(slices.Clone(h.userHosts), h.hosts...) {
		if f == "none" || f == os.DevNull {
			continue
		}
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("can't read known hosts: %w", err)
		}
		clean, err := k.clean(f, text)
		if err != nil {
			return nil, err
		}
		files = append(files, clean)
	}
	db, err := knownhosts.NewDB(files...)
	if err != nil {
		return nil, fmt.Errorf("can't read known hosts: %w", err)
	}
	k.db = db
	return k, nil
}

// clean returns the file itself, or, when a line of it can't be read, a copy
// where such lines are empty: ssh passes over them, and one bad line must not
// make every host unknown.
func (k *hostKeys) clean(file string, text []byte) (string, error) {
	lines := bytes.Split(text, []byte("\n"))
	bad := false
	for i, line := range lines {
		// What the parser of whole files takes for blank, and no more.
		line = bytes.Trim(bytes.TrimSuffix(line, []byte("\r")), " \t")
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		_, _, _, _, _, err := ssh.ParseKnownHosts(append(slices.Clone(line), '\n'))
		if err == nil {
			err = checkHostField(line)
		}
		if err != nil {
			k.warn(fmt.Sprintf("%s:%d: passed over: not a known_hosts line", file, i+1))
			lines[i], bad = nil, true
		}
	}
	if !bad {
		return file, nil
	}
	if k.dir == "" {
		dir, err := os.MkdirTemp("", "gangway-hosts-")
		if err != nil {
			return "", fmt.Errorf("can't make a temporary directory: %w", err)
		}
		k.dir = dir
	}
	name := filepath.Join(k.dir, fmt.Sprint(len(k.real)))
	if err := os.WriteFile(name, bytes.Join(lines, []byte("\n")), 0o600); err != nil {
		return "", fmt.Errorf("can't write a temporary file: %w", err)
	}
	k.real[name] = file
	return name, nil
}

// maxHostLine is less than the parser of whole files takes.
const maxHostLine = 60_000

// checkHostField refuses host fields that the parser of whole files does not
// take, though the one of single lines does: malformed hashes.
func checkHostField(line []byte) error {
	if len(line) > maxHostLine {
		return errors.New("too long")
	}
	fields := strings.FieldsFunc(string(line), func(r rune) bool { return r == ' ' || r == '\t' })
	if strings.HasPrefix(fields[0], "@") {
		fields = fields[1:]
	}
	if len(fields) < 3 {
		return errors.New("too few fields")
	}
	host := fields[0]
	if !strings.HasPrefix(host, "|") {
		return nil
	}
	parts := strings.Split(host, "|") // |1|salt|hash
	if len(parts) != 4 || parts[1] != "1" {
		return errors.New("malformed hash")
	}
	for _, p := range parts[2:] {
		if _, err := base64.StdEncoding.DecodeString(p); err != nil {
			return err
		}
	}
	return nil
}

// algorithms are those to ask the host for, so that it shows a key that can be
// compared; nil when it is unknown.
func (k *hostKeys) algorithms() []string {
	known := k.db.HostKeyAlgorithms(k.h.knownName())
	if len(k.h.keyAlgos) == 0 || len(known) == 0 {
		if len(known) == 0 {
			return k.h.keyAlgos
		}
		return known
	}
	var both []string
	for _, a := range k.h.keyAlgos {
		if slices.Contains(known, a) {
			both = append(both, a)
		}
	}
	if both == nil {
		return known
	}
	return both
}

// check is the ssh.HostKeyCallback.
func (k *hostKeys) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	name := k.h.knownName()
	// Behind a proxy the connection has no address that means anything; the
	// name decides anyway.
	if _, ok := remote.(*net.TCPAddr); !ok {
		remote = &net.TCPAddr{IP: net.IPv4zero}
	}
	err := k.db.HostKeyCallback()(name, remote, key)
	var revoked *xknownhosts.RevokedError
	var keyErr *xknownhosts.KeyError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return &Error{Kind: HostKey, Err: err,
			Msg: fmt.Sprintf("the host key of %s, %s, is marked as revoked in %s", k.h.label(), describe(key), k.where(revoked.Revoked)),
			Fix: "do not connect; ask the host's administrators for its new key"}
	case !errors.As(err, &keyErr):
		return &Error{Kind: HostKey, Err: err, Msg: fmt.Sprintf("the host key of %s, %s, can't be accepted: %v", k.h.label(), describe(key), err),
			Fix: "check the certificate authorities in " + k.userFile()}
	case len(keyErr.Want) > 0:
		return k.changed(key, keyErr)
	}
	return k.unknown(name, key, keyErr)
}

func (k *hostKeys) changed(key ssh.PublicKey, keyErr *xknownhosts.KeyError) error {
	// Prefer to show the key of the same type: that is the one that changed.
	want := keyErr.Want[0]
	for _, w := range keyErr.Want {
		if w.Key.Type() == key.Type() {
			want = w
			break
		}
	}
	msg := fmt.Sprintf("the host key of %s has changed: it shows %s, but %s has %s",
		k.h.label(), describe(key), k.where(want), describe(want.Key))
	if k.h.strict == lax {
		k.warn(k.h.name + ": " + msg + "; accepted because StrictHostKeyChecking is off")
		return nil
	}
	file := want.Filename
	if f, ok := k.real[file]; ok {
		file = f
	}
	return &Error{Kind: HostKey, Err: keyErr, Msg: msg + ": someone may be between you and the host",
		Fix: fmt.Sprintf("do not proceed unless you know that the host was reinstalled; then remove the old key with: ssh-keygen -R '%s' -f %s",
			knownhosts.Normalize(k.h.knownName()), file)}
}

func (k *hostKeys) unknown(name string, key ssh.PublicKey, keyErr error) error {
	file := k.userFile()
	if k.h.strict == strict {
		fix := fmt.Sprintf("compare the fingerprint with the host's own, then run `%s` once and answer yes", k.hint)
		if len(k.h.jumps) == 0 && k.h.proxyCmd == "" {
			fix += fmt.Sprintf(", or `ssh-keyscan -p %d %s >> %s`", k.h.port, k.h.host, file)
		}
		return &Error{Kind: HostKey, Err: keyErr, Fix: fix,
			Msg: fmt.Sprintf("the host key of %s is not known: %s is not in %s", k.h.label(), describe(key), file)}
	}
	if file == "none" || file == os.DevNull {
		return nil
	}
	if err := k.add(file, name, key); err != nil {
		k.warn(fmt.Sprintf("%s: can't write down its host key in %s: %v", k.h.name, file, err))
		return nil
	}
	k.warn(fmt.Sprintf("%s: host key %s was unknown and is now in %s", k.h.name, describe(key), file))
	return nil
}

// add appends a line to a known_hosts file, in one write, so that processes that
// do the same don't mix.
func (k *hostKeys) add(file, name string, key ssh.PublicKey) error {
	k.write.Lock()
	defer k.write.Unlock()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	line := knownhosts.Line([]string{name}, key) + "\n"
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if bytes.Contains(old, []byte(line)) {
		return nil
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		line = "\n" + line
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// noCommon explains that the host has no key of a type that known_hosts has.
func (k *hostKeys) noCommon(err *ssh.AlgorithmNegotiationError) error {
	return &Error{Kind: HostKey, Err: err,
		Msg: fmt.Sprintf("the host key of %s has changed: it offers only %s, but %s has %s: someone may be between you and the host",
			k.h.label(), strings.Join(err.RequestedAlgorithms, ", "), k.userFile(), strings.Join(k.algorithms(), ", ")),
		Fix: fmt.Sprintf("do not proceed unless you know that the host was reinstalled; then remove the old key with: ssh-keygen -R '%s' -f %s",
			knownhosts.Normalize(k.h.knownName()), k.userFile())}
}

// userFile is the file that new keys belong in.
func (k *hostKeys) userFile() string {
	if len(k.h.userHosts) == 0 {
		return os.DevNull
	}
	return k.h.userHosts[0]
}

func (k *hostKeys) where(key xknownhosts.KnownKey) string {
	file := key.Filename
	if f, ok := k.real[file]; ok {
		file = f
	}
	return fmt.Sprintf("%s:%d", file, key.Line)
}

// describe names a key as ssh does: type and SHA256 fingerprint.
func describe(key ssh.PublicKey) string {
	return keyType(key.Type()) + " key " + ssh.FingerprintSHA256(key)
}

func keyType(t string) string {
	switch {
	case strings.Contains(t, "cert"):
		return t
	case strings.Contains(t, "ed25519"):
		return "ED25519"
	case strings.Contains(t, "ecdsa"):
		return "ECDSA"
	case strings.Contains(t, "rsa"):
		return "RSA"
	}
	return t
}
