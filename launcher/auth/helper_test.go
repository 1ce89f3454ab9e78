package auth

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("GANGWAY_TEST_ADD_TOKENS"); dir != "" {
		addTokensForEver(dir)
	}
	goleak.VerifyTestMain(m)
}

// addTokensForEver is the process that the crash test kills: it says which tokens
// are kept for sure.
func addTokensForEver(dir string) {
	k, err := OpenKeyring(dir, KeyringOptions{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	out := bufio.NewWriter(os.Stdout)
	for {
		_, s, err := k.AddToken(Principal{Name: "alice", Role: Reader}, 0)
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Fprintln(out, s.Reveal())
		out.Flush()
	}
}

// clock is a clock that stands until it is set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now().Truncate(time.Second)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// people is a machine's users for tests.
type people map[int]string

func (p people) ByUID(uid int) (User, error) {
	if n := p[uid]; n != "" {
		return User{Name: n, UID: uid, GID: uid, Groups: []int{uid}}, nil
	}
	return User{}, deny("this machine knows no user %d", uid)
}

func (p people) ByName(name string) (User, error) {
	for uid, n := range p {
		if n == name {
			return p.ByUID(uid)
		}
	}
	return User{}, deny("this machine knows no user %s", name)
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wantError fails unless err has the text, and is an ErrDenied if refused says so.
func wantError(t testing.TB, err error, refused bool, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", text)
	}
	if errors.Is(err, ErrDenied) != refused {
		t.Errorf("error %q: denied is %v, want %v", err, !refused, refused)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q, want it to have %q", err, text)
	}
}

func openKeyring(t testing.TB, dir string, c *clock) *Keyring {
	t.Helper()
	uid := 500
	k, err := OpenKeyring(dir, KeyringOptions{Now: c.now, UID: &uid, Users: people{0: "root", 500: "gangway", 1000: "alice"}})
	return must(t, k, err)
}

func openCA(t testing.TB, dir string, c *clock) *CA {
	t.Helper()
	ca, err := OpenCA(dir, CAOptions{Now: c.now, Names: []string{"launcher.example:8443", "192.0.2.7"}})
	return must(t, ca, err)
}

func joinTokenOf(t testing.TB, ca *CA, s JoinSpec) Secret {
	t.Helper()
	_, token, err := ca.AddJoinToken(s)
	return must(t, token, err)
}

func join(t testing.TB, ca *CA, address, node string, c *clock) *Identity {
	t.Helper()
	id, err := Enroll(t.Context(), t.TempDir()+"/agent", address, joinTokenOf(t, ca, JoinSpec{Node: node}), node, IdentityOptions{Now: c.now})
	return must(t, id, err)
}

// serve runs the CA's listener, which answers / with the node that asks, and
// returns its address.
func serve(t testing.TB, ca *CA) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/gangway/v1/", ca.JoinHandler())
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		node, err := ca.Node(r.TLS)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, "node=%s", node)
	})
	return serveHandler(t, ca, mux)
}

func serveHandler(t testing.TB, ca *CA, h http.Handler) string {
	t.Helper()
	l := must2(net.Listen("tcp", "127.0.0.1:0"))(t)
	s := &http.Server{Handler: h, TLSConfig: ca.ServerTLS(), ErrorLog: nullLog()}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String()
}

func must2[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T { t.Helper(); return must(t, v, err) }
}

func mode(t testing.TB, path string) os.FileMode {
	t.Helper()
	return must2(os.Stat(path))(t).Mode().Perm()
}

func decode64(s string) []byte {
	b, _ := base64.StdEncoding.DecodeString(s)
	return b
}

func writeFile(t testing.TB, mode os.FileMode, elem ...string) {
	t.Helper()
	path := filepath.Join(elem[:len(elem)-1]...)
	if err := os.WriteFile(path, []byte(elem[len(elem)-1]), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func base64Text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// withReuse notes for each request whether its connection was open before.
func withReuse(ctx context.Context, reused *[]bool) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { *reused = append(*reused, i.Reused) }})
}

// onLog calls do with each message.
func onLog(do func(string)) *slog.Logger { return slog.New(logFunc(do)) }

type logFunc func(string)

func (logFunc) Enabled(context.Context, slog.Level) bool { return true }
func (f logFunc) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}
func (f logFunc) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f logFunc) WithGroup(string) slog.Handler      { return f }
