package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gangway/internal/lab"
	"gangway/launcher/job"
)

// apiTask is what the checker reads of a task.
type apiTask struct {
	ID            string `json:"id"`
	State         string `json:"state"`
	ExecutionInfo struct {
		ExitCode     *int   `json:"exitCode"`
		Result       string `json:"result"`
		RetryCount   int    `json:"retryCount"`
		RequeueCount int    `json:"requeueCount"`
		FailureInfo  *struct {
			Code    string
			Details []struct{ Name, Value string }
		} `json:"failureInfo"`
	} `json:"executionInfo"`
}

func (t apiTask) String() string {
	x := t.ExecutionInfo
	s := t.State + " " + x.Result
	if x.ExitCode != nil {
		s += " exit " + strconv.Itoa(*x.ExitCode)
	}
	if x.FailureInfo != nil {
		s += fmt.Sprintf(" %v", *x.FailureInfo)
	}
	return fmt.Sprintf("%s retries %d requeues %d", s, x.RetryCount, x.RequeueCount)
}

// cause is gangway's word for a failure; "": none.
func (t apiTask) cause() job.Code {
	if f := t.ExecutionInfo.FailureInfo; f != nil {
		for _, d := range f.Details {
			if d.Name == "GangwayCode" {
				return job.Code(d.Value)
			}
		}
	}
	return ""
}

type apiNode struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Running int    `json:"runningTasksCount"`
	Gangway struct {
		Cores int `json:"cores"`
	} `json:"gangway"`
}

func (c *chaos) nodes() []apiNode {
	var list struct{ Value []apiNode }
	_, _ = c.call(http.MethodGet, "/pools/default/nodes", nil, &list)
	return list.Value
}

// tasks are the reported tasks of a job.
func (c *chaos) tasks(id string) []apiTask {
	var list struct{ Value []apiTask }
	c.waitFor("the tasks of job "+id+" are listed", 20*time.Second, func() bool {
		_, err := c.call(http.MethodGet, "/jobs/"+id+"/tasks", nil, &list)
		return err == nil
	})
	return list.Value
}

// quiet lets everything come to its end and checks that it adds up.
func (c *chaos) quiet() {
	c.mend(true)
	c.drain()
	c.waitFor("every node is idle", 40*time.Second, func() bool {
		n := c.nodes()
		return len(n) == chaosHosts && !slices.ContainsFunc(n, func(n apiNode) bool { return n.State != "idle" || n.Running > 0 })
	})
	// Every core is free: a gang over all of them finds its place.
	c.jobs++
	spec := job.Spec{ID: fmt.Sprintf("j%05d", c.jobs)}
	spec.Tasks = []job.TaskSpec{c.task(spec.ID, "whole", true)}
	c.submit(spec)
	c.drain()
	c.check()
	c.nothingLeft()
}

// drain waits until every job is over.
func (c *chaos) drain() {
	limit := time.Now().Add(60 * time.Second)
	for _, id := range c.names() {
		for {
			if _, over := c.state(id); over {
				break
			}
			if time.Now().After(limit) {
				c.fail("job %s does not end:%s", id, c.stuck())
			}
			select {
			case err := <-c.ended:
				c.ended <- err
				c.fail("the launcher ended by itself: %v", err)
			case <-time.After(20 * time.Millisecond):
			}
		}
		delete(c.open, id)
	}
}

// stuck describes the tasks that are not completed.
func (c *chaos) stuck() string {
	var b strings.Builder
	for _, id := range c.names() {
		state, over := c.state(id)
		if over {
			continue
		}
		fmt.Fprintf(&b, "\n%s is %s", id, state)
		for _, t := range c.tasks(id) {
			if t.State != string(job.TaskCompleted) {
				var why any
				_, err := c.call(http.MethodGet, "/gangway/v1/jobs/"+id+"/tasks/"+t.ID+"/explain", nil, &why)
				fmt.Fprintf(&b, "\n  %s %s: %v %v", t.ID, t, why, err)
			}
		}
	}
	for _, n := range c.nodes() {
		fmt.Fprintf(&b, "\n%+v", n)
	}
	for i := 1; i <= chaosHosts; i++ {
		for _, p := range c.b.find(i, func(p lab.Proc) bool { return variable(p, "GANGWAY_ID") != "" }) {
			fmt.Fprintf(&b, "\nn%d: process %d %q of %s", i, p.PID, p.Args, variable(p, "GANGWAY_ID"))
			if role("shim")(p) { // where it hangs goes to the log
				_ = syscall.Kill(p.PID, syscall.SIGQUIT)
			}
		}
	}
	return b.String()
}

// rankRun is what one rank of one attempt wrote down.
type rankRun struct {
	node       string
	start, end float64 // uptime; end is 0 when it did not get there
	code       int
}

// attemptRun is an attempt by its side effects.
type attemptRun struct {
	id    string
	n     uint32
	ranks map[string]rankRun
}

func (a attemptRun) started() float64 {
	at := 0.0
	for _, r := range a.ranks {
		if at == 0 || r.start < at {
			at = r.start
		}
	}
	return at
}

// complete: every rank has come to its end with status 0.
func (a attemptRun) complete(spec job.TaskSpec) bool {
	want := max(spec.Nodes, 1)
	for _, r := range a.ranks {
		if r.end == 0 || r.code != 0 {
			return false
		}
	}
	return len(a.ranks) == want
}

// effects reads what all tasks wrote down, by task, attempts in their order.
func (c *chaos) effects() map[string][]attemptRun {
	b, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		c.t.Fatal(err)
	}
	all := map[string]map[string]attemptRun{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 7 && f[0] != "double" {
			c.fail("a strange line of a task: %q", line)
		}
		what, name, id, rank, node := f[0], f[1], f[2], f[3], f[4]
		at, _ := strconv.ParseFloat(f[5], 64)
		if _, ok := c.wants[name]; !ok {
			c.fail("a task nobody asked for: %s", line)
		}
		if all[name] == nil {
			all[name] = map[string]attemptRun{}
		}
		a, ok := all[name][id]
		if !ok {
			a = attemptRun{id: id, n: job.AttemptNumber(id), ranks: map[string]rankRun{}}
			all[name][id] = a
		}
		r, ok := a.ranks[rank]
		switch {
		case what == "double":
			c.fail("task %s runs twice at once: %s", name, line)
		case what == "start" && ok:
			c.fail("rank %s of attempt %s of task %s has started twice: %+v %s", rank, id, name, r, line)
		case what == "end" && (!ok || r.end != 0):
			c.fail("rank %s of attempt %s of task %s has ended twice: %+v %s", rank, id, name, r, line)
		case what == "start":
			r = rankRun{node: node, start: at}
		case what == "end":
			r.end = at
			r.code, _ = strconv.Atoi(f[6])
		}
		a.ranks[rank] = r
	}
	out := map[string][]attemptRun{}
	for name, byID := range all {
		out[name] = slices.SortedFunc(maps.Values(byID), func(a, b attemptRun) int { return int(a.n) - int(b.n) })
	}
	return out
}

// check compares the side effects with what the launcher reports.
func (c *chaos) check() {
	c.lapsed = 0
	all := c.effects()
	reported := map[string]apiTask{}
	seen := map[string]bool{}
	for _, name := range c.order {
		w := c.wants[name]
		if _, ok := c.done[name]; !ok && !seen[w.job] {
			seen[w.job] = true
			for _, t := range c.tasks(w.job) {
				reported[w.job+"."+t.ID] = t
			}
		}
		t, ok := c.done[name]
		if !ok {
			if t, ok = reported[name]; !ok {
				c.fail("task %s, which was taken, is not listed", name)
			}
			if t.State != string(job.TaskCompleted) {
				c.fail("task %s of a job that is over: %s", name, t)
			}
			c.done[name] = t
		}
		if why := c.judge(name, w, t, all); why != "" {
			c.fail("task %s (%s, %s, retries %d): %s\nreported: %s\nattempts: %+v", name, w.spec.Kind, w.spec.OnNodeLoss, w.spec.Retries, why, t, all[name])
		}
	}
}

// judge says what is wrong with a task's end; "": nothing.
func (c *chaos) judge(name string, w chaosWant, t apiTask, all map[string][]attemptRun) string {
	runs := all[name]
	for i, a := range runs {
		if i+1 == len(runs) {
			break
		}
		// What had come to a good end may run again only if something took
		// its shim or its node before its record was out of there.
		next := runs[i+1]
		if a.complete(w.spec) && !c.struck(a, next.started(), "shim", "short cut", "long cut", "destroy") {
			return "attempt " + a.id + " was finished, and " + next.id + " ran all the same"
		}
	}
	c.lapsed += c.unexplained(runs)
	last := attemptRun{}
	if len(runs) > 0 {
		last = runs[len(runs)-1]
	}
	if t.ExecutionInfo.Result == "success" {
		if !last.complete(w.spec) {
			return "reported as a success, and the last attempt did not come to its end"
		}
		return ""
	}
	// Failures need a reason.
	rank, loss := false, 0
	for _, a := range runs {
		rank = rank || c.struck(a, 0, "rank")
		if c.struck(a, 0, "shim", "short cut", "long cut", "destroy") {
			loss++
		}
	}
	switch cause := t.cause(); cause {
	case "", job.FailRank:
		// A task whose first run fails has a retry for that, and maybe one more.
		if !rank && !c.silent(name, t, all) {
			return "failed by itself, and no rank of it was killed"
		}
	case job.FailNodeLost, job.FailShimLost, job.FailPeerLost, job.FailLease:
		if w.spec.OnNodeLoss != job.NodeLossFail && t.ExecutionInfo.RequeueCount < 3 {
			return "given up for a loss, and its policy is another"
		}
		if loss == 0 && len(runs) > 0 && !c.anyLoss(last.started()) {
			return "given up for a loss, and nothing was lost"
		}
	default:
		return "failed for a reason that nothing here is"
	}
	return ""
}

// silent reports whether a rank was killed before it could write that it had
// started: an attempt that left no trace, on the host that the task's end names.
// A kill explains one task.
func (c *chaos) silent(name string, t apiTask, all map[string][]attemptRun) bool {
	traced := map[string]bool{}
	for _, runs := range all {
		for _, a := range runs {
			traced[a.id] = true
		}
	}
	for _, f := range c.faults {
		if f.kind == "rank" && !traced[f.attempt] && (f.explains == "" || f.explains == name) &&
			strings.Contains(t.String(), "on "+f.host+" was ended by signal 9") {
			f.explains = name
			return true
		}
	}
	return false
}

// unexplained counts attempts that neither failed as they were made to nor were
// struck by anything: their leases lapsed while launcher or agent were away.
func (c *chaos) unexplained(runs []attemptRun) int {
	n := 0
	for _, a := range runs[:max(0, len(runs)-1)] {
		failed := false
		for _, r := range a.ranks {
			failed = failed || r.code != 0
		}
		if !failed && !c.struck(a, 0, "shim", "rank", "short cut", "long cut", "destroy") {
			n++
		}
	}
	return n
}

// struck reports whether a fault of the kinds hit one of the attempt's nodes or
// the attempt itself between its start and before (0: any time).
func (c *chaos) struck(a attemptRun, before float64, kinds ...string) bool {
	for _, f := range c.faults {
		if !slices.Contains(kinds, f.kind) || before > 0 && f.at > before {
			continue
		}
		if f.attempt != "" {
			if f.attempt == a.id {
				return true
			}
			continue
		}
		// A host that was cut off can hold up a report until it is back.
		for _, r := range a.ranks {
			if f.host == r.node && (f.until == 0 || f.until >= r.start-1) && f.at <= max(r.end, r.start)+30 {
				return true
			}
		}
	}
	return false
}

// anyLoss: something was taken from the cluster around that time. An attempt
// that is lost before its program starts leaves no trace of where it was.
func (c *chaos) anyLoss(at float64) bool {
	return slices.ContainsFunc(c.faults, func(f *chaosFault) bool {
		return slices.Contains([]string{"shim", "short cut", "long cut", "destroy"}, f.kind) && f.at > at-60
	})
}

// nothingLeft fails unless no host has anything of a task any more.
func (c *chaos) nothingLeft() {
	var left []string
	deadline := time.Now().Add(10 * time.Second)
	for {
		left = c.left()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.fail("all is over, and there is still:\n%s", strings.Join(left, "\n"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *chaos) left() []string {
	var out []string
	for i := 1; i <= chaosHosts; i++ {
		procs, err := c.b.lab.Procs(i)
		if err != nil {
			c.t.Fatal(err)
		}
		agents := 0
		for _, p := range procs {
			if !p.Alive() {
				continue
			}
			if role("agent")(p) {
				agents++
			}
			if role("shim")(p) || variable(p, "GANGWAY_ID") != "" {
				out = append(out, fmt.Sprintf("n%d: process %d %q of attempt %s", i, p.PID, p.Args, variable(p, "GANGWAY_ID")))
			}
		}
		if agents > 1 {
			out = append(out, fmt.Sprintf("n%d: %d agents", i, agents))
		}
		root := filepath.Join(c.b.lab.Host(i).Root(), "tmp")
		files, err := os.ReadDir(root)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, f := range files {
			if n := f.Name(); strings.HasPrefix(n, "gangway-") && n != "gangway-agent-0" && n != "gangway-tasks-0" && n != "gangway-users-0" {
				out = append(out, fmt.Sprintf("n%d: /tmp/%s", i, n))
			}
		}
		for _, sub := range []string{"shims", "spool"} {
			files, _ := os.ReadDir(filepath.Join(root, "gangway-agent-0", sub))
			for _, f := range files {
				out = append(out, fmt.Sprintf("n%d: the agent's %s/%s", i, sub, f.Name()))
			}
		}
		if log, _ := os.ReadFile(filepath.Join(root, "gangway-agent-0", "log")); strings.Contains(string(log), "panic:") {
			c.fail("n%d: an agent or a shim has panicked:\n%s", i, log)
		}
	}
	return out
}
