package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gangway/internal/lab"
)

// Segments of shared memory that MPICH 5 has in use when a rank or a shim is killed
// are gone when the gang is, on all its hosts.
func TestHostsSegments(t *testing.T) {
	const cc = "../../.cache/venv-mpich5/bin/mpicc"
	for _, c := range []struct {
		victim string
		match  func(lab.Proc) bool
	}{{"rank", program("phases")}, {"shim", role("shim")}} {
		t.Run(c.victim, func(t *testing.T) {
			prog := phases(t, cc)
			b := hosts(t, 2, lab.Share(mpiRoot(cc)))
			dir := filepath.Join(b.lab.Dir(), "phases")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			segments := func(host int) (out []string) {
				files, err := b.lab.Files(host)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range files {
					if strings.HasPrefix(f, "/dev/shm/mpich_") {
						out = append(out, f)
					}
				}
				return out
			}
			args := append([]string{"run", "--hosts", "n[1-2]", "--ppn", "2", "--launch", "pmi", "--mpi", "mpich", "-D", "/",
				"-x", "UCX_NET_DEVICES=eth0"}, mpiLibs(cc)...)
			p := b.start(nil, nil, append(args, "--", prog, "collective", dir)...)
			waitFor(t, "all ranks are in the collective", time.Minute, func() bool {
				for r := range 4 {
					if _, err := os.Stat(filepath.Join(dir, strconv.Itoa(r))); err != nil {
						return false
					}
				}
				return true
			})
			if len(segments(1)) == 0 || len(segments(2)) == 0 {
				t.Fatal("the ranks have no segments in /dev/shm: this test shows nothing")
			}
			b.killOne(2, c.victim, c.match)
			if p.status() == 0 {
				t.Error("it ended well")
			}
			for host := 1; host <= 2; host++ {
				waitFor(t, "no segments are left on n"+strconv.Itoa(host), 10*time.Second, func() bool { return len(segments(host)) == 0 })
			}
		})
	}
}
