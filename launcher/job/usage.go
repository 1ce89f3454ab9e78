package job

import "time"

// Usage is what a node was used for when its agent sampled it; a field that
// could not be read is nil. It is no row: it is lost with the launcher.
type Usage struct {
	At          time.Time // when it came, by the launcher's clock
	CPUPercent  *float64  // of all PUs together, 0 to 100, since the sample before
	Load1       *float64  // run queue's mean over 1, 5 and 15 minutes
	Load5       *float64
	Load15      *float64
	MemoryTotal *uint64 // bytes
	MemoryUsed  *uint64
	DiskTotal   *uint64 // bytes, of the task root's file system
	DiskFree    *uint64
	NetReceived *uint64 // bytes since the boot, of all interfaces but loopback
	NetSent     *uint64
	Processes   *uint32 // on a core or ready for one
}
