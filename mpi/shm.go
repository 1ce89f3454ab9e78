package mpi

// SharedMemory returns the variables (K=V) that make the MPI libraries keep
// their segments of shared memory in dir in place of /dev/shm itself: Open
// MPI 4's vader and 5's sm, its one-sided sm, and UCX under any of them. A
// library that is killed leaves its segments behind; in a directory of the
// job's own they can be found. MPICH without UCX and Intel MPI unlink theirs
// as soon as all ranks of a node have them.
func SharedMemory(dir string) []string {
	return []string{
		"OMPI_MCA_btl_vader_backing_directory=" + dir,
		"OMPI_MCA_btl_sm_backing_directory=" + dir,
		"OMPI_MCA_osc_sm_backing_directory=" + dir,
		"UCX_POSIX_DIR=" + dir,
	}
}
