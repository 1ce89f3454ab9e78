package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
)

// crew is a simulated crew: each element that it is given has ended at once, one
// in a thousand badly at its first attempt. Its state ends with the session.
type crew struct {
	as   *wire.Assignment
	seq  uint64
	done []finished // without an acknowledgement
}

// finished is a run in a block.
type finished struct {
	block   uint64
	attempt uint32
	lo, hi  uint64
}

// blockSize is a real crew's.
const blockSize = 4096

// work plays a crew's part of a message; false: it is not a crew's.
func work(out *link.Queue[*wire.AgentMessage], have map[string]*wire.Assignment, crews map[string]*crew, m *wire.LauncherMessage) bool {
	t := m.GetToShim()
	as := have[t.GetId()]
	if as.GetCrew() == nil {
		return false
	}
	c := crews[t.GetId()]
	if c == nil {
		c = &crew{as: as}
		crews[t.GetId()] = c
	}
	say := func(m *wire.FromShim) {
		m.Id, m.Name = as.GetId(), as.GetName()
		out.Put(&wire.AgentMessage{M: &wire.AgentMessage_FromShim{FromShim: m}})
	}
	switch {
	case t.GetLaunch() != nil:
		say(&wire.FromShim{M: &wire.FromShim_Started{Started: &wire.Started{Pid: 1, UnixNs: time.Now().UnixNano()}}})
	case t.GetBlockAck() != nil:
		for len(c.done) > 0 && c.done[0].block <= t.GetBlockAck().GetSeq() {
			c.done = c.done[1:]
		}
	case t.GetWork() != nil:
		for _, r := range t.GetWork().GetRuns() {
			c.run(say, r.GetAttempt(), r.GetRange().GetLo(), r.GetRange().GetHi())
		}
		if t.GetWork().GetLast() {
			say(&wire.FromShim{M: &wire.FromShim_Result{Result: &wire.Result{Range: as.GetName().GetRange(), FirstRank: -1}}})
		}
	case t.GetEnd() != nil:
		say(&wire.FromShim{M: &wire.FromShim_Result{Result: &wire.Result{Range: as.GetName().GetRange(), FirstRank: -1}}})
	default:
		return false
	}
	return true
}

// run ends what of a run is new.
func (c *crew) run(say func(*wire.FromShim), attempt uint32, lo, hi uint64) {
	for _, d := range c.done {
		if d.attempt != attempt || d.hi <= lo || d.lo >= hi {
			continue
		}
		if d.lo > lo {
			c.run(say, attempt, lo, d.lo)
		}
		if lo = d.hi; lo >= hi {
			return
		}
	}
	for ; lo < hi; lo = min(lo+blockSize, hi) {
		c.seq++
		b := block(c.seq, attempt, lo, min(lo+blockSize, hi))
		c.done = append(c.done, finished{c.seq, attempt, lo, min(lo+blockSize, hi)})
		say(&wire.FromShim{M: &wire.FromShim_Block{Block: b}})
	}
}

func block(seq uint64, attempt uint32, lo, hi uint64) *wire.Block {
	n := hi - lo
	b := &wire.Block{Seq: seq, Runs: []*wire.Run{{Range: &wire.Range{Lo: lo, Hi: hi}, Attempt: attempt}},
		StartUs: make([]int64, n), WallUs: make([]uint64, n), CpuUs: make([]uint64, n), RssKib: make([]uint64, n)}
	b.StartUs[0] = time.Now().UnixMicro()
	good := uint64(0)
	end := func() {
		if good > 0 {
			b.Endings = append(b.Endings, &wire.Ending{Count: good})
			good = 0
		}
	}
	for i := range n {
		if i > 0 {
			b.StartUs[i] = 350 + int64(i%64)
		}
		b.WallUs[i], b.CpuUs[i], b.RssKib[i] = 600+i%128, 400+i%64, 1500+i%16
		if (lo+i)%1000 == 7 && attempt == 1 {
			end()
			b.Endings = append(b.Endings, &wire.Ending{Count: 1, ExitCode: 1})
			continue
		}
		good++
	}
	end()
	return b
}

// array adds an array, and one that waits behind it, and lets the fleet run it
// while a client asks for the job all the time.
func array(ctx context.Context, l *launcher, elements, queued int) error {
	add := func(id string, priority, n int) error {
		spec := map[string]any{"id": id, "priority": priority, "poolInfo": map[string]any{"poolId": "default"}}
		if _, err := l.ask(ctx, http.MethodPost, "/jobs?"+version, spec, nil); err != nil {
			return err
		}
		task := map[string]any{"id": "A", "commandLine": "/bin/true", "constraints": map[string]any{"maxTaskRetryCount": 1},
			"gangway": map[string]any{"array": n}}
		_, err := l.ask(ctx, http.MethodPost, "/jobs/"+id+"/tasks?"+version, task, nil)
		return err
	}
	cpu, begin := l.cpu(), time.Now()
	if err := add("array", 0, elements); err != nil {
		return err
	}
	row("submitting it", seconds(time.Since(begin)))
	if queued > 0 {
		if err := add("queued", -1, queued); err != nil {
			return err
		}
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var reads, worst atomic.Int64
	go func() {
		for reading.Err() == nil {
			at := time.Now()
			if _, err := l.ask(reading, http.MethodGet, "/jobs/array/tasks/A?"+version, nil, nil); err == nil {
				reads.Add(1)
				worst.Store(max(worst.Load(), time.Since(at).Microseconds()))
			}
		}
	}()
	var good float64
	if err := l.wait(ctx, 5*time.Minute, func() (bool, error) {
		var err error
		good, err = l.gauge(ctx, `gangway_task_elements_ended_total{outcome="success"}`)
		return int(good) >= elements, err
	}); err != nil {
		return fmt.Errorf("running the elements, of which %.0f succeeded: %w", good, err)
	}
	took := time.Since(begin)
	stop()
	row("from the submission to the last element's end", seconds(took))
	row("elements a second, each committed before its acknowledgement", fmt.Sprintf("%.0f", float64(elements)/took.Seconds()))
	row("processor's time of the launcher for that", seconds(l.cpu()-cpu))
	row("reads of the task meanwhile, and the longest", fmt.Sprintf("%d, %.1f ms", reads.Load(), float64(worst.Load())/1000))
	row("launcher then, resident", mib(l.rss()))
	row("launcher, resident at most", mib(l.peak()))
	return nil
}
