package nodeagent

import (
	"context"
	"math/rand/v2"
	"net"
	"path/filepath"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/mem"
	psnet "github.com/shirou/gopsutil/v3/net"
	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/wire"
)

// usageFastest is the shortest time between two samples.
const usageFastest = time.Second

// usageEvery reads a welcome's wish.
func usageEvery(ms uint32) time.Duration {
	if ms == 0 {
		return 0
	}
	return max(time.Duration(ms)*time.Millisecond, usageFastest)
}

// sample sends the node's usage to a session until it is over: at once, then
// at its interval, give or take a tenth, so that the nodes of a launcher that
// has come back do not speak all at once for ever.
func (a *agent) sample(s *session) {
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	sm := sampler{disk: filepath.Dir(string(a.dir))}
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-s.over:
			return
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s.send(&wire.AgentMessage{M: &wire.AgentMessage_Usage{Usage: sm.sample(ctx)}})
		t.Reset(time.Duration(float64(s.usage) * (0.9 + 0.2*rand.Float64())))
	}
}

// sampler holds what the next sample is compared with.
type sampler struct {
	disk       string // a directory on the file system whose space is told
	busy, idle float64
	seen       bool // busy and idle are a sample's: seconds of all PUs since the boot
}

// sample reads what can be read.
func (sm *sampler) sample(ctx context.Context) *wire.Usage {
	u := &wire.Usage{UnixNs: time.Now().UnixNano()}
	if ts, err := cpu.TimesWithContext(ctx, false); err == nil && len(ts) == 1 {
		u.CpuPercent = sm.percent(ts[0])
	}
	if l, err := load.AvgWithContext(ctx); err == nil {
		u.Load1, u.Load5, u.Load15 = &l.Load1, &l.Load5, &l.Load15
	}
	if m, err := load.MiscWithContext(ctx); err == nil {
		u.Processes = proto.Uint32(uint32(max(m.ProcsRunning, 0)))
	}
	if m, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		u.MemoryTotal, u.MemoryUsed = proto.Uint64(m.Total), proto.Uint64(m.Total-min(m.Available, m.Total))
	}
	if d, err := disk.UsageWithContext(ctx, sm.disk); err == nil {
		u.DiskTotal, u.DiskFree = proto.Uint64(d.Total), proto.Uint64(d.Free)
	}
	u.NetReceived, u.NetSent = traffic(ctx)
	return u
}

// percent is nil at first: there is nothing to compare with.
func (sm *sampler) percent(t cpu.TimesStat) *float64 {
	// Linux counts guests' time as user time too.
	busy := t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal
	idle := t.Idle + t.Iowait
	seen, b, i := sm.seen, busy-sm.busy, idle-sm.idle
	sm.busy, sm.idle, sm.seen = busy, idle, true
	if !seen || b < 0 || i < 0 || b+i == 0 { // counters go back when PUs leave
		return nil
	}
	return proto.Float64(100 * b / (b + i))
}

// traffic sums the interfaces but loopback.
func traffic(ctx context.Context) (received, sent *uint64) {
	counters, err := psnet.IOCountersWithContext(ctx, true)
	if err != nil {
		return nil, nil
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, nil
	}
	real := map[string]bool{}
	for _, i := range all {
		real[i.Name] = i.Flags&net.FlagLoopback == 0
	}
	var in, out uint64
	for _, c := range counters {
		if real[c.Name] {
			in += c.BytesRecv
			out += c.BytesSent
		}
	}
	return &in, &out
}
