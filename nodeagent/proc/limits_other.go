//go:build !linux

package proc

// ReadLimits knows none.
func ReadLimits() Limits { return Limits{} }

// UserTasks is unsupported.
func UserTasks() (uint64, error) { return 0, unsupported("counting threads") }

// Mapped is unsupported.
func Mapped([]string) (map[string]bool, error) { return nil, unsupported("looking at mapped files") }

// FreeSpace is unsupported.
func FreeSpace(string) (bytes, inodes uint64, fixed bool, err error) {
	return 0, 0, false, unsupported("the free space of a file system")
}
