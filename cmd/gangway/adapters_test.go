package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestProbeOfAdaptersAlone: a record of a machine's InfiniBand adapters says what they
// are, and that the rest is not known.
func TestProbeOfAdaptersAlone(t *testing.T) {
	const record = "Directory: sys\nMode: 755\nDirectory: sys/class/infiniband/mlx4_0\nMode: 755\n" +
		"Path: sys/class/infiniband/mlx4_0/hca_type\nLines: 1\nMT4099\nMode: 644\n" +
		"Path: sys/class/infiniband/mlx4_0/fw_ver\nLines: 1\n2.31.5050\nMode: 644\n" +
		"Path: sys/class/infiniband/mlx4_0/ports/1/state\nLines: 1\n4: ACTIVE\nMode: 644\n" +
		"Path: sys/class/infiniband/mlx4_0/ports/1/rate\nLines: 1\n40 Gb/sec (4X QDR)\nMode: 644\n"
	file := filepath.Join(t.TempDir(), "ib.ttar")
	if err := os.WriteFile(file, []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, 0, `mlx4_0 MT4099 firmware 2\.31\.5050.*port 1 ACTIVE 40 Gb/sec \(4X QDR\).*Warnings.*only the machine's InfiniBand adapters are known`, "", "probe", "--from", file)
	want(t, exitFailed, "", "no cpus", "plan", "--from", file, "-n", "2")
}
