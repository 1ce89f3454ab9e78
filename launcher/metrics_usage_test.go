package launcher

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gangway/launcher/job"
)

// TestUsageCollector: what was read is told in base units, what was not is
// absent, and old samples say nothing.
func TestUsageCollector(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cpu, total, procs := 25.0, uint64(1<<40), uint32(3)
	c := &usageCollector{now: func() time.Time { return now }, last: func() map[string]job.Usage {
		return map[string]job.Usage{
			"n1":  {At: now.Add(-usageStale), CPUPercent: &cpu, MemoryTotal: &total, NetSent: &total, Processes: &procs},
			"old": {At: now.Add(-usageStale - 1), CPUPercent: &cpu},
		}
	}}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if l := m.GetLabel(); len(l) != 1 || l[0].GetName() != "node" || l[0].GetValue() != "n1" {
				t.Errorf("%s of %v", f.GetName(), l)
			}
			got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	want := map[string]float64{"gangway_node_cpu_ratio": 0.25, "gangway_node_memory_bytes": 1 << 40,
		"gangway_node_network_sent_bytes_total": 1 << 40, "gangway_node_running_processes": 3}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %v, want %v", k, got[k], v)
		}
	}
}
