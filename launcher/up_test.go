package launcher

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gangway/launcher/auth"
	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

// TestUpAfterAnEarlyDeath: a launcher that was killed after it began its epoch
// and before its first commit must not keep the next one out.
func TestUpAfterAnEarlyDeath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	before(t, dir, 7)
	for _, want := range []uint64{8, 9} {
		ctx, stop := context.WithCancel(t.Context())
		var got uint64
		err := Up(ctx, UpConfig{Data: dir, Log: slog.New(slog.DiscardHandler), Ready: func(i UpInfo) { got = i.Epoch; stop() }})
		stop()
		if err != nil || got != want {
			t.Fatalf("epoch %d, %v; want %d", got, err, want)
		}
	}
}

// before is an earlier launcher, to which the events happened.
func before(t *testing.T, dir string, epoch uint64, events ...state.What) {
	t.Helper()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Begin(epoch); err != nil {
		t.Fatal(err)
	}
	c := state.New("cluster", 0)
	for _, what := range events {
		ch, err := c.Apply(state.Event{At: time.Now(), What: what})
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Commit(ch.Rows); err != nil {
			t.Fatal(err)
		}
	}
}

// tells is a log handler that waits for a message.
type tells struct {
	slog.Handler
	message string
	said    func()
}

func (h tells) Enabled(context.Context, slog.Level) bool { return true }

func (h tells) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		h.said()
	}
	return nil
}

// TestRemovedAfterARestart: a node that was to be removed when its work had ended
// is removed by the next launcher too, and does not join again by itself.
func TestRemovedAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	before(t, dir, 1, state.Restarted{Epoch: 1}, state.NodeAdded{Node: "n1"}, state.NodeDrained{Node: "n1", On: true, Leave: true})
	ca, err := auth.OpenCA(dir, auth.CAOptions{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	_, token, err := ca.AddJoinToken(auth.JoinSpec{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Join(auth.JoinRequest{Token: token, Node: "n1", CSR: csr}); err != nil {
		t.Fatal(err)
	}
	if in, err := ca.Joined("n1"); !in || err != nil {
		t.Fatalf("joined: %v, %v", in, err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	log := slog.New(tells{Handler: slog.DiscardHandler, message: "node removed", said: sync.OnceFunc(stop)})
	if err := Up(ctx, UpConfig{Data: dir, Log: log}); err != nil {
		t.Fatal(err)
	}
	if in, err := ca.Joined("n1"); in || err != nil {
		t.Errorf("joined still: %v, %v", in, err)
	}
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if rows, err := st.Scan(job.TableNode, "n", 1); err != nil || len(rows) > 0 {
		t.Errorf("nodes left: %v, %v", rows, err)
	}
}
