package mpi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The pair was seen with MPICH 5.0 under its own mpiexec.
func TestSegments(t *testing.T) {
	if d := cmp.Diff([]string{"mpich_shm_f998b8a5_", "mpich_vci_f998b8a5_"}, Segments("kvs_19399_0_1862683868_vm")); d != "" {
		t.Error(d)
	}
}
