//go:build !linux && !windows

package probe

// systemMemory is unknown here.
func systemMemory() (total, available *uint64) { return nil, nil }
