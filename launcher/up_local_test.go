package launcher

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
)

func TestOnlyADeadLaunchersSocketIsRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	if err := clearSocket(path); err != nil {
		t.Errorf("none: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := clearSocket(path); err == nil || !strings.Contains(err.Error(), "another launcher") {
		t.Errorf("one that is served: %v", err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if err := clearSocket(path); err != nil {
		t.Errorf("a dead one: %v", err)
	}
	if err := os.WriteFile(path, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := clearSocket(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// slowUsers is a directory service that does not answer the first question.
type slowUsers struct {
	asked  atomic.Int32
	first  chan struct{} // closed by the first question
	answer chan struct{} // closed: the answer to it
}

func (s *slowUsers) ByUID(uid int) (auth.User, error) {
	if s.asked.Add(1) == 1 {
		close(s.first)
		<-s.answer
	}
	return auth.User{Name: "ann", UID: uid}, nil
}

func (s *slowUsers) ByName(string) (auth.User, error) { panic("nobody asks for a name") }

func TestALocalUserWaitsForNobodyElsesName(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the kernel does not say who is at the other end of a socket")
	}
	dir := filepath.Join(t.TempDir(), "data")
	users := &slowUsers{first: make(chan struct{}), answer: make(chan struct{})}
	keys, err := auth.OpenKeyring(dir, auth.KeyringOptions{Users: users})
	if err != nil {
		t.Fatal(err)
	}
	u := &up{keys: keys, cfg: UpConfig{Log: slog.New(slog.DiscardHandler)}}
	s := u.localServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := batchapi.PrincipalOf(r.Context())
		_, _ = io.WriteString(w, p.Name)
	}))
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() { _ = s.Close(); <-served }()
	who := func() string {
		tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}
		resp, err := (&http.Client{Transport: tr}).Get("http://launcher/")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	slow := make(chan string, 1)
	go func() { slow <- who() }()
	<-users.first
	if got := who(); got != "ann" {
		t.Errorf("beside one whose name is being looked up: %q", got)
	}
	close(users.answer)
	if got := <-slow; got != "ann" {
		t.Errorf("after the answer: %q", got)
	}
}
