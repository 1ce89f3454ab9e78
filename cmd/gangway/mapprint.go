package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"gangway/launcher"
	"gangway/launcher/job"
)

// mapPrinter takes elements' output and ends and prints them, grouped, in the
// order asked for. Output and Ended are called by one goroutine.
type mapPrinter struct {
	show      *mapShow
	total     uint64 // elements of the array
	keepOrder bool
	tag       bool
	json      bool
	local     bool // all runs on this machine
	halt      haltRule
	log       *joblog  // nil: not wanted
	results   *results // nil: not wanted
	orders    chan<- launcher.ArrayOrder
	bar       *progress // nil: not wanted

	stdout, stderr *bufio.Writer
	outputs        *outputs
	next           uint64            // the first index not printed, in order
	waiting        map[uint64]mapEnd // ended and to be printed in order
	silent         indexSet          // ended in order, with nothing to print
	stopped        bool

	mu      sync.Mutex // guards what follows, and what is written to stderr
	done    uint64     // ended for good, of those that ran
	failed  uint64
	skipped uint64 // never ran, or were ended by us
	retried uint64
	first   int // exit status of the first that failed
	crews   map[string]int
	reason  *job.Reason // of the first element that no program of its own ended
}

func newMapPrinter(total uint64, show *mapShow, stdout, stderr io.Writer, tmp string) *mapPrinter {
	return &mapPrinter{show: show, total: total, next: 1, waiting: map[uint64]mapEnd{}, silent: indexSet{}, crews: map[string]int{},
		stdout: bufio.NewWriterSize(stdout, 64<<10), stderr: bufio.NewWriterSize(stderr, 16<<10), outputs: newOutputs(tmp, mapHeld)}
}

// Output keeps what an element wrote until it has ended.
func (p *mapPrinter) Output(index uint64, stderr bool, data []byte) error {
	return p.outputs.add(index, stderr, data)
}

// Ended prints what may be printed now.
func (p *mapPrinter) Ended(b *job.BlockRow, done []job.Outcome, again []job.Try) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range again {
		p.retried += t.Len()
		for i := t.Lo; i < t.Hi; i++ {
			if err := p.outputs.drop(i); err != nil {
				return err
			}
		}
	}
	at := costsAt(b)
	var err error
	for _, o := range done {
		for i := o.Lo; i < o.Hi && err == nil; i++ {
			err = p.end(mapEndOf(b, o, i, at))
		}
	}
	if err != nil {
		return err
	}
	if p.log != nil {
		err = p.log.flush()
	}
	return errors.Join(err, p.flush())
}

// costsAt returns where in a block's costs a range of its elements begins.
func costsAt(b *job.BlockRow) func(lo uint64) int {
	if b.Costs == nil {
		return nil
	}
	all := make([]job.Range, 0, len(b.Done)+len(b.Again))
	for _, o := range b.Done {
		all = append(all, o.Range)
	}
	for _, t := range b.Again {
		all = append(all, t.Range)
	}
	slices.SortFunc(all, func(x, y job.Range) int {
		if x.Lo < y.Lo {
			return -1
		}
		return 1
	})
	begin := make([]int, len(all))
	n := 0
	for i, r := range all {
		begin[i] = n
		n += int(r.Len())
	}
	return func(lo uint64) int {
		i, _ := slices.BinarySearchFunc(all, lo, func(r job.Range, lo uint64) int {
			switch {
			case r.Hi <= lo:
				return -1
			case r.Lo > lo:
				return 1
			}
			return 0
		})
		return begin[i] + int(lo-all[i].Lo)
	}
}

// mapEndOf is how one element of a block ended.
func mapEndOf(b *job.BlockRow, o job.Outcome, index uint64, at func(uint64) int) mapEnd {
	e := mapEnd{index: index, node: b.Node, code: o.ExitCode, signal: o.Signal, reason: o.Reason}
	if e.reason != nil && e.reason.Code == job.FailRank {
		e.reason = nil // its own exit status says it
	}
	if at == nil {
		return e
	}
	if k := at(index); k < len(b.Costs.Start) {
		e.ran, e.attempt, e.start, e.wall, e.cpu, e.rss = true, b.Costs.Attempt[k], b.Costs.Start[k], b.Costs.Wall[k], b.Costs.CPU[k], b.Costs.RSS[k]
	}
	return e
}

// end takes one element's end, in any order.
func (p *mapPrinter) end(e mapEnd) error {
	if e.reason != nil && e.reason.Code == job.FailCancelled {
		p.skipped++
	} else {
		p.count(&e)
	}
	e.received = p.outputs.size(e.index)
	if err := p.record(&e); err != nil {
		return err
	}
	if !p.keepOrder {
		return p.print(e)
	}
	if e.received == 0 && e.reason == nil && !p.json && p.results == nil {
		p.silent.add(e.index)
	} else {
		p.waiting[e.index] = e
	}
	for {
		switch e, ok := p.waiting[p.next]; {
		case ok:
			delete(p.waiting, p.next)
			if err := p.print(e); err != nil {
				return err
			}
		case !p.silent.has(p.next):
			return nil
		}
		p.next++
		p.silent.below(p.next)
	}
}

// record writes an element's end to the job log, when it has ended.
func (p *mapPrinter) record(e *mapEnd) error {
	if p.log == nil || e.reason != nil && e.reason.Code == job.FailCancelled {
		return nil // it is to be found missing by --resume
	}
	return p.log.add(p.show.number(e.index), p.host(e), p.show.command(e.index), e)
}

// count counts an end, and orders what follows from it.
func (p *mapPrinter) count(e *mapEnd) {
	p.done++
	if e.failed() {
		p.failed++
		if p.first == 0 {
			p.first = e.code
			if e.signal > 0 {
				p.first = exitSignal + e.signal
			}
			if p.first == 0 {
				p.first = 1
			}
		}
		if p.reason == nil && e.reason != nil {
			p.reason = e.reason
		}
	}
	if p.stopped || !p.halt.met(p.failed, p.done, p.total) {
		return
	}
	p.stopped = true
	order := launcher.ArrayStop
	if p.halt.now {
		order = launcher.ArrayEnd
	}
	select {
	case p.orders <- order:
	default: // there is room for one, and only one is given
	}
}

// print prints an element with its output.
func (p *mapPrinter) print(e mapEnd) error {
	cancelled := e.reason != nil && e.reason.Code == job.FailCancelled
	if cancelled {
		return p.outputs.drop(e.index)
	}
	var number string
	var values []string
	if p.tag || p.json || p.results != nil {
		values = p.show.values(e.index)
		number = p.show.number(e.index)
	}
	var files *resultFiles
	if p.results != nil {
		files = p.results.begin(number, values)
	}
	var both [2]bytes.Buffer // of --json
	var tags [2]io.Writer
	if p.tag {
		tag := []byte(strings.Join(values, " ") + "\t")
		tags = [2]io.Writer{&tagger{w: p.stdout, tag: tag}, &tagger{w: p.stderr, tag: tag}}
	}
	err := p.outputs.take(e.index, func(stderr bool, data []byte) error {
		i := 0
		w := io.Writer(p.stdout)
		if stderr {
			i, w = 1, p.stderr
		}
		if files != nil {
			return files.write(stderr, data)
		}
		switch {
		case p.json:
			both[i].Write(data)
			return nil
		case p.tag:
			w = tags[i]
		}
		p.clear()
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	if files != nil {
		err = files.finish(number)
		line := p.line(&e, number, values)
		line["stdout"], line["stderr"] = files.dir+"/stdout", files.dir+"/stderr"
		err = errors.Join(err, p.results.add(line))
	}
	if p.json && err == nil {
		line := p.line(&e, number, values)
		line["type"] = "element"
		if files == nil {
			line["stdout"], line["stderr"] = both[0].String(), both[1].String()
		} else {
			line["stdout"], line["stderr"] = files.dir+"/stdout", files.dir+"/stderr"
		}
		_, err = p.stdout.Write(eventLine(line))
	}
	if e.reason != nil && !p.json && err == nil {
		p.clear()
		where := ""
		if !p.local && e.node != "" {
			where = e.node + ": "
		}
		_, err = fmt.Fprintf(p.stderr, "gangway: %s%s: %s\n", where, p.show.command(e.index), e.reason.Detail)
	}
	return err
}

// host is where an element ran, for the job log.
func (p *mapPrinter) host(e *mapEnd) string {
	if p.local || e.node == "" {
		return ":"
	}
	return e.node
}

// line is an element as JSON.
func (p *mapPrinter) line(e *mapEnd, number string, values []string) map[string]any {
	line := map[string]any{"seq": json.Number(number), "values": values, "command": p.show.command(e.index), "node": e.node,
		"exit_code": e.code, "signal": e.signal, "attempt": e.attempt, "cpu_us": e.cpu, "rss_kib": e.rss, "wall_us": e.wall}
	if e.start > 0 {
		line["start"] = time.UnixMicro(e.start).UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	if e.reason != nil {
		line["reason"] = e.reason
	}
	return line
}

// clear takes the progress line away before something else is written.
func (p *mapPrinter) clear() {
	if p.bar != nil && p.bar.shown {
		p.bar.hide(p.stderr)
		_ = p.stderr.Flush() // before standard output, which may be the same terminal
	}
}

func (p *mapPrinter) flush() error {
	if err := p.stdout.Flush(); err != nil {
		return err
	}
	if p.stderr.Buffered() > 0 {
		return p.stderr.Flush()
	}
	return nil
}

// finish prints what is left: of a job that ended early, in order, what is there.
func (p *mapPrinter) finish() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	indices := make([]uint64, 0, len(p.waiting))
	for i := range p.waiting {
		indices = append(indices, i)
	}
	slices.Sort(indices)
	var err error
	for _, i := range indices {
		if err == nil {
			err = p.print(p.waiting[i])
		}
	}
	p.clear()
	err = errors.Join(err, p.flush())
	p.outputs.close()
	if p.log != nil {
		err = errors.Join(err, p.log.close())
	}
	if p.results != nil {
		err = errors.Join(err, p.results.close())
	}
	return err
}

// Crew counts what runs.
func (p *mapPrinter) Crew(rec job.AttemptRow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if rec.State == job.AttemptEnded || rec.Crew == nil {
		delete(p.crews, rec.ID)
		return
	}
	p.crews[rec.ID] = rec.Crew.Slots
}

// Notice prints a warning.
func (p *mapPrinter) Notice(node, text string, warning bool) {
	if !warning {
		return
	}
	if node != "" && !strings.Contains(text, node) {
		text = node + ": " + text
	}
	p.say(text)
}

// Waiting says why nothing is started.
func (p *mapPrinter) Waiting(r job.Reason) { p.say("waiting: " + r.String()) }

func (p *mapPrinter) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	if p.json {
		_, _ = p.stdout.Write(eventLine(map[string]any{"type": "notice", "text": text}))
		_ = p.stdout.Flush()
		return
	}
	fmt.Fprintf(p.stderr, "gangway: %s\n", text)
	_ = p.stderr.Flush() // where it can't be written there is nobody to tell
}

// state is what the progress line shows.
func (p *mapPrinter) state() progressState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := progressState{total: p.total, done: p.done + p.skipped, failed: p.failed, retried: p.retried}
	for _, n := range p.crews {
		s.running += uint64(n)
	}
	s.running = min(s.running, s.total-min(s.total, s.done))
	return s
}
