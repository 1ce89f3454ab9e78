package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMPISuite runs a few modules of mpi4py's own tests on this host by every way
// of starting ranks, against MPICH's own mpiexec. All of them, with every MPI and
// over hosts: make mpi-suite.
func TestMPISuite(t *testing.T) {
	if raceEnabled {
		t.Skip("compares what MPI programs do, not what gangway does: once is enough")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, ".cache/mpi4py-mpich4/.packages")); err != nil {
		t.Skip("mpi4py is not built for MPICH: .ci/deps.sh does it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "python3", filepath.Join(root, "benchmarks/peers/suite/run.py"), "--flavours", "mpich4", "--places", "host",
		"--modules", `test_(cco_obj|p2p_obj|comm)\b`, "--stall", "20", "--limit", "50", "--gangway", gangwayBinary(t))
	// It ends what it has started before it ends itself.
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 20 * time.Second
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "| mpich4 | host | mpirun | 2 | 2") {
		t.Fatalf("it did not run 200 tests and more:\n%s", out)
	}
	t.Logf("%s", out)
}
