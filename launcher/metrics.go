package launcher

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gangway/launcher/agents"
	"gangway/launcher/control"
	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/launcher/state"
	"gangway/launcher/store"
)

// metrics is what Prometheus sees of a launcher. Names follow its conventions:
// base units, _total for counters.
type metrics struct {
	reg      *prometheus.Registry
	attempts *prometheus.CounterVec
	ends     *prometheus.CounterVec
	commits  prometheus.Histogram
	rows     prometheus.Counter
}

func newMetrics(version string) *metrics {
	m := &metrics{
		reg: prometheus.NewRegistry(),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gangway_attempts_total",
			Help: "Attempts that entered a state."}, []string{"state"}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gangway_task_elements_ended_total",
			Help: "Elements of tasks that have their outcome, by what it was."}, []string{"outcome"}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "gangway_commit_seconds",
			Help: "Time that commits to the launcher's data take.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{Name: "gangway_committed_rows_total",
			Help: "Rows written to the launcher's data."}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "gangway_build_info", Help: "Always 1.",
		ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	m.reg.MustRegister(m.attempts, m.ends, m.commits, m.rows, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// handler answers a scrape: counters as they are, the rest from the state.
func (m *metrics) handler(ctl *control.Control, fleet *agents.Fleet) http.Handler {
	m.reg.MustRegister(&clusterCollector{ctl: ctl}, &usageCollector{last: fleet.Usage, now: time.Now})
	return promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{Timeout: 10 * time.Second})
}

func (m *metrics) notice(n state.Notice) {
	switch n.Kind {
	case state.AttemptState:
		if n.Record != nil {
			m.attempts.WithLabelValues(string(n.Record.State)).Inc()
		}
	case state.TaskDone:
		switch {
		case n.Outcome == nil:
		case n.Block == nil || len(n.Block.Done) == 0:
			m.ends.WithLabelValues(endOf(n.Outcome)).Add(float64(n.Outcome.Len()))
		case n.Outcome == &n.Block.Done[0]: // once for all of its outcomes
			m.block(n.Block.Done)
		}
	}
}

// endOf is how elements ended, as the counter's label has it.
func endOf(o *job.Outcome) string {
	switch {
	case o.Success:
		return "success"
	case o.Reason != nil && o.Reason.Code != "":
		return string(o.Reason.Code)
	}
	return "failure"
}

// block counts the outcomes of a block: a counter is looked up once for those that
// follow each other in the same way but for successes in between.
func (m *metrics) block(done []job.Outcome) {
	var good, bad uint64
	what := ""
	for i := range done {
		if done[i].Success {
			good += done[i].Len()
			continue
		}
		if w := endOf(&done[i]); w != what {
			if bad > 0 {
				m.ends.WithLabelValues(what).Add(float64(bad))
			}
			what, bad = w, 0
		}
		bad += done[i].Len()
	}
	if good > 0 {
		m.ends.WithLabelValues("success").Add(float64(good))
	}
	if bad > 0 {
		m.ends.WithLabelValues(what).Add(float64(bad))
	}
}

// store measures the commits of s.
func (m *metrics) store(s store.Store) control.Store { return measured{s, m} }

type measured struct {
	store.Store
	m *metrics
}

func (s measured) Commit(rows []job.Row) error {
	start := time.Now()
	err := s.Store.Commit(rows)
	s.m.commits.Observe(time.Since(start).Seconds())
	s.m.rows.Add(float64(len(rows)))
	return err
}

// clusterCollector counts jobs, elements of tasks, nodes and cores when it is
// asked.
type clusterCollector struct{ ctl *control.Control }

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gangway_"+name, help, labels, nil)
}

// Describe sends nothing: the collector is unchecked, its descriptions come
// with the values.
func (c *clusterCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *clusterCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	jobs, tasks, nodes := map[string]float64{}, map[string]float64{}, map[string]float64{}
	var cores, used, epoch float64
	err := c.ctl.Read(ctx, func(s *state.Cluster) {
		epoch = float64(s.Epoch())
		for _, j := range s.Jobs() {
			jobs[string(j.State)]++
		}
		if n := s.Counts(); len(jobs) > 0 {
			tasks["active"], tasks["preparing"], tasks["running"] = float64(n.Pending), float64(n.Preparing), float64(n.Running)
			tasks["succeeded"], tasks["failed"] = float64(n.Succeeded), float64(n.Failed)
		}
		for _, n := range s.Nodes() {
			name := n.Row.State
			if n.View.Draining {
				name = "draining"
			}
			nodes[name]++
			if n.View.State != sched.NodeUp {
				continue
			}
			cores += float64(len(n.View.Cores))
			for _, core := range n.View.Cores {
				for _, h := range n.View.Holds {
					if h.CPUs.Overlaps(core) {
						used++
						break
					}
				}
			}
		}
	})
	if err != nil {
		return // the launcher is stopping: the counters say enough
	}
	waiting := map[string]float64{}
	for _, w := range c.ctl.Waiting() {
		waiting[string(w.Reason.Code)] += float64(w.Range.Len())
	}
	send := func(d *prometheus.Desc, by map[string]float64) {
		for k, v := range by {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, k)
		}
	}
	send(gauge("jobs", "Jobs by state.", "state"), jobs)
	send(gauge("task_elements", "Elements of tasks by state.", "state"), tasks)
	send(gauge("waiting_task_elements", "Elements of tasks that wait, by the reason.", "reason"), waiting)
	send(gauge("nodes", "Nodes by state.", "state"), nodes)
	out <- prometheus.MustNewConstMetric(gauge("cores", "Cores of the nodes that are up."), prometheus.GaugeValue, cores)
	out <- prometheus.MustNewConstMetric(gauge("cores_used", "Of these, cores held by attempts, other launchers' among them."), prometheus.GaugeValue, used)
	out <- prometheus.MustNewConstMetric(gauge("epoch", "The launcher's epoch: grows with each start on its data."), prometheus.CounterValue, epoch)
}
