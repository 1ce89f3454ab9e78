package mpi

import (
	"fmt"
	"hash/fnv"
)

// SharedMemory returns the variables (K=V) that make the MPI libraries keep
// their segments of shared memory in dir in place of /dev/shm itself: Open
// MPI 4's vader and 5's sm, its one-sided sm, and UCX under any of them. A
// library that is killed leaves its segments behind; in a directory of the
// job's own they can be found. MPICH without UCX and Intel MPI unlink theirs
// as soon as all ranks of a node have them; for MPICH 5 see Segments.
func SharedMemory(dir string) []string {
	return []string{
		"OMPI_MCA_btl_vader_backing_directory=" + dir,
		"OMPI_MCA_btl_sm_backing_directory=" + dir,
		"OMPI_MCA_osc_sm_backing_directory=" + dir,
		"UCX_POSIX_DIR=" + dir,
	}
}

// Segments returns what the names of MPICH 5's segments in /dev/shm begin with, for
// ranks that found each other in the PMI dictionary kvs; the number of the node in
// the gang follows. It calls them mpich_shm_%x_%d and mpich_vci_%x_%d after the
// FNV-1a hash of the dictionary's name (seen with 5.0), and ranks that are killed
// leave them behind.
func Segments(kvs string) []string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(kvs))
	return []string{fmt.Sprintf("mpich_shm_%x_", h.Sum32()), fmt.Sprintf("mpich_vci_%x_", h.Sum32())}
}
