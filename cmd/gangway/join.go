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
	"time"

	"gangway/launcher"
	"gangway/launcher/auth"
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
	id, err := auth.LoadIdentity(dir, auth.IdentityOptions{Log: log})
	if errors.Is(err, auth.ErrNotJoined) {
		id, err = j.enroll(ctx, dir, log)
	}
	if err != nil {
		return nil, err
	}
	go id.Keep(ctx)
	u, err := url.Parse(id.URL())
	if err != nil {
		return nil, fmt.Errorf("the launcher's address in %s: %w", dir, err)
	}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}}
	return func(ctx context.Context) (net.Conn, error) {
		conf := id.ClientTLS().Clone()
		conf.NextProtos = []string{launcher.AgentProtocol}
		d := *dialer
		d.Config = conf
		return d.DialContext(ctx, "tcp", u.Host)
	}, nil
}

// enroll joins, trying again while the launcher can't be reached.
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
		if err == nil || errors.Is(err, auth.ErrDenied) || ctx.Err() != nil {
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
