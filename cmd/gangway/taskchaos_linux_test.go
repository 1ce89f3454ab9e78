package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/internal/lab"
	"gangway/launcher/job"
	"gangway/nodeagent/spool"
	"gangway/nodeagent/wire"
)

// Kills under a load of small tasks: a launcher that keeps its data, two hosts,
// and an array whose elements each append a line to their host's file. Launcher,
// agents and crews are killed at seeded fractions of the array's progress; what
// the elements wrote must add up at its end.
const (
	taskChaosHosts = 2
	// taskChaosApart is how many elements run at least between two kills, so that
	// the same ones do not lose their crew again and again: four times is the end.
	taskChaosApart = 400
	taskChaosStall = 90 * time.Second // without an element that runs: it hangs
)

// taskHost is where elements run: a host of the lab, or this machine.
type taskHost struct {
	name  string
	tmp   string // the agent's base, as the test sees it
	procs func() []lab.Proc
}

func (h *taskHost) agentDir() string {
	return filepath.Join(h.tmp, fmt.Sprintf("gangway-agent-%d", os.Geteuid()))
}

// execution names one run of an element.
type execution struct {
	index   uint64
	attempt uint32
}

// taskChaos is one seeded series of kills.
type taskChaos struct {
	*chaos // its launcher's connection; nothing of its rounds
	tasks  uint64
	rounds int
	hosts  []*taskHost
	script string // the program

	name     string // of the array's job
	arrays   int
	effects  string                // directory of what its elements wrote
	read     map[string]*lineCount // by file
	killed   int                   // rounds done, of all arrays
	lastKill uint64                // progress then
	// Of the array, from the spools of crews that were killed:
	recorded map[execution]int // result, with the round it was found in
	well     map[execution]bool
	lost     map[execution]int // begun and without a result
	history  []string
	reruns   int
}

// lineCount counts those of a file that grows.
type lineCount struct {
	at int64
	n  uint64
}

func taskChaosNumber(t *testing.T, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is no number", name, s)
	}
	return n
}

// TestTaskChaos makes TASKCHAOS_ROUNDS kills with TASKCHAOS_SEED under arrays of
// TASKCHAOS_TASKS elements, on this machine alone with TASKCHAOS_LOCAL=1; see make
// chaos-tasks.
func TestTaskChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("kills under a load of small tasks take a minute")
	}
	tasks, rounds := uint64(100_000), uint64(5)
	if raceEnabled {
		tasks, rounds = 10_000, 3 // each takes many times as long
	}
	c := newTaskChaos(t, taskChaosNumber(t, "TASKCHAOS_SEED", 1))
	c.tasks, c.rounds = taskChaosNumber(t, "TASKCHAOS_TASKS", tasks), int(taskChaosNumber(t, "TASKCHAOS_ROUNDS", rounds))
	c.up()
	c.await("every node is idle", 60*time.Second, func() bool {
		ready := 0
		for _, n := range c.nodes() {
			if n.State == "idle" {
				ready++
			}
		}
		return ready == len(c.hosts)
	})
	for from := time.Now(); c.killed < c.rounds || c.arrays == 0; from = time.Now() {
		before := c.killed
		c.array()
		c.load()
		c.judge()
		t.Logf("seed %d: array %d of %d elements, %d kills, %v: %d results in spools of dead crews, %d begun without, %d ran again",
			c.seed, c.arrays, c.tasks, c.killed-before, time.Since(from).Round(time.Millisecond), len(c.recorded), len(c.lost), c.reruns)
	}
	t.Logf("seed %d: %d kills, %v\n  %s", c.seed, c.killed, c.counts, strings.Join(c.history, "\n  "))
	c.keep()
	c.end()
}

func newTaskChaos(t *testing.T, seed uint64) *taskChaos {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler for the small task: .ci/deps.sh installs one")
	}
	b := &bed{t: t, bin: gangwayBinary(t)}
	program := filepath.Join(buildDir, "smalltask")
	if out, err := exec.Command(cc, "-O1", "-static", "-o", program, "testdata/smalltask.c").CombinedOutput(); err != nil {
		t.Fatalf("the small task: %v\n%s", err, out)
	}
	c := &taskChaos{chaos: &chaos{t: t, b: b, seed: seed, rng: rand.New(rand.NewPCG(seed, 6)), counts: map[string]int{}}, script: program}
	var base string
	if lab.Missing() != "" || os.Getenv("TASKCHAOS_LOCAL") != "" {
		if base, err = os.MkdirTemp("/tmp", "gwt"); err != nil {
			t.Fatal(err)
		}
		b.base = base
		c.hosts = []*taskHost{{name: "this machine", tmp: base, procs: func() []lab.Proc { return procsWith("GANGWAY_TMPDIR=" + base) }}}
		t.Cleanup(func() {
			for _, p := range procsWith("GANGWAY_TMPDIR=" + base) {
				_ = syscall.Kill(p.PID, syscall.SIGKILL)
			}
			_ = os.RemoveAll(base)
		})
	} else {
		b.lab = lab.New(t, taskChaosHosts, lab.Share(buildDir))
		base = b.lab.Dir()
		for i := 1; i <= taskChaosHosts; i++ {
			c.hosts = append(c.hosts, &taskHost{name: b.lab.Host(i).Name(), tmp: b.lab.Host(i).Root() + "/tmp", procs: func() []lab.Proc {
				all, err := b.lab.Procs(i)
				if err != nil {
					t.Fatal(err)
				}
				return all
			}})
		}
	}
	c.dir, c.socket = filepath.Join(base, "chaos"), filepath.Join(base, "up.sock")
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if c.log, err = os.Create(filepath.Join(c.dir, "launcher.log")); err != nil {
		t.Fatal(err)
	}
	c.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.socket)
		}}}
	t.Cleanup(c.cleanup)
	return c
}

// procsWith are this machine's processes with that in their environment.
func procsWith(variable string) []lab.Proc {
	var out []lab.Proc
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	split := func(b []byte) []string {
		if b = bytes.TrimRight(b, "\x00"); len(b) == 0 {
			return nil
		}
		return strings.Split(string(b), "\x00")
	}
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		env, _ := os.ReadFile(d + "/environ")
		if pid == os.Getpid() || !bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00")) {
			continue
		}
		args, _ := os.ReadFile(d + "/cmdline")
		stat, _ := os.ReadFile(d + "/stat")
		p := lab.Proc{PID: pid, InnerPID: pid, Env: split(env), Args: split(args), State: 'X'}
		if i := bytes.LastIndexByte(stat, ')'); i >= 0 && len(stat) > i+2 {
			p.State = stat[i+2]
		}
		out = append(out, p)
	}
	return out
}

// up starts the launcher, on the same data every time.
func (c *taskChaos) up() {
	c.t.Helper()
	fmt.Fprintf(c.log, "\n=== launcher after %d kills\n", c.killed)
	args := []string{"up", "--data", filepath.Join(c.dir, "data"), "--socket", c.socket, "--log-level", "debug",
		"--drain-after", "0"} // kills are nobody's fault
	if c.b.lab == nil {
		cmd := exec.Command(c.b.bin, args...)
		cmd.Env = append(os.Environ(), "GANGWAY_TMPDIR="+c.b.base)
		c.begin(cmd.Start, cmd.Wait, cmd)
	} else {
		cmd := c.b.lab.Launcher().Command(context.Background(), c.b.bin, append(args, "--hosts", fmt.Sprintf("n[1-%d]", taskChaosHosts))...)
		c.begin(cmd.Start, cmd.Wait, cmd.Cmd)
	}
	c.await("the launcher answers", 60*time.Second, func() bool {
		_, err := c.call(http.MethodGet, "/jobs?maxresults=1", nil, nil)
		return err == nil
	})
}

func (c *taskChaos) begin(start, wait func() error, cmd *exec.Cmd) {
	cmd.Stderr = c.log
	if err := start(); err != nil {
		c.t.Fatal(err)
	}
	c.chaos.up, c.ended = &lab.Cmd{Cmd: cmd}, make(chan error, 1)
	ended := c.ended
	go func() { ended <- wait() }()
}

// await waits until ok, and fails with what is known.
func (c *taskChaos) await(what string, limit time.Duration, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-c.ended:
			c.ended <- err
			c.fail("the launcher ended by itself: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			c.fail("after %v still not: %s", limit, what)
		}
	}
}

// fail ends the test with all that helps to find out why.
func (c *taskChaos) fail(format string, args ...any) {
	c.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, kill %d of %d, array %d (TASKCHAOS_SEED=%d TASKCHAOS_ROUNDS=%d TASKCHAOS_TASKS=%d): ",
		c.seed, c.killed, c.rounds, c.arrays, c.seed, c.rounds, c.tasks)
	fmt.Fprintf(&b, format, args...)
	b.WriteString("\nthe last kills:\n  " + strings.Join(c.history[max(0, len(c.history)-12):], "\n  "))
	b.WriteString("\n" + c.keep())
	c.t.Fatal(b.String())
}

// keep copies the side effects, the logs and the data, if that is asked for.
func (c *taskChaos) keep() string {
	keep := os.Getenv("CHAOS_KEEP")
	if keep == "" {
		return "CHAOS_KEEP=DIR keeps the logs"
	}
	to := filepath.Join(keep, fmt.Sprintf("taskchaos-%d", c.seed))
	_ = os.RemoveAll(to)
	_ = os.MkdirAll(to, 0o755)
	_ = exec.Command("cp", "-a", c.dir+"/.", to).Run()
	for _, h := range c.hosts {
		_ = exec.Command("cp", "-a", h.agentDir(), filepath.Join(to, h.name)).Run()
	}
	_ = os.WriteFile(filepath.Join(to, "kills"), []byte(strings.Join(c.history, "\n")+"\n"), 0o644)
	return "logs are in " + to
}

// array submits the next array.
func (c *taskChaos) array() {
	c.arrays++
	c.name = fmt.Sprintf("a%d", c.arrays)
	c.effects = filepath.Join(c.dir, c.name)
	if err := os.Mkdir(c.effects, 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.read, c.lastKill, c.reruns = map[string]*lineCount{}, 0, 0
	c.recorded, c.well, c.lost = map[execution]int{}, map[execution]bool{}, map[execution]int{}
	spec := job.Spec{ID: c.name, Tasks: []job.TaskSpec{{ID: "A", Kind: job.Single, Range: job.Range{Lo: 1, Hi: c.tasks + 1}, MPI: "none", WorkDir: "/",
		Retries: 2, OnNodeLoss: job.NodeLossRequeue, Command: []string{c.script, c.effects, strconv.FormatUint(c.seed, 10)}}}}
	c.await("job "+c.name+" is taken", 20*time.Second, func() bool {
		status, err := c.call(http.MethodPost, "/gangway/v1/jobs", spec, nil)
		if err != nil && status != 0 && status != http.StatusConflict {
			c.fail("job %s: %d %v", spec.ID, status, err)
		}
		return err == nil || status == http.StatusConflict
	})
}

// progress is how many lines the elements have written.
func (c *taskChaos) progress() uint64 {
	var n uint64
	files, _ := filepath.Glob(filepath.Join(c.effects, "effects.*"))
	buf := make([]byte, 256<<10)
	for _, name := range files {
		l := c.read[name]
		if l == nil {
			l = new(lineCount)
			c.read[name] = l
		}
		if f, err := os.Open(name); err == nil {
			for {
				k, err := f.ReadAt(buf, l.at)
				l.at += int64(k)
				l.n += uint64(bytes.Count(buf[:k], []byte{'\n'}))
				if err != nil {
					break
				}
			}
			_ = f.Close()
		}
		n += l.n
	}
	return n
}

// load kills what the plan says until the array is over.
func (c *taskChaos) load() {
	left := c.rounds - c.killed
	at := make([]uint64, left) // progress of each kill, in order
	for i := range at {
		at[i] = uint64((float64(i) + c.rng.Float64()) / float64(left) * 0.95 * float64(c.tasks))
	}
	most, since := uint64(0), time.Now()
	for {
		n := c.progress()
		if n > most {
			most, since = n, time.Now()
		}
		if len(at) > 0 && n >= at[0] && n >= c.lastKill+taskChaosApart {
			at = at[1:]
			c.kill()
			c.lastKill = c.progress()
			continue
		}
		if n >= c.tasks {
			var j struct{ State string }
			if _, err := c.call(http.MethodGet, "/jobs/"+c.name, nil, &j); err == nil && j.State == string(job.JobCompleted) {
				return
			}
		}
		select {
		case err := <-c.ended:
			c.ended <- err
			c.fail("the launcher ended by itself: %v", err)
		default:
		}
		if time.Since(since) > taskChaosStall {
			c.fail("the array does not end; %d lines after %v without another:%s", n, taskChaosStall, c.open())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// open describes what is not over.
func (c *taskChaos) open() string {
	var b strings.Builder
	for _, path := range []string{"/jobs/" + c.name + "/taskcounts", "/pools/default/nodes", "/gangway/v1/jobs/" + c.name + "/tasks/A/explain"} {
		var got any
		_, err := c.call(http.MethodGet, path, nil, &got)
		text, _ := json.Marshal(got)
		fmt.Fprintf(&b, "\n%s: %s %v", path, text, err)
	}
	for _, h := range c.hosts {
		for _, p := range h.procs() {
			if p.Alive() && (variable(p, "GANGWAY_ID") != "" || role("agent")(p) || role("shim")(p)) {
				fmt.Fprintf(&b, "\n%s: process %d %q of %s", h.name, p.PID, p.Args, variable(p, "GANGWAY_ID"))
				if role("shim")(p) || role("agent")(p) { // where it hangs goes to the log
					_ = syscall.Kill(p.PID, syscall.SIGQUIT)
				}
			}
		}
	}
	return b.String()
}

// kill ends one thing, or two shortly after each other: what takes up the work of
// one that was killed may be killed itself.
func (c *taskChaos) kill() {
	kinds := []string{"launcher", "launcher", "agent", "agent", "shim", "shim", "shim",
		"shim+agent", "shim+launcher", "launcher+shim", "launcher+agent"}
	kind := kinds[c.rng.IntN(len(kinds))]
	h := c.hosts[c.rng.IntN(len(c.hosts))]
	pause := time.Duration(c.rng.IntN(60)) * time.Millisecond
	c.killed++
	launcherGone := false
	for i, what := range strings.Split(kind, "+") {
		if i > 0 {
			time.Sleep(pause)
		}
		switch what {
		case "launcher":
			c.note("launcher")
			_ = c.chaos.up.Process.Kill()
			<-c.ended
			c.ended <- nil
			launcherGone = true
		case "agent":
			agent, ok := c.agent(h)
			if !ok {
				c.note("no agent on %s", h.name)
				kind += ", no agent"
				break
			}
			c.note("agent %d of %s", agent.PID, h.name)
			_ = syscall.Kill(agent.PID, syscall.SIGKILL)
		case "shim":
			id, results, begun, ok := c.killCrew(h)
			if !ok {
				c.note("no crew on %s", h.name)
				kind += ", no crew"
				break
			}
			c.note("crew %s of %s: %d results in its spool, %d begun without", id, h.name, results, begun)
		}
	}
	c.counts[kind]++
	if launcherGone {
		c.up()
	}
}

// note writes down what was done.
func (c *taskChaos) note(format string, args ...any) {
	c.history = append(c.history, fmt.Sprintf("%d, array %d at %d, uptime %.2f: %s", c.killed, c.arrays, c.progress(), uptime(c.t), fmt.Sprintf(format, args...)))
	fmt.Fprintf(c.log, "=== %s\n", c.history[len(c.history)-1])
}

// agent waits for a host's agent.
func (c *taskChaos) agent(h *taskHost) (lab.Proc, bool) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, p := range h.procs() {
			if p.Alive() && role("agent")(p) {
				return p, true
			}
		}
	}
	return lab.Proc{}, false
}

// crews waits for a host's crews, by id.
func (c *taskChaos) crews(h *taskHost) map[string]lab.Proc {
	out := map[string]lab.Proc{}
	for deadline := time.Now().Add(10 * time.Second); len(out) == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		pids := map[int]lab.Proc{}
		for _, p := range h.procs() {
			if p.Alive() && role("shim")(p) {
				pids[p.InnerPID] = p
			}
		}
		files, _ := filepath.Glob(filepath.Join(h.agentDir(), "shims", "*.json"))
		for _, name := range files {
			var e struct {
				ID        string
				PID, Crew int
			}
			if b, err := os.ReadFile(name); err == nil && json.Unmarshal(b, &e) == nil && e.Crew > 0 {
				if p, ok := pids[e.PID]; ok {
					out[e.ID] = p
				}
			}
		}
	}
	return out
}

// killCrew kills a crew while its agent can't see it, and reads what its spool
// says then.
func (c *taskChaos) killCrew(h *taskHost) (id string, results, begun int, ok bool) {
	crews := c.crews(h)
	agent, have := c.agent(h)
	if len(crews) == 0 || !have {
		return "", 0, 0, false
	}
	if err := syscall.Kill(agent.PID, syscall.SIGSTOP); err != nil {
		return "", 0, 0, false
	}
	defer func() { _ = syscall.Kill(agent.PID, syscall.SIGCONT) }()
	ids := slices.Sorted(maps.Keys(crews))
	id = ids[len(ids)-1]
	p := crews[id]
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.t.Fatal(err)
	}
	waitFor(c.t, "the killed crew is gone", 10*time.Second, func() bool {
		return !slices.ContainsFunc(h.procs(), func(q lab.Proc) bool { return q.PID == p.PID && q.Alive() })
	})
	records, err := spool.Read(filepath.Join(h.agentDir(), "spool"), id)
	if err != nil {
		c.fail("the spool of crew %s: %v", id, err)
	}
	open := map[execution]bool{}
	for _, f := range records {
		b := f.GetFrom().GetBlock()
		var ends []*wire.Ending // of each element of the block
		for _, e := range b.GetEndings() {
			ends = append(ends, slices.Repeat([]*wire.Ending{e}, int(e.GetCount()))...)
		}
		for _, r := range b.GetRuns() {
			for i := r.GetRange().GetLo(); i < r.GetRange().GetHi(); i++ {
				x := execution{i, r.GetAttempt()}
				if b.GetSeq() == 0 {
					open[x] = true
					continue
				}
				if len(ends) == 0 {
					c.fail("block %d of crew %s has more elements than ends", b.GetSeq(), id)
				}
				e := ends[0]
				ends = ends[1:]
				results++
				c.recorded[x] = c.killed
				c.well[x] = e.GetExitCode() == 0 && e.GetSignal() == 0 && e.GetFailure() == nil
				delete(open, x)
			}
		}
		for _, r := range b.GetReturned() {
			for i := r.GetRange().GetLo(); i < r.GetRange().GetHi(); i++ {
				delete(open, execution{i, r.GetAttempt()})
			}
		}
	}
	for x := range open {
		c.lost[x] = c.killed
	}
	return id, results, len(open), true
}
