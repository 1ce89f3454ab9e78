package launcher

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gangway/launcher/job"
)

// usageStale is the age from which a node's sample says nothing of now.
const usageStale = 3 * UsageEvery

// usageCollector tells the nodes' last samples when it is asked.
type usageCollector struct {
	last func() map[string]job.Usage // by node
	now  func() time.Time
}

// Describe sends nothing: the collector is unchecked.
func (c *usageCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *usageCollector) Collect(out chan<- prometheus.Metric) {
	node := func(name, help string) *prometheus.Desc { return gauge("node_"+name, help, "node") }
	var (
		cpu    = node("cpu_ratio", "Processors' time in use between a node's last two samples, 0 to 1.")
		load1  = node("load1", "Mean length of the run queue over a minute.")
		load5  = node("load5", "Mean length of the run queue over 5 minutes.")
		load15 = node("load15", "Mean length of the run queue over 15 minutes.")
		mem    = node("memory_bytes", "The node's memory.")
		used   = node("memory_used_bytes", "Of it, what can't be given to programs.")
		disk   = node("disk_bytes", "Size of the task root's file system.")
		free   = node("disk_free_bytes", "Of it, what the agent's user may write.")
		in     = node("network_received_bytes_total", "Bytes received since the boot, all interfaces but loopback.")
		sent   = node("network_sent_bytes_total", "Bytes sent since the boot, all interfaces but loopback.")
		procs  = node("running_processes", "Processes on a core or ready for one.")
	)
	now := c.now()
	for name, u := range c.last() {
		if now.Sub(u.At) > usageStale {
			continue
		}
		value := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
			out <- prometheus.MustNewConstMetric(d, kind, v, name)
		}
		whole := func(d *prometheus.Desc, kind prometheus.ValueType, v *uint64) {
			if v != nil {
				value(d, kind, float64(*v))
			}
		}
		part := func(d *prometheus.Desc, v *float64, scale float64) {
			if v != nil {
				value(d, prometheus.GaugeValue, *v*scale)
			}
		}
		part(cpu, u.CPUPercent, 0.01)
		part(load1, u.Load1, 1)
		part(load5, u.Load5, 1)
		part(load15, u.Load15, 1)
		whole(mem, prometheus.GaugeValue, u.MemoryTotal)
		whole(used, prometheus.GaugeValue, u.MemoryUsed)
		whole(disk, prometheus.GaugeValue, u.DiskTotal)
		whole(free, prometheus.GaugeValue, u.DiskFree)
		whole(in, prometheus.CounterValue, u.NetReceived)
		whole(sent, prometheus.CounterValue, u.NetSent)
		if u.Processes != nil {
			value(procs, prometheus.GaugeValue, float64(*u.Processes))
		}
	}
}
