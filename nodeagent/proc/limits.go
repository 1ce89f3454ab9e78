package proc

// Limits are resource limits of a process; nil: unknown, or not binding.
// MaxUint64 is no limit.
type Limits struct {
	Memlock   *uint64 // bytes of locked memory
	Files     *uint64 // open files
	Processes *uint64 // of the user, threads included
}
