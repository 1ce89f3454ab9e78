package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// credentials gathers the keys for one connection and remembers what became of
// them, so that a refusal can be explained.
type credentials struct {
	h *hostConfig

	mu      sync.Mutex
	agent   net.Conn
	offered []string // keys that the host was offered, in words
	skipped []string // keys that could not be used, and why
	locked  []string // encrypted key files that the agent does not hold
	methods []string // what the host takes
	partial bool     // a key was taken, but the host wants more
}

// auth returns the ways to authenticate, for an ssh.ClientConfig.
func (c *credentials) auth(ctx context.Context) []ssh.AuthMethod {
	return []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { return c.signers(ctx), nil })}
}

// observe is an ssh.ClientAuthCallback that only watches.
func (c *credentials) observe(a *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.methods = a.AllowedMethods
	c.partial = len(a.PartialSuccessMethods) > 0
	return nil, nil
}

func (c *credentials) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.agent != nil {
		c.agent.Close()
	}
}

// signers lists the keys in the order of ssh: the agent's that are configured
// too, the agent's others, key files. It never fails: what can't be used is
// remembered, and the host decides about the rest.
func (c *credentials) signers(ctx context.Context) []ssh.Signer {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.agentSigners(ctx)
	used := map[string]bool{} // by public key
	var fromAgent, fromFiles []ssh.Signer
	offer := func(list *[]ssh.Signer, s ssh.Signer, from string) {
		id := string(s.PublicKey().Marshal())
		if used[id] {
			return
		}
		used[id] = true
		*list = append(*list, s)
		c.offered = append(c.offered, fmt.Sprintf("%s (%s)", from, describe(s.PublicKey())))
	}
	inAgent := func(pub ssh.PublicKey) ssh.Signer {
		if pub == nil {
			return nil
		}
		for _, s := range held {
			if string(s.PublicKey().Marshal()) == string(pub.Marshal()) {
				return s
			}
		}
		return nil
	}
	for _, file := range c.h.identity {
		signer, pub, err := readKey(file)
		if errors.Is(err, os.ErrNotExist) && pub == nil {
			if c.h.explicit {
				c.skipped = append(c.skipped, file+" (there is no such file)")
			}
			continue
		}
		if s := inAgent(pub); s != nil {
			offer(&fromAgent, s, file+" in the agent")
			continue
		}
		var missing *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &missing):
			c.locked = append(c.locked, file)
			continue
		case errors.Is(err, os.ErrNotExist):
			c.skipped = append(c.skipped, file+" (only its public half is here, and the agent does not hold it)")
			continue
		case err != nil:
			c.skipped = append(c.skipped, fmt.Sprintf("%s (%v)", file, err))
			continue
		}
		for _, cert := range c.certificates(file, signer) {
			offer(&fromFiles, cert, file+" with certificate")
		}
		offer(&fromFiles, signer, file)
	}
	if !c.h.only {
		for _, s := range held {
			offer(&fromAgent, s, "agent")
		}
	}
	return append(fromAgent, fromFiles...)
}

// agentSigners asks the agent for its keys; one that does not answer is as good
// as none, but is mentioned.
func (c *credentials) agentSigners(ctx context.Context) []ssh.Signer {
	if c.h.agent == "" {
		return nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.h.agent)
	if err != nil {
		c.skipped = append(c.skipped, fmt.Sprintf("ssh-agent at %s (%v)", c.h.agent, err))
		return nil
	}
	// The signing happens later on the same connection: close it with ctx, not
	// with a deadline of its own.
	if c.agent != nil {
		c.agent.Close()
	}
	c.agent = conn
	context.AfterFunc(ctx, func() { conn.Close() })
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		c.skipped = append(c.skipped, fmt.Sprintf("ssh-agent at %s (%v)", c.h.agent, err))
		return nil
	}
	return signers
}

// readKey reads a private key file; pub is its public half when that can be
// known even though the private half can't be read.
func readKey(file string) (signer ssh.Signer, pub ssh.PublicKey, err error) {
	text, err := os.ReadFile(file)
	if err == nil {
		if signer, err = ssh.ParsePrivateKey(text); err == nil {
			return signer, signer.PublicKey(), nil
		}
	}
	var missing *ssh.PassphraseMissingError
	if errors.As(err, &missing) && missing.PublicKey != nil {
		return nil, missing.PublicKey, err
	}
	// IdentityFile may name the public half of a key that only the agent has.
	for _, name := range []string{file, file + ".pub"} {
		if text, e := os.ReadFile(name); e == nil {
			if pub, _, _, _, e = ssh.ParseAuthorizedKey(text); e == nil {
				if name == file {
					err = os.ErrNotExist
				}
				return nil, pub, err
			}
		}
	}
	return nil, nil, err
}

// certificates are those for a key: beside it, as ssh-keygen names them, and
// configured ones.
func (c *credentials) certificates(file string, signer ssh.Signer) []ssh.Signer {
	var list []ssh.Signer
	for _, name := range append([]string{file + "-cert.pub"}, c.h.certs...) {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		pub, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil {
			c.skipped = append(c.skipped, fmt.Sprintf("%s (%v)", name, err))
			continue
		}
		cert, ok := pub.(*ssh.Certificate)
		if !ok || string(cert.Key.Marshal()) != string(signer.PublicKey().Marshal()) {
			continue
		}
		if s, err := ssh.NewCertSigner(cert, signer); err == nil {
			list = append(list, s)
		}
	}
	return list
}

// refused explains why the host let nobody in.
func (c *credentials) refused(cause error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.h
	e := &Error{Kind: Auth, Err: cause}
	tried := "no key at all"
	if len(c.offered) > 0 {
		tried = strings.Join(c.offered, ", ")
	}
	e.Msg = fmt.Sprintf("permission denied for user %s at %s; tried: %s", h.user, h.addr(), tried)
	if len(c.locked) > 0 {
		e.Msg += "; encrypted, and not in an ssh-agent: " + strings.Join(c.locked, ", ")
	}
	if len(c.skipped) > 0 {
		e.Msg += "; unusable: " + strings.Join(c.skipped, ", ")
	}
	switch {
	case c.partial:
		e.Msg = fmt.Sprintf("user %s at %s: the key was taken, but the host wants more: %s", h.user, h.addr(), strings.Join(c.methods, ", "))
		e.Fix = "a second factor can't be asked for here: use a host or a key that needs none"
	case strings.Contains(strings.ToLower(cause.Error()), "too many authentication failures"):
		e.Msg = fmt.Sprintf("the host closed the connection after too many keys (%d offered) for user %s at %s; tried: %s",
			len(c.offered), h.user, h.addr(), tried)
		e.Fix = fmt.Sprintf("name the right one in ssh_config: IdentityFile and `IdentitiesOnly yes` under `Host %s`", h.name)
	case len(c.methods) > 0 && !slices.Contains(c.methods, "publickey"):
		e.Fix = "the host takes no keys, only " + strings.Join(c.methods, ", ") + ": ask its administrators to allow public keys"
	case len(c.locked) > 0:
		e.Fix = "unlock the key with: ssh-add " + c.locked[0]
		if h.agent == "" {
			e.Fix = "start an agent and unlock the key: eval $(ssh-agent) && ssh-add " + c.locked[0]
		}
	case len(c.offered) == 0:
		e.Fix = "make a key with ssh-keygen and bring it there with ssh-copy-id, or name one with IdentityFile in ssh_config"
	default:
		e.Fix = fmt.Sprintf("is %s the right user? bring a key there with: ssh-copy-id %s@%s", h.user, h.user, h.name)
	}
	return e
}
