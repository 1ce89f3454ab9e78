package client

import "time"

// Usage is what a node was used for when its agent sampled it last; what could not
// be read is nil.
type Usage struct {
	At         time.Time `json:"sampledAt"` // by the launcher's clock
	CPUPercent *float64  `json:"cpuPercent"`
	Load       struct {
		One     *float64 `json:"1m"`
		Five    *float64 `json:"5m"`
		Fifteen *float64 `json:"15m"`
	} `json:"load"`
	MemoryTotal *uint64 `json:"memoryTotalBytes"`
	MemoryUsed  *uint64 `json:"memoryUsedBytes"`
	DiskTotal   *uint64 `json:"diskTotalBytes"` // of the task root's file system
	DiskFree    *uint64 `json:"diskFreeBytes"`
	NetReceived *uint64 `json:"networkReceivedBytes"` // since the node's boot
	NetSent     *uint64 `json:"networkSentBytes"`
	Processes   *uint32 `json:"runningProcesses"`
}
