package nodeagent

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A shim has ended; another user listens where it did.
func TestAnImpostorIsNoShim(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's agents have other users' shims")
	}
	base := tempBase(t)
	e := entry{ID: "a1", NodeDir: filepath.Join(base, "gangway-a1"), Spool: filepath.Join(base, "spool")}
	for _, d := range []string{e.NodeDir, e.Spool} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", e.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := dialShim(t.Context(), e) // the spool is this user's, too
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if err := os.Chown(e.Spool, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if conn, err := dialShim(t.Context(), e); err == nil || !strings.Contains(err.Error(), "the shim is user 4711's") {
		t.Errorf("got %v, %v", conn, err)
	}
	if err := os.Remove(e.Spool); err != nil {
		t.Fatal(err)
	}
	if conn, err := dialShim(t.Context(), e); err == nil {
		t.Errorf("of nobody: %v", conn)
	}
}
