package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/internal/lab"
	"gangway/launcher/job"
	"gangway/launcher/store"
)

// Kill tests: a real MPI program is caught in the middle of MPI_Init, of a
// collective or of MPI_Finalize, and something under it is killed. KILLS=all
// makes every combination; without it those of killShort are made.

// killLimit bounds how long a gang may outlive what was killed under it; a host
// that is silent is given up after killSilent.
const (
	killLimit  = 2 * time.Second
	killSilent = 10 * time.Second
	killLease  = 5 * time.Second
	killHosts  = 4 // one more than the gang has, so that it can do without one
	killRanks  = 3 // one a host; the last one stays out of the call
)

// killWay is an MPI and how its ranks are started.
type killWay struct{ cc, mpi, launch string }

func (w killWay) String() string { return w.mpi + " " + w.launch }

func killWays() []killWay {
	ways := []killWay{{"mpicc.mpich", "mpich", "mpirun"}, {"mpicc.openmpi", "openmpi", "mpirun"}}
	if strings.Contains(launchModes(), "pmi") {
		ways = append(ways, killWay{"mpicc.mpich", "mpich", "pmi"}, killWay{"../../.cache/venv-intel/bin/mpicc", "intel", "pmi"})
	}
	return ways
}

// launchModes is what --launch takes.
func launchModes() string { return newRunCommand(&app{}).Flag("launch").Usage }

// killed is a way of killing. do is given the host of the victim.
type killed struct {
	name   string
	do     func(g *caught)
	within time.Duration
	rank   bool      // a rank is to blame, else only a node
	death  job.Death // as the autopsy calls it
}

func kills() []killed {
	return []killed{
		{"rank", func(g *caught) { g.kill(program("phases")) }, killLimit, true, job.DeathKilled},
		{"shim", func(g *caught) { g.kill(role("shim")) }, killLimit, false, job.DeathShim},
		{"host cut off", func(g *caught) { g.must(g.s.lab.Cut(g.host)) }, killSilent, false, job.DeathSilent},
		{"host destroyed", func(g *caught) { g.must(g.s.lab.Destroy(g.host)) }, killSilent, false, job.DeathSilent},
	}
}

// killShort are the cases of a short run: the way's mpi and launch, the phase, the
// kill, and the victim's rank.
var killShort = []string{
	"mpich mpirun/init/rank/1", "mpich pmi/init/shim/1", "mpich pmi/collective/rank/1", "openmpi mpirun/finalize/shim/1", "mpich pmi/finalize/host destroyed/1",
}

var killPhases = []string{"init", "collective", "finalize"}

func TestKills(t *testing.T) {
	all := os.Getenv("KILLS") == "all"
	for _, w := range killWays() {
		for _, phase := range killPhases {
			for _, k := range kills() {
				// Rank 0 is on the primary: with mpirun, mpirun is there too.
				for _, victim := range []int{1, 0} {
					name := fmt.Sprintf("%v/%s/%s/%d", w, phase, k.name, victim)
					if !all && !slices.Contains(killShort, name) {
						continue
					}
					t.Run(name, func(t *testing.T) { killOne(t, w, phase, k, victim) })
				}
			}
		}
	}
}

// TestKillsOfLauncherAndAgents: a running gang is not touched by the death of an
// agent, nor of the launcher and all agents at once, wherever it is in MPI.
func TestKillsOfLauncherAndAgents(t *testing.T) {
	for _, w := range killWays() {
		for _, phase := range killPhases {
			for _, everything := range []bool{false, true} {
				if os.Getenv("KILLS") != "all" && (phase != "collective" || w.mpi != "mpich" || !everything) {
					continue
				}
				t.Run(fmt.Sprintf("%v/%s/launcher %v", w, phase, everything), func(t *testing.T) {
					g := catch(t, w, phase, 1)
					if everything {
						g.must(g.s.Process.Kill())
						<-g.s.done
					}
					for i := 1; i <= killHosts; i++ {
						if !everything && i != g.host {
							continue
						}
						for _, p := range g.s.find(i, role("agent")) {
							g.must(syscall.Kill(p.PID, syscall.SIGKILL))
						}
					}
					if everything {
						g.s = g.s.bed.up(g.s.data, "--hosts", fmt.Sprintf("n[1-%d]", killHosts), "--lease", killLease.String())
					} else {
						waitFor(t, "there is an agent again", 30*time.Second, func() bool { return len(g.s.find(g.host, role("agent"))) > 0 })
					}
					if left := g.left(); len(left) != len(g.procs) {
						t.Errorf("of the gang's %d processes %d are there after the kills: %q", len(g.procs), len(left), left)
					}
					g.mark("gate")
					g.succeeds(0, 0)
				})
			}
		}
	}
}

// caught is a gang whose ranks are in the middle of something.
type caught struct {
	t      *testing.T
	s      *daemon
	dir    string
	host   int              // of the victim
	victim int              // rank
	procs  map[int]lab.Proc // of the gang, on all hosts, by the process's id here
	at     map[int]int      // process → host
	since  map[int]string   // process → when it was started, as the kernel tells it
}

func (g *caught) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *caught) mark(name string) {
	g.t.Helper()
	g.must(os.WriteFile(filepath.Join(g.dir, name), nil, 0o644))
}

// kill ends the first process of the victim's host that matches.
func (g *caught) kill(match func(lab.Proc) bool) {
	g.t.Helper()
	for pid, p := range g.procs {
		if g.at[pid] == g.host && match(p) {
			g.must(syscall.Kill(pid, syscall.SIGKILL))
			return
		}
	}
	g.t.Fatalf("nothing to kill on n%d", g.host)
}

// ask runs a command of gangway's against the launcher and decodes its answer.
func (g *caught) ask(into any, args ...string) error {
	ctx, cancel := context.WithTimeout(g.t.Context(), 20*time.Second)
	defer cancel()
	c := g.s.lab.Launcher().Command(ctx, g.s.bin, append([]string{"--json"}, append(args, "--launcher", "unix:"+g.s.socket)...)...)
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("gangway %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return json.Unmarshal(out, into)
}

// catch starts a launcher on lab hosts and a gang, and waits until the gang's
// ranks are inside the call.
func catch(t *testing.T, w killWay, phase string, victim int) *caught {
	t.Helper()
	prog := phases(t, w.cc)
	if why := lab.Missing(); why != "" {
		t.Skip(why)
	}
	b := &bed{t: t, bin: gangwayBinary(t), limit: 10 * time.Minute, lab: lab.New(t, killHosts, lab.Share(buildDir))}
	s := b.up(filepath.Join(b.lab.Dir(), "data"), "--hosts", fmt.Sprintf("n[1-%d]", killHosts), "--lease", killLease.String())
	g := &caught{t: t, s: s, dir: filepath.Join(b.lab.Dir(), "phases"), victim: victim, procs: map[int]lab.Proc{}, at: map[int]int{}, since: map[int]string{}}
	g.must(os.Mkdir(g.dir, 0o755))
	b.want(0, slices.Concat([]string{"submit", "--launcher", "unix:" + s.socket, "--name", "g", "--exact", "--retries", "1", "-N", strconv.Itoa(killRanks), "--ppn", "1",
		"--mpi", w.mpi, "--launch", w.launch, "-D", "/", "-x", "UCX_TLS=tcp,self", "-x", "UCX_NET_DEVICES=eth0", "-x", "OMPI_MCA_btl=tcp,self"},
		mpiLibs(w.cc), []string{"--", prog, phase, g.dir})...)
	waitFor(t, "all ranks are at "+phase, time.Minute, func() bool {
		for r := range killRanks {
			if _, err := os.Stat(filepath.Join(g.dir, strconv.Itoa(r))); err != nil {
				return false
			}
		}
		return true
	})
	for i := 1; i <= killHosts; i++ {
		for _, p := range b.find(i, func(p lab.Proc) bool {
			return !role("agent")(p) && !role("bridge")(p) && !strings.HasPrefix(p.Args[0], "sshd")
		}) {
			g.procs[p.PID], g.at[p.PID], g.since[p.PID] = p, i, startOf(p.PID)
			if slices.Contains(p.Env, "GANGWAY_RANK="+strconv.Itoa(victim)) && program("phases")(p) {
				g.host = i
			}
			if program("phases")(p) && !slices.Contains(p.Env, "GANGWAY_RANK="+strconv.Itoa(killRanks-1)) {
				waitFor(t, fmt.Sprintf("the rank on n%d is inside", i), 20*time.Second, func() bool { return inside(p.PID) })
			}
		}
	}
	if g.host == 0 {
		t.Fatalf("rank %d is on no host: %v", victim, g.procs)
	}
	return g
}

// inside tells a process that waits in a call of the MPI library (it polls a
// socket, or has spun for a while) from one that is on its way there.
func inside(pid int) bool {
	waits := func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		nr, _, _ := strings.Cut(string(b), " ")
		switch nr {
		case strconv.Itoa(syscall.SYS_READ), strconv.Itoa(syscall.SYS_POLL), strconv.Itoa(syscall.SYS_RECVFROM), strconv.Itoa(syscall.SYS_RECVMSG),
			strconv.Itoa(syscall.SYS_EPOLL_WAIT), strconv.Itoa(syscall.SYS_EPOLL_PWAIT), strconv.Itoa(syscall.SYS_PPOLL), strconv.Itoa(syscall.SYS_SELECT), strconv.Itoa(syscall.SYS_FUTEX), strconv.Itoa(syscall.SYS_NANOSLEEP), strconv.Itoa(syscall.SYS_CLOCK_NANOSLEEP):
			return true
		}
		return false
	}
	ticks := func() int {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 13 {
			return 0
		}
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		return user + system
	}
	before := ticks()
	for range 5 {
		if !waits() {
			return ticks()-before >= 3 || func() bool { time.Sleep(100 * time.Millisecond); return ticks()-before >= 3 }()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// startOf is when a process was started, in ticks since boot; "": it is dead or gone.
// It tells a process from a later one with the same id.
func startOf(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return ""
	}
	return f[19]
}

// left are the gang's processes that still live.
func (g *caught) left() []string {
	var out []string
	for pid, p := range g.procs {
		if at := startOf(pid); at != "" && at == g.since[pid] {
			out = append(out, fmt.Sprintf("n%d: process %d %q", g.at[pid], pid, p.Args))
		}
	}
	return out
}

func killOne(t *testing.T, w killWay, phase string, k killed, victim int) {
	g := catch(t, w, phase, victim)
	g.mark("killed")
	from := time.Now()
	k.do(g)
	work := func() []string {
		return slices.DeleteFunc(g.left(), func(s string) bool { return strings.Contains(s, `"shim"`) })
	}
	defer func() {
		if left := work(); t.Failed() && len(left) > 0 {
			t.Logf("left: %q\n%s", left, g.s.process.err)
		}
	}()
	waitFor(t, "no process of the gang is left", 30*time.Second, func() bool { return len(work()) == 0 })
	gone := time.Since(from)
	if gone > k.within {
		t.Errorf("the gang was gone %v after %s, want %v", gone, k.name, k.within)
	}
	if k.name == "host cut off" {
		g.must(g.s.lab.Mend(g.host))
	}
	retries, requeues := 0, 1
	if k.rank {
		retries, requeues = 1, 0
	}
	g.succeeds(retries, requeues)
	took := time.Since(from)
	g.blames(k, w, phase)
	t.Logf("gone after %v, all well after %v", gone.Round(10*time.Millisecond), took.Round(10*time.Millisecond))
}

// succeeds waits for the job's good end, with so many tries again.
func (g *caught) succeeds(retries, requeues int) {
	g.t.Helper()
	var x struct {
		State     string `json:"state"`
		Execution struct {
			Result   string `json:"result"`
			Retries  int    `json:"retryCount"`
			Requeues int    `json:"requeueCount"`
		} `json:"executionInfo"`
	}
	deadline := time.Now().Add(90 * time.Second)
	var err error
	for err = g.ask(&x, "task", "show", "g"); err != nil || x.State != "completed"; err = g.ask(&x, "task", "show", "g") {
		if time.Now().After(deadline) {
			g.t.Fatalf("the job has not ended: %+v %v\n%s", x, err, g.s.process.err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if x.Execution.Result != "success" || x.Execution.Retries != retries || x.Execution.Requeues != requeues {
		g.t.Errorf("the job's end: %+v, want success with %d retries and %d requeues\n%s", x, retries, requeues, g.s.process.err)
	}
	var out string
	waitFor(g.t, "all of the gang's nodes can be asked for its output", 30*time.Second, func() bool {
		var status int
		out, _, status = g.s.bed.run("task", "logs", "g", "--launcher", "unix:"+g.s.socket)
		return status == 0
	})
	if want := fmt.Sprintf("sum %d of %d ranks\n", killRanks*(killRanks-1)/2, killRanks); out != want {
		g.t.Errorf("its output is %q, want %q", out, want)
	}
}

// mpiRoot is where the MPI of a compiler is, without links: lab hosts have a /tmp
// of their own.
func mpiRoot(cc string) string {
	root, err := filepath.Abs(filepath.Dir(filepath.Dir(cc)))
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(root); err == nil {
		return real
	}
	return root
}

// mpiLibs makes ranks find the libraries of an MPI that is not the system's.
func mpiLibs(cc string) []string {
	if !strings.Contains(cc, "/") {
		return nil
	}
	return []string{"-x", "I_MPI_ROOT=" + mpiRoot(cc), "-x", "LD_LIBRARY_PATH=" + mpiRoot(cc) + "/lib", "-x", "FI_PROVIDER=tcp"}
}

// phases compiles testdata/phases.c, or skips.
func phases(t *testing.T, mpicc string) string {
	t.Helper()
	cc, err := exec.LookPath(mpicc)
	if err != nil {
		t.Skipf("%s is not installed: .ci/deps.sh does it", mpicc)
	}
	if p, ok := compiled.Load("phases " + cc); ok {
		return p.(string)
	}
	dir, err := os.MkdirTemp(buildDir, "phases")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "phases")
	c := exec.Command(cc, "-O1", "-o", out, "testdata/phases.c")
	c.Env = append(os.Environ(), "I_MPI_ROOT="+mpiRoot(cc)) // Intel's compilers look there
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mpicc, err, b)
	}
	compiled.Store("phases "+cc, out)
	return out
}

// blames checks what is told of the gang's death, and what the launcher has
// stored of it: it is laid to the right rank and node, and where a node is at
// fault the next try was without it.
func (g *caught) blames(k killed, w killWay, phase string) {
	g.t.Helper()
	node, rank := "n"+strconv.Itoa(g.host), -1
	if k.rank {
		rank = g.victim
	}
	right := func(where string, a *job.Autopsy) {
		g.t.Helper()
		if a == nil {
			g.t.Errorf("no autopsy %s", where)
			return
		}
		g.t.Logf("%s: %s", where, a.Headline())
		if a.Death != k.death || a.Rank != rank || a.Node != node {
			g.t.Errorf("%s: the autopsy has %+v, want %s of rank %d on %s", where, *a, k.death, rank, node)
		}
		if len(a.Suspects) != 1 || a.Suspects[0].Node != node {
			g.t.Errorf("%s: it suspects %v, want %s", where, a.Suspects, node)
		}
		// MPICH's ranks wait for each other over their own network at first in
		// MPI_Finalize, which no PMI server sees.
		at := map[string][]string{"init": {"init"}, "collective": {"running"}, "finalize": {"finalize", "running"}}[phase]
		if w.mpi == "intel" {
			at = append(at, "start") // it looks at the machine at length before its first word to PMI
		}
		if w.launch != "pmi" {
			at = []string{""}
		}
		if k.rank && !slices.Contains(at, a.Phase) {
			g.t.Errorf("%s: the rank died in phase %q, want %q", where, a.Phase, at)
		}
	}
	var told job.Report
	g.must(g.ask(&told, "task", "autopsy", "g", "--attempt", "1"))
	right("told", &told.Autopsy)
	g.s.stop()
	st, err := store.Open(g.s.data, store.Options{})
	g.must(err)
	defer st.Close()
	rows, err := st.Load()
	g.must(err)
	var first job.AttemptRow
	for _, r := range rows {
		if r.Table == job.TableAutopsy && job.AttemptNumber(r.Key) == 1 {
			g.must(r.Decode(&first))
		}
	}
	if len(first.Parts) != killRanks {
		g.t.Fatalf("no record of the first attempt: %+v", first)
	}
	right("stored", first.Diagnose())
	b, err := os.ReadFile(filepath.Join(g.dir, "used"))
	g.must(err)
	if n := strings.Fields(string(b)); slices.Contains(n, node) || len(n) != killRanks {
		g.t.Errorf("the second try was on %v, the suspect is %s", n, node)
	}
	if k.rank {
		res := first.Parts[0].Results
		i := slices.IndexFunc(first.Parts, func(p job.PartRow) bool { return g.victim >= p.FirstRank && g.victim < p.FirstRank+p.Ranks })
		if len(res) == 0 || res[0].FirstRank != g.victim || res[0].Signal != int(syscall.SIGKILL) || first.Parts[i].Node != node {
			g.t.Errorf("rank %d on %s was killed, the record has %+v", g.victim, node, res)
		}
		return
	}
	said := fmt.Sprint(first.Verdict)
	if first.Verdict != nil && first.Verdict.Reason != nil {
		said = first.Verdict.Reason.String()
	}
	if !regexp.MustCompile(`\b` + node + `\b`).MatchString(said) {
		g.t.Errorf("%s was lost, the record has: %s", node, said)
	}
}
