package launcher

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"gangway/launcher/store"
)

// TestUpAfterAnEarlyDeath: a launcher that was killed after it began its epoch
// and before its first commit must not keep the next one out.
func TestUpAfterAnEarlyDeath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Begin(7); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
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
