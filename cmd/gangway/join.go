package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"gangway/launcher"
	"gangway/launcher/auth"
	"gangway/nodeagent"
)

// joinFlags are those of gangway agent --join.
type joinFlags struct{ url, tokenFile, name, dir string }

// dialer returns how the agent reaches its launcher, joining it first when the
// node has no certificate of it yet.
func (j joinFlags) dialer(ctx context.Context, log *slog.Logger) (func(context.Context) (net.Conn, error), error) {
	dir := j.dir
	if dir == "" {
		var err error
		if dir, err = configDir("node"); err != nil {
			return nil, err
		}
	}
	id, err := j.identity(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	go id.Keep(ctx)
	u, err := url.Parse(id.URL())
	if err != nil {
		return nil, fmt.Errorf("the launcher's address in %s: %w", dir, err)
	}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}}
	var refused atomic.Pointer[error]
	return func(ctx context.Context) (net.Conn, error) {
		if err := refused.Load(); err != nil {
			return nil, fmt.Errorf("%w: %w", nodeagent.ErrRefused, *err)
		}
		conf := id.ClientTLS().Clone()
		conf.NextProtos = []string{launcher.AgentProtocol}
		d := *dialer
		d.Config = conf
		c, err := d.DialContext(ctx, "tcp", u.Host)
		if errors.Is(err, auth.ErrDenied) { // another authority's launcher
			return nil, fmt.Errorf("%w: %s: %w; join it anew with a token of its own, or check the address", nodeagent.ErrRefused, u.Host, err)
		}
		if err != nil {
			return nil, err
		}
		return &judged{c, func(err error) {
			if err := id.Refused(err); err != nil {
				refused.Store(&err)
			}
		}}, nil
	}, nil
}

// judged is a connection of which the first read tells whether the launcher takes
// the node's certificate.
type judged struct {
	net.Conn
	failed func(error)
}

func (c *judged) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.failed(err)
	}
	return n, err
}

// identity is what the node is known by: what an earlier start has kept or, if there
// is none or the token is another one, what the token gives. A node that has joined
// does not depend on its token: the file may be gone, and a launcher that is away or
// refuses the token keeps it from nothing.
func (j joinFlags) identity(ctx context.Context, dir string, log *slog.Logger) (*auth.Identity, error) {
	id, err := auth.LoadIdentity(dir, auth.IdentityOptions{Log: log})
	if err != nil {
		if errors.Is(err, auth.ErrNotJoined) || j.tokenFile != "" {
			return j.enroll(ctx, dir, log)
		}
		return nil, err
	}
	if j.tokenFile == "" {
		return id, nil
	}
	token, err := auth.ReadSecret(j.tokenFile, os.Stdin)
	if err != nil {
		return id, nil
	}
	name := j.name
	if name == "" {
		name = id.Node()
	}
	ctx, cancel := context.WithTimeout(ctx, tokenWait)
	defer cancel()
	other, err := auth.Enroll(ctx, dir, j.url, token, name, auth.IdentityOptions{Log: log})
	if err != nil {
		log.Warn("the join token is of no use; going on with the certificate that this node has", "err", err)
		return id, nil
	}
	return other, nil
}

// tokenWait is how long a node that has joined already waits for the answer to
// another token.
const tokenWait = 10 * time.Second

// enroll joins, trying again while the launcher can't be reached. What people must
// mend ends it: a token that is refused, another launcher, a clock that is wrong.
func (j joinFlags) enroll(ctx context.Context, dir string, log *slog.Logger) (*auth.Identity, error) {
	if j.tokenFile == "" {
		return nil, usagef("make one on the launcher's machine with gangway join-token add, and give --token-file FILE",
			"this node has not joined %s yet and needs a token", j.url)
	}
	token, err := auth.ReadSecret(j.tokenFile, os.Stdin)
	if err != nil {
		return nil, err
	}
	name := j.name
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		id, err := auth.Enroll(ctx, dir, j.url, token, name, auth.IdentityOptions{Log: log})
		if err == nil || !auth.Temporary(err) || ctx.Err() != nil {
			return id, err
		}
		log.Warn("joining the launcher", "url", j.url, "err", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// configDir is where this user's settings of one kind are.
func configDir(what string) (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join("/etc/gangway", what), nil
	}
	home, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("%w; set HOME or XDG_CONFIG_HOME", err)
	}
	return filepath.Join(home, "gangway", what), nil
}
