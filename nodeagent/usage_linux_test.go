package nodeagent

import (
	"testing"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"

	"gangway/nodeagent/wire"
)

// TestUsage: a launcher that asks gets samples, one that does not gets none.
func TestUsage(t *testing.T) {
	base := tempBase(t)
	startTestAgent(t, agentConfig(base))
	l, _ := dialUsage(t, base, "c1", 1, 1) // as often as it goes
	other, _ := dial(t, base, "c2", 1)
	isUsage := func(m *wire.AgentMessage) bool { return m.GetUsage() != nil }
	first := l.wait("a sample", isUsage).GetUsage()
	if first.CpuPercent != nil {
		t.Errorf("the first sample has nothing to compare with: %v", first)
	}
	u := l.wait("a second sample", isUsage).GetUsage()
	if d := time.Duration(u.GetUnixNs() - first.GetUnixNs()); d < usageFastest*9/10 {
		t.Errorf("two samples within %v", d)
	}
	if u.CpuPercent == nil || *u.CpuPercent < 0 || *u.CpuPercent > 100 {
		t.Errorf("processors: %v", u)
	}
	if u.Load1 == nil || u.Load5 == nil || u.Load15 == nil || u.Processes == nil {
		t.Errorf("load: %v", u)
	}
	if u.GetMemoryUsed() == 0 || u.GetMemoryUsed() > u.GetMemoryTotal() {
		t.Errorf("memory: %v", u)
	}
	if u.GetDiskTotal() == 0 || u.GetDiskFree() > u.GetDiskTotal() {
		t.Errorf("disk: %v", u)
	}
	if u.NetReceived == nil || u.NetSent == nil {
		t.Errorf("network: %v", u)
	}
	other.close()
	for m := range other.in {
		if isUsage(m) {
			t.Errorf("a sample that was not asked for: %v", m)
		}
	}
}

func TestUsageEvery(t *testing.T) {
	for ms, want := range map[uint32]time.Duration{0: 0, 1: time.Second, 999: time.Second, 15_000: 15 * time.Second} {
		if got := usageEvery(ms); got != want {
			t.Errorf("usageEvery(%d) = %v, want %v", ms, got, want)
		}
	}
}

func TestPercent(t *testing.T) {
	var sm sampler
	if p := sm.percent(cpu.TimesStat{User: 10, Idle: 90}); p != nil {
		t.Errorf("first: %v", *p)
	}
	if p := sm.percent(cpu.TimesStat{User: 12, System: 1, Idle: 90, Iowait: 1}); p == nil || *p != 75 {
		t.Errorf("3 s of 4: %v", p)
	}
	if p := sm.percent(cpu.TimesStat{User: 1, Idle: 2}); p != nil {
		t.Errorf("counters went back: %v", *p)
	}
}
