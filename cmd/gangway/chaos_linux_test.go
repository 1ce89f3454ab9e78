package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
)

// Chaos rounds: a launcher with hosts by ssh runs gangs and single tasks while
// things are killed, cut off and destroyed under it. The tasks write down what
// they do; every few rounds all of it must add up.
const (
	chaosHosts = 3
	chaosLease = 3 * time.Second
	chaosOpen  = 12 // jobs under way
	chaosCheck = 8  // rounds between checks
)

// chaosTask is what every rank runs: $1 is the directory of the side effects, $2
// the task's name, $3 how long it sleeps, $4 is 1 when its first run is to fail.
// Every rank holds a lock of its own while anything of it lives, and looks for
// those of the same task's other attempts: the hosts share the file system, and
// the locks with it.
const chaosTask = `d=$1 name=$2 nap=$3 fail=$4
a=$GANGWAY_ID r=${GANGWAY_RANK:-0}
note() { read -r up _ </proc/uptime; echo "$1 $name $a $r $GANGWAY_NODE $up $2" >>"$d/log"; }
mkdir -p "$d/$name"
exec 9>>"$d/$name/$a.$r"
flock -x -w 2 9 || note double "the same rank"
for f in "$d/$name"/*.*; do
  case $f in
  "$d/$name/$a".*) ;;
  *) flock -n -s "$f" true || note double "${f##*/}" ;;
  esac
done
note start -
sleep "$nap"
code=0
if [ "$fail" = 1 ] && [ "$r" = 0 ] && mkdir "$d/$name/failed" 2>/dev/null; then code=3; fi
note end $code
exit $code
`

// chaosFault is something that was done to the cluster.
type chaosFault struct {
	at       float64 // seconds of uptime
	until    float64 // it was undone; 0: not yet, or there is nothing to undo
	kind     string
	host     string // "": the launcher
	attempt  string // of a shim or a rank
	explains string // the task whose end it explains, though the attempt wrote nothing
}

func (f chaosFault) String() string {
	return strings.TrimSpace(fmt.Sprintf("%.2f %s %s %s", f.at, f.kind, f.host, f.attempt))
}

// chaosWant is a task as it was submitted.
type chaosWant struct {
	job, id string
	spec    job.TaskSpec
	fails   bool // its first run exits with 3
}

// chaos is one seeded series of rounds.
type chaos struct {
	t      *testing.T
	b      *bed
	seed   uint64
	rng    *rand.Rand
	round  int
	dir    string // of the side effects
	socket string
	log    *os.File // of the launchers
	http   *http.Client

	up     *lab.Cmd // the launcher
	ended  chan error
	out    map[int]chaosOut // hosts that are away
	faults []*chaosFault
	wants  map[string]chaosWant // by job.task
	order  []string             // its keys, as submitted
	open   map[string]bool      // jobs not seen completed
	done   map[string]apiTask   // what was reported of completed tasks
	jobs   int
	counts map[string]int
	lapsed int // attempts that ended for no fault of theirs or ours: see unexplained
}

// chaosOut is a host that is away.
type chaosOut struct {
	back      time.Time
	destroyed bool
	fault     *chaosFault
}

// TestChaos runs CHAOS_ROUNDS rounds with CHAOS_SEED; see make chaos.
func TestChaos(t *testing.T) {
	rounds, seed := 15, uint64(1)
	if raceEnabled {
		rounds = 5 // each takes four times as long
	}
	if s := os.Getenv("CHAOS_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("CHAOS_ROUNDS=%q is no number", s)
		}
		rounds = n
	}
	if s := os.Getenv("CHAOS_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("CHAOS_SEED=%q is no number", s)
		}
		seed = n
	}
	if testing.Short() {
		t.Skip("chaos rounds take a minute")
	}
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("no flock command (package util-linux)")
	}
	c := newChaos(t, seed)
	c.start()
	c.quiet() // before anything is broken
	for c.round = 1; c.round <= rounds; c.round++ {
		c.step()
		if c.round%chaosCheck == 0 || c.round == rounds {
			c.quiet()
		}
	}
	t.Logf("seed %d: %d rounds, %d tasks, %d leases lapsed without a cut, %v", seed, rounds, len(c.wants), c.lapsed, c.counts)
	c.finish()
}

func newChaos(t *testing.T, seed uint64) *chaos {
	t.Helper()
	if why := lab.Missing(); why != "" {
		t.Skip(why)
	}
	bin := gangwayBinary(t)
	b := &bed{t: t, bin: bin, lab: lab.New(t, chaosHosts, lab.Share(buildDir))}
	c := &chaos{t: t, b: b, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), dir: filepath.Join(b.lab.Dir(), "chaos"),
		socket: filepath.Join(b.lab.Dir(), "up.sock"), out: map[int]chaosOut{}, wants: map[string]chaosWant{}, open: map[string]bool{},
		done: map[string]apiTask{}, counts: map[string]int{}}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "task.sh"), []byte(chaosTask), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
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

// fail ends the test with all that helps to find out why.
func (c *chaos) fail(format string, args ...any) {
	c.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, round %d: ", c.seed, c.round)
	fmt.Fprintf(&b, format, args...)
	b.WriteString("\nthe last faults:\n")
	for _, f := range c.faults[max(0, len(c.faults)-12):] {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	if keep := os.Getenv("CHAOS_KEEP"); keep != "" {
		to := filepath.Join(keep, fmt.Sprintf("chaos-%d", c.seed))
		c.keep(to)
		b.WriteString("logs are in " + to)
	} else {
		b.WriteString("CHAOS_KEEP=DIR keeps the logs")
	}
	c.t.Fatal(b.String())
}

// keep copies the side effects, the logs and the data.
func (c *chaos) keep(to string) {
	_ = os.RemoveAll(to)
	_ = os.MkdirAll(to, 0o755)
	_ = exec.Command("cp", "-a", c.dir+"/.", to).Run()
	for i := 1; i <= chaosHosts; i++ {
		if _, away := c.out[i]; !away {
			_ = exec.Command("cp", "-a", c.b.lab.Host(i).Root()+"/tmp/gangway-agent-0", filepath.Join(to, c.b.lab.Host(i).Name())).Run()
		}
	}
	var b strings.Builder
	for _, f := range c.faults {
		fmt.Fprintf(&b, "%s until %.2f\n", f, f.until)
	}
	_ = os.WriteFile(filepath.Join(to, "faults"), []byte(b.String()), 0o644)
}

func (c *chaos) cleanup() {
	if c.up != nil {
		_ = c.up.Process.Kill()
		<-c.ended
	}
	_ = c.log.Close()
}

// finish ends the launcher: jobs are over, so nothing but agents is left.
func (c *chaos) finish() {
	_ = c.up.Process.Signal(os.Interrupt)
	select {
	case <-c.ended:
		c.ended <- nil
	case <-time.After(20 * time.Second):
		c.fail("the launcher did not end within 20 s of SIGINT")
	}
}

// start starts the launcher.
func (c *chaos) start() {
	c.t.Helper()
	fmt.Fprintf(c.log, "\n=== launcher at uptime %.2f, round %d\n", uptime(c.t), c.round)
	cmd := c.b.lab.Launcher().Command(context.Background(), c.b.bin, "up", "--hosts", fmt.Sprintf("n[1-%d]", chaosHosts),
		"--data", filepath.Join(c.dir, "data"), "--socket", c.socket, "--lease", chaosLease.String(), "--log-level", "debug")
	cmd.Stderr = c.log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.up, c.ended = cmd, make(chan error, 1)
	ended := c.ended
	go func() { ended <- cmd.Wait() }()
	c.waitFor("the launcher answers", 20*time.Second, func() bool {
		_, err := c.call(http.MethodGet, "/jobs?maxresults=1", nil, nil)
		return err == nil
	})
}

func (c *chaos) waitFor(what string, limit time.Duration, ok func() bool) {
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

// call asks the launcher; a status of 300 or more is an error of its body.
func (c *chaos) call(method, path string, body, into any) (int, error) {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://launcher"+path+sep+"api-version=2024-07-01.20.0", in)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode >= 300 {
		return resp.StatusCode, errors.New(string(b))
	}
	if into != nil {
		return resp.StatusCode, json.Unmarshal(b, into)
	}
	return resp.StatusCode, nil
}

// submit sends a job until the launcher has it: it may be killed at any moment,
// also between its commit and its answer.
func (c *chaos) submit(spec job.Spec) {
	c.t.Helper()
	c.waitFor("job "+spec.ID+" is taken", 20*time.Second, func() bool {
		status, err := c.call(http.MethodPost, "/gangway/v1/jobs", spec, nil)
		if err != nil && status != 0 && status != http.StatusConflict {
			c.fail("job %s: %d %v", spec.ID, status, err)
		}
		return err == nil || status == http.StatusConflict
	})
	c.open[spec.ID] = true
}

// feed keeps the cluster busy.
func (c *chaos) feed() {
	for id := range c.open {
		if _, over := c.state(id); over {
			delete(c.open, id)
		}
	}
	for len(c.open) < chaosOpen {
		c.jobs++
		spec := job.Spec{ID: fmt.Sprintf("j%05d", c.jobs)}
		for i := range 1 + c.rng.IntN(3) {
			spec.Tasks = append(spec.Tasks, c.task(spec.ID, fmt.Sprintf("t%d", i), false))
		}
		c.submit(spec)
	}
}

// task makes up a task; whole is a gang over every core.
func (c *chaos) task(jobID, id string, whole bool) job.TaskSpec {
	losses := []job.NodeLoss{job.NodeLossRequeue, job.NodeLossRequeue, job.NodeLossFail, job.NodeLossWait}
	w := chaosWant{job: jobID, id: id}
	s := job.TaskSpec{ID: id, MPI: "none", WorkDir: "/", OnNodeLoss: losses[c.rng.IntN(len(losses))], KillGrace: 100 * time.Millisecond}
	nap := 50 + c.rng.IntN(750)
	switch {
	case whole:
		s.Kind, s.Nodes, s.RanksPerNode = job.Gang, chaosHosts, 1
		s.CoresPerRank, s.OnNodeLoss, nap = c.cores(), job.NodeLossRequeue, 50
	case c.rng.IntN(5) < 2:
		s.Kind, s.Nodes, s.RanksPerNode = job.Gang, 2+c.rng.IntN(chaosHosts-1), 1
	}
	if !whole && c.rng.IntN(4) == 0 {
		s.Retries, w.fails = 1+c.rng.IntN(2), true
	}
	fails := "0"
	if w.fails {
		fails = "1"
	}
	name := jobID + "." + id
	s.Command = []string{"sh", filepath.Join(c.dir, "task.sh"), c.dir, name, fmt.Sprintf("%.3f", float64(nap)/1000), fails}
	w.spec = s
	c.wants[name] = w
	c.order = append(c.order, name)
	return s
}

// state returns a job's state, and whether it is over.
func (c *chaos) state(id string) (string, bool) {
	var j struct{ State string }
	if status, err := c.call(http.MethodGet, "/jobs/"+id, nil, &j); err != nil {
		if status == http.StatusNotFound {
			c.fail("job %s, which was taken, is not there", id)
		}
		return "", false
	}
	return j.State, j.State == string(job.JobCompleted)
}

// step is a round: one thing is broken at a random moment.
func (c *chaos) step() {
	c.feed()
	time.Sleep(time.Duration(c.rng.IntN(600)) * time.Millisecond)
	c.mend(false)
	kinds := []string{"launcher", "launcher", "launcher", "agent", "agent", "agent", "shim", "shim", "rank", "rank",
		"bridge", "launcher+agent", "short cut", "short cut", "long cut", "destroy"}
	kind := kinds[c.rng.IntN(len(kinds))]
	host := 1 + c.rng.IntN(chaosHosts)
	for _, away := c.out[host]; away; _, away = c.out[host] {
		host = 1 + host%chaosHosts
	}
	lease := float64(chaosLease)
	if len(c.out) > 0 && (strings.HasSuffix(kind, "cut") || kind == "destroy") {
		kind = "agent" // one host at a time
	}
	switch kind {
	case "launcher":
		c.killLauncher()
	case "launcher+agent":
		c.kill(host, "agent", role("agent"))
		c.killLauncher()
	case "agent", "shim", "bridge":
		c.kill(host, kind, role(kind))
	case "rank":
		c.kill(host, kind, func(p lab.Proc) bool {
			return variable(p, "GANGWAY_RANK") != "" && len(p.Args) > 1 && strings.HasSuffix(p.Args[1], "task.sh")
		})
	case "short cut":
		c.away(host, kind, time.Duration(lease*(0.2+0.7*c.rng.Float64())))
	case "long cut":
		c.away(host, kind, time.Duration(lease*(1.0+1.2*c.rng.Float64())))
	case "destroy":
		c.away(host, kind, time.Duration(lease*2*c.rng.Float64()))
	}
	c.counts[kind]++
}

func (c *chaos) fault(kind string, host int, attempt string) *chaosFault {
	f := &chaosFault{at: uptime(c.t), kind: kind, attempt: attempt}
	if host > 0 {
		f.host = c.b.lab.Host(host).Name()
	}
	c.faults = append(c.faults, f)
	return f
}

func (c *chaos) killLauncher() {
	c.fault("launcher", 0, "")
	_ = c.up.Process.Kill()
	<-c.ended
	c.start()
}

// kill ends one process of a host, if there is one.
func (c *chaos) kill(host int, kind string, match func(lab.Proc) bool) {
	found := c.b.find(host, match)
	if len(found) == 0 {
		c.counts["no "+kind]++
		return
	}
	p := found[c.rng.IntN(len(found))]
	c.fault(kind, host, variable(p, "GANGWAY_ID"))
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.t.Fatal(err)
	}
}

func variable(p lab.Proc, name string) string {
	for _, kv := range p.Env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// away takes a host away for a while.
func (c *chaos) away(host int, kind string, d time.Duration) {
	f := c.fault(kind, host, "")
	o := chaosOut{back: time.Now().Add(d), fault: f, destroyed: kind == "destroy"}
	do := c.b.lab.Cut
	if o.destroyed {
		do = c.b.lab.Destroy
	}
	if err := do(host); err != nil {
		c.t.Fatal(err)
	}
	c.out[host] = o
}

// mend brings the hosts back whose time has come, or all of them.
func (c *chaos) mend(all bool) {
	for i, o := range c.out {
		wait := time.Until(o.back)
		if wait > 0 && !all {
			continue
		}
		time.Sleep(wait)
		var err error
		if o.destroyed {
			err = c.b.lab.Recreate(context.Background(), i)
		} else {
			err = c.b.lab.Mend(i)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		o.fault.until = uptime(c.t)
		delete(c.out, i)
	}
}

// uptime is the kernel's clock, which the tasks read too, in seconds.
func uptime(t *testing.T) float64 {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	s, _, _ := strings.Cut(string(b), " ")
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// cores is what a node has for tasks.
func (c *chaos) cores() int {
	least := 0
	for _, n := range c.nodes() {
		if least == 0 || n.Gangway.Cores < least {
			least = n.Gangway.Cores
		}
	}
	return max(least, 1)
}

func (c *chaos) names() []string {
	names := slices.Collect(func(yield func(string) bool) {
		for id := range c.open {
			if !yield(id) {
				return
			}
		}
	})
	slices.Sort(names)
	return names
}
