package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// A name that nobody could be asked about is not an unknown name.
func TestUnresolvedNames(t *testing.T) {
	for _, c := range []struct {
		name string
		err  net.DNSError
		kind Kind
		want string
		not  string
	}{
		{"unknown", net.DNSError{Err: "no such host", IsNotFound: true}, Config, "unknown host", "resolved"},
		{"no network", net.DNSError{Err: "dial udp 192.0.2.1:53: connect: network is unreachable", Server: "192.0.2.1:53", IsTemporary: true}, Unreachable, "could not be resolved", "unknown"},
		{"server fails", net.DNSError{Err: "server misbehaving", Server: "192.0.2.1:53", IsTemporary: true}, Unreachable, "server misbehaving (name server 192.0.2.1:53)", "unknown"},
		{"timeout", net.DNSError{Err: "i/o timeout", IsTimeout: true}, Unreachable, "could not be resolved: i/o timeout", "no answer from"},
	} {
		err := fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Net: "tcp", Err: &c.err})
		h := &hostConfig{host: "n1", port: 22, timeout: time.Second}
		var e *Error
		if !errors.As(h.unreachable(err, c.err.IsTimeout, nil), &e) {
			t.Fatal("no *Error")
		}
		if e.Kind != c.kind || !strings.Contains(e.Msg, c.want) || strings.Contains(e.Msg, c.not) || e.Fix == "" {
			t.Errorf("%s: kind %d, %q; %q", c.name, e.Kind, e.Msg, e.Fix)
		}
	}
}

func TestStandingWithoutResolver(t *testing.T) {
	p, err := Standing([]Node{{Name: "n1:7700"}}, make([]byte, 32))
	must(t, err)
	s := p.(*standing)
	s.dialer.NetDialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no name server answers")
	}}
	_, err = p.Connect(t.Context(), "nosuch.invalid:7700")
	var e *Error
	if !errors.As(err, &e) || e.Kind != Unreachable || !strings.Contains(e.Msg, "could not be resolved") || strings.Contains(e.Msg, "unknown") {
		t.Errorf("%v", err)
	}
}

func TestStderrAndStatus(t *testing.T) {
	for _, c := range []struct{ said, status, want string }{
		{"", "exit status 3", "exit status 3"},
		{"killed", "", "killed"},
		{"sh: not found\n", "exit status 127", "sh: not found\nexit status 127"},
		{"gangway: no room\n  free some\n", "exit status 125", "gangway: no room\n  free some\n"},
		{"Welcome!\ngangway: no room", "exit status 125", "Welcome!\ngangway: no room"},
	} {
		if got := join(c.said, c.status); got != c.want {
			t.Errorf("%q and %q: %q, want %q", c.said, c.status, got, c.want)
		}
	}
}
