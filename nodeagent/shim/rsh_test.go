//go:build linux

package shim

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
)

// TestRelayEnds holds that a remote shell is told when its connection ends
// because the gang does, and only then.
func TestRelayEnds(t *testing.T) {
	for _, ending := range []bool{true, false} {
		s := &shim{events: make(chan func(), 1), done: make(chan struct{})}
		s.ending = ending
		served := make(chan struct{})
		go func() {
			defer close(served)
			(<-s.events)()
		}()
		near, conn := net.Pipe()
		far, peer := net.Pipe()
		_ = peer.Close()
		go s.relay(conn, far)
		kind, body, err := readMsg(near)
		if !ending {
			if !errors.Is(err, io.EOF) {
				t.Errorf("lost connection: %c %q %v, want its end", kind, body, err)
			}
		} else if r, derr := decodeRecord(body, 1, 1); err != nil || derr != nil || kind != kindRefused || r.strs[0] != "" {
			t.Errorf("end of the gang: %c %q %v %v", kind, body, err, derr)
		}
		<-served
		_ = near.Close()
	}
}

// TestRshIsSilentAtTheEnd holds that gangway-rsh adds nothing to what the gang
// says of its end.
func TestRshIsSilentAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, rankSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, why := range []string{"", "no such node"} {
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, _, err := readMsg(conn); err == nil {
				refuse(conn, exitGangway, errors.New(why))
			}
		}()
		code, err := runRsh([]string{filepath.Join(dir, RshName), "n1", "true"})
		if code != exitGangway || (err != nil) != (why != "") {
			t.Errorf("%q: status %d, error %v", why, code, err)
		}
	}
}
