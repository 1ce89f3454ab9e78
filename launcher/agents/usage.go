package agents

import (
	"time"

	"gangway/launcher/job"
	"gangway/nodeagent/wire"
)

// keepUsage keeps the last sample of a node.
func (f *Fleet) keepUsage(n *node, u *wire.Usage, now time.Time) {
	got := job.Usage{At: now, CPUPercent: u.CpuPercent, Load1: u.Load1, Load5: u.Load5, Load15: u.Load15,
		MemoryTotal: u.MemoryTotal, MemoryUsed: u.MemoryUsed, DiskTotal: u.DiskTotal, DiskFree: u.DiskFree,
		NetReceived: u.NetReceived, NetSent: u.NetSent, Processes: u.Processes}
	f.mu.Lock()
	defer f.mu.Unlock()
	n.usage = &got
}

// Usage returns the last sample of every node that has sent one to this
// launcher, also of those whose session is over: At says how old it is.
func (f *Fleet) Usage() map[string]job.Usage {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]job.Usage, len(f.nodes))
	for name, n := range f.nodes {
		if n.usage != nil {
			out[name] = *n.usage
		}
	}
	return out
}

// Version returns the version of the agent that a node had last; "": none has
// spoken to this launcher.
func (f *Fleet) Version(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[name]; n != nil {
		return n.version
	}
	return ""
}

// UsageOf returns the last sample of one node; ok: it has sent one.
func (f *Fleet) UsageOf(name string) (u job.Usage, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[name]; n != nil && n.usage != nil {
		return *n.usage, true
	}
	return u, false
}
