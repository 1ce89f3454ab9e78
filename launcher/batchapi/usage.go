package batchapi

import "gangway/launcher/job"

// nodeUsage is job.Usage as clients see it.
type nodeUsage struct {
	At          string   `json:"sampledAt"`
	CPUPercent  *float64 `json:"cpuPercent,omitempty"`
	Load        *loads   `json:"load,omitempty"`
	MemoryTotal *uint64  `json:"memoryTotalBytes,omitempty"`
	MemoryUsed  *uint64  `json:"memoryUsedBytes,omitempty"`
	DiskTotal   *uint64  `json:"diskTotalBytes,omitempty"`
	DiskFree    *uint64  `json:"diskFreeBytes,omitempty"`
	NetReceived *uint64  `json:"networkReceivedBytes,omitempty"`
	NetSent     *uint64  `json:"networkSentBytes,omitempty"`
	Processes   *uint32  `json:"runningProcesses,omitempty"`
}

// loads are the run queue's mean lengths.
type loads struct {
	One     *float64 `json:"1m,omitempty"`
	Five    *float64 `json:"5m,omitempty"`
	Fifteen *float64 `json:"15m,omitempty"`
}

func usageOf(u *job.Usage) *nodeUsage {
	if u == nil {
		return nil
	}
	out := &nodeUsage{At: when(u.At), CPUPercent: u.CPUPercent, MemoryTotal: u.MemoryTotal, MemoryUsed: u.MemoryUsed,
		DiskTotal: u.DiskTotal, DiskFree: u.DiskFree, NetReceived: u.NetReceived, NetSent: u.NetSent, Processes: u.Processes}
	if u.Load1 != nil || u.Load5 != nil || u.Load15 != nil {
		out.Load = &loads{u.Load1, u.Load5, u.Load15}
	}
	return out
}
