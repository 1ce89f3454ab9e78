package job

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Problem is one thing wrong with a Spec.
type Problem struct {
	Field string // as in "tasks[0].ranks"
	Text  string // what it is and what is allowed
}

// Problems is all that is wrong with a Spec, in the order of its fields.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, x := range p {
		lines[i] = x.Field + ": " + x.Text
	}
	return strings.Join(lines, "\n")
}

// maxDuration bounds times: ten years, far from overflow in any unit.
const maxDuration = 10 * 365 * 24 * time.Hour

// Validate checks a job in itself, without nodes, and returns nil or Problems.
// Tasks are checked as Resolve completes them.
func Validate(s Spec) error {
	var c checker
	c.id("id", s.ID)
	if s.Priority < -MaxPriority || s.Priority > MaxPriority {
		c.bad("priority", "%d is out of range: allowed is -%d to %d", s.Priority, MaxPriority, MaxPriority)
	}
	if s.Pool != "" {
		c.id("pool", s.Pool)
	}
	c.duration("max-time", s.MaxTime)
	c.number("retries", s.Retries, -1, 1000)
	if len(s.Tasks) == 0 && !s.KeepOpen {
		c.bad("tasks", "a job needs at least one task")
	}
	if n := s.MaxFailures; n != nil {
		c.number("max-failures", *n, 0, MaxArray)
	}
	c.number("max-running", s.MaxRunning, 0, MaxArray)
	c.tasks(s.Tasks)
	if len(c.problems) == 0 { // what follows from bad ids helps no one
		_, c.problems = linked(s.Tasks, Existing{}, false)
	}
	return c.result()
}

// ValidateTasks checks tasks as Validate does, but neither the job around them nor
// whether what they depend on is there: Link does.
func ValidateTasks(tasks []TaskSpec) error {
	var c checker
	c.tasks(tasks)
	return c.result()
}

func (c *checker) result() error {
	if len(c.problems) == 0 {
		return nil
	}
	return c.problems
}

func (c *checker) tasks(tasks []TaskSpec) {
	seen := map[string]int{}
	for i, t := range tasks {
		c.prefix = fmt.Sprintf("tasks[%d].", i)
		c.whole(t)
		// Ids keep their case but don't differ by it alone, as Batch's.
		id := strings.ToLower(t.ID)
		if first, ok := seen[id]; ok {
			c.bad("id", "%q is also the id of tasks[%d]: ids are unique within a job", t.ID, first)
		} else {
			seen[id] = i
		}
	}
}

type checker struct {
	prefix   string
	problems Problems
	alone    uint64 // elements that are placed by themselves
}

func (c *checker) bad(field, format string, args ...any) {
	c.problems = append(c.problems, Problem{c.prefix + field, fmt.Sprintf(format, args...)})
}

func (c *checker) id(field, id string) {
	ok := len(id) >= 1 && len(id) <= MaxID
	for i := 0; ok && i < len(id); i++ {
		b := id[i]
		ok = b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' || b == '-'
	}
	if !ok {
		c.bad(field, "%q is not an id: allowed are 1 to %d characters of A-Z a-z 0-9 _ -", id, MaxID)
	}
}

// text checks what is sent as JSON and in messages, which can hold nothing else.
func (c *checker) text(field, what, s string) {
	if !utf8.ValidString(s) {
		c.bad(field, "%s, %.60q, is not UTF-8: only UTF-8 can be sent; rename the file, or let a script name it", what, s)
	}
}

func (c *checker) oneOf(field, v string, allowed ...string) {
	if !slices.Contains(allowed, v) {
		c.bad(field, "%q is unknown: allowed are %s", v, strings.Join(allowed, ", "))
	}
}

func (c *checker) number(field string, v, lo, hi int) bool {
	if v < lo || v > hi {
		c.bad(field, "%d is out of range: allowed is %d to %d", v, lo, hi)
		return false
	}
	return true
}

func (c *checker) duration(field string, d time.Duration) {
	if d < 0 || d > maxDuration {
		c.bad(field, "%s is out of range: allowed is 0 (none) to %s", d, maxDuration)
	}
}

func (c *checker) task(t TaskSpec) {
	c.id("id", t.ID)
	c.oneOf("kind", string(t.Kind), string(Single), string(Gang))
	c.elements(t)
	c.shape(t)
	c.number("cores-per-rank", t.CoresPerRank, 1, 1<<16)
	c.number("gpus-per-rank", t.GPUsPerRank, 0, 1<<10)
	if t.MemPerRank > 1<<50 {
		c.bad("mem-per-rank", "%s is out of range: allowed is 0 (not counted) to 1 PiB", Bytes(t.MemPerRank))
	}
	c.oneOf("mpi", t.MPI, "auto", "mpich", "intel", "openmpi", "msmpi", "none")
	c.oneOf("launch", string(t.Launch), string(LaunchRanks), string(LaunchPrimary))
	c.oneOf("via", t.Via, "auto", "mpirun", "pmi")
	c.oneOf("bind", t.Bind, "auto", "core", "numa", "socket", "gpu", "none")
	c.binding(t)
	if t.Preflight != "" {
		c.oneOf("preflight", t.Preflight, "off", "fast", "full")
	}
	c.oneOf("on-node-loss", string(t.OnNodeLoss), string(NodeLossRequeue), string(NodeLossFail), string(NodeLossWait))
	c.number("switches", t.Switches, 0, 1<<16)
	c.duration("switches-wait", t.SwitchesWait)
	if t.SwitchesWait > 0 && t.Switches == 0 {
		c.bad("switches-wait", "there is nothing to wait for: give switches too")
	}
	if t.Distribution != "" {
		c.oneOf("distribution", string(t.Distribution), string(DistributionBlock), string(DistributionCyclic))
		if t.Launch == LaunchPrimary && t.Distribution == DistributionCyclic {
			c.bad("distribution", "cyclic means nothing with launch primary: the command places its ranks itself")
		}
	}
	if t.Spread != "" {
		c.oneOf("spread", string(t.Spread), string(SpreadPack), string(SpreadBalance))
	}
	c.duration("time", t.TimeLimit)
	c.duration("kill-grace", t.KillGrace)
	c.duration("launch-deadline", t.LaunchDeadline)
	c.duration("retention", max(t.Retention, 0))
	if len(t.Command) == 0 || t.Command[0] == "" {
		c.bad("command", "is empty: give the program to run")
	}
	for i, a := range t.Command {
		if strings.ContainsRune(a, 0) {
			c.bad("command", "argument %d contains a NUL byte, which no program can be given", i)
		}
		c.text("command", fmt.Sprintf("argument %d", i), a)
	}
	for _, e := range t.Env {
		switch name, _, ok := strings.Cut(e, "="); {
		case !ok || name == "":
			c.bad("env", "%q is not NAME=value", e)
		case !EnvName(name):
			c.bad("env", "%q can't be the name of a variable: allowed are letters, digits and _, and no digit first", name)
		case strings.ContainsRune(e, 0):
			c.bad("env", "the value of %s contains a NUL byte, which no program can be given", name)
		default:
			c.text("env", "the value of "+name, e)
		}
	}
	if t.WorkDir != "" && strings.ContainsRune(t.WorkDir, 0) {
		c.bad("workdir", "contains a NUL byte")
	}
	c.text("workdir", "the directory", t.WorkDir)
	if t.AtOnce != 0 {
		c.number("at once", t.AtOnce, 1, MaxAtOnce)
	}
	if t.Retries < -1 || t.Retries > 1000 {
		c.bad("retries", "%d is out of range: allowed is 0 to 1000, or -1 for no limit", t.Retries)
	}
	c.limits(t)
	c.dependencies(t)
	c.exit(t.Exit)
}

// limits checks what bounds retries and warns of the end.
func (c *checker) limits(t TaskSpec) {
	c.number("priority", t.Priority, -MaxPriority, MaxPriority)
	c.duration("backoff", t.Backoff)
	c.duration("backoff-max", t.BackoffMax)
	if t.BackoffMax > 0 && t.BackoffMax < t.Backoff {
		c.bad("backoff-max", "%s is less than the first pause of %s: give a longer time", t.BackoffMax, t.Backoff)
	}
	c.number("signal", t.SoftSignal, 0, MaxSignal)
	c.duration("signal", t.SoftBefore)
	switch {
	case (t.SoftSignal > 0) != (t.SoftBefore > 0):
		c.bad("signal", "needs both a signal and a time before the limit: write USR1@60s")
	case t.SoftSignal > 0 && t.TimeLimit == 0:
		c.bad("signal", "there is no limit that it could come before: give time too")
	case t.SoftSignal > 0 && t.SoftBefore >= t.TimeLimit:
		c.bad("signal", "%s before a limit of %s is before the start: give a shorter time", t.SoftBefore, t.TimeLimit)
	}
}

// binding checks what ranks are mapped by.
func (c *checker) binding(t TaskSpec) {
	c.number("threads", t.Threads, 0, 1<<16)
	c.number("smt", t.SMT, 0, 1<<10)
	if t.Optimize != "" {
		c.oneOf("optimize", t.Optimize, "gpu", "cpu")
	}
	if t.SMT > 0 && t.Bind == "none" {
		c.bad("smt", "means nothing with bind none, which leaves ranks all that is granted")
	}
	if t.Bind != "auto" {
		if t.Optimize != "" {
			c.bad("optimize", "means nothing with bind %s: it is for bind auto", t.Bind)
		}
		if t.NoGreedy {
			c.bad("no-greedy", "means nothing with bind %s: it is for bind auto", t.Bind)
		}
	}
	if t.Launch == LaunchPrimary && (t.Threads > 0 || t.SMT > 0 || t.Optimize != "" || t.NoGreedy) {
		c.bad("launch", "primary starts a command that places its ranks itself: threads, smt, optimize and no-greedy are for launch ranks")
	}
}

// EnvName reports whether s can be the name of an environment variable: what a
// POSIX shell can set, letters, digits and underscores with no digit first.
func EnvName(s string) bool {
	for i := range len(s) {
		b := s[i]
		if b != '_' && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') && (i == 0 || b < '0' || b > '9') {
			return false
		}
	}
	return s != ""
}

// elements checks the array's range.
func (c *checker) elements(t TaskSpec) {
	switch n := t.Range.Len(); {
	case t.Range.Lo > 1:
		c.bad("range", "starts at %d: arrays start at 0 or 1", t.Range.Lo)
	case n == 0:
		c.bad("range", "is empty: an array has 1 to %d elements", MaxArray)
	case n > MaxArray:
		c.bad("range", "has %d elements: an array has 1 to %d", n, MaxArray)
	}
}

// shape checks ranks against nodes.
func (c *checker) shape(t TaskSpec) {
	if t.Kind == Single {
		if t.Ranks != 1 {
			c.bad("ranks", "%d: a single task has 1; use kind gang for more", t.Ranks)
		}
		if t.Nodes != 1 {
			c.bad("nodes", "%d: a single task has 1; use kind gang for more", t.Nodes)
		}
		if t.RanksPerNode != 0 && t.RanksPerNode != 1 {
			c.bad("ranks-per-node", "%d: a single task has 1; use kind gang for more", t.RanksPerNode)
		}
		if len(t.PerNode) > 1 {
			c.bad("per-node", "names %d nodes: a single task has 1; use kind gang for more", len(t.PerNode))
		}
	}
	if t.Kind == Gang {
		ok := c.number("nodes", t.Nodes, 0, MaxRanks)
		ok = c.number("ranks-per-node", t.RanksPerNode, 0, MaxRanks) && ok
		if ok && t.Ranks == 0 && len(t.PerNode) == 0 {
			c.bad("ranks", "0: give ranks (1 to %d), or nodes and ranks-per-node", MaxRanks)
			return
		}
		ok = c.number("ranks", t.Ranks, 1, MaxRanks) && ok
		if !ok {
			return
		}
	}
	if len(t.PerNode) > 0 {
		c.perNode(t)
		return
	}
	if t.Kind != Gang {
		return
	}
	if t.Nodes > t.Ranks {
		c.bad("nodes", "%d nodes for %d ranks: every node needs a rank; allowed is up to %d nodes", t.Nodes, t.Ranks, t.Ranks)
	}
	if p := t.RanksPerNode; p > 0 && t.Nodes > 0 && t.Nodes <= t.Ranks && t.Nodes*p != t.Ranks {
		c.bad("ranks", "%d is not %d nodes × %d ranks-per-node = %d: drop one of the three or make them agree",
			t.Ranks, t.Nodes, p, t.Nodes*p)
	}
}

func (c *checker) perNode(t TaskSpec) {
	sum, seen := 0, map[string]bool{}
	for i, p := range t.PerNode {
		field := fmt.Sprintf("per-node[%d]", i)
		if p.Node == "" {
			c.bad(field, "names no node")
		} else if seen[p.Node] {
			c.bad(field, "names %s again: give each node once, with all its ranks", p.Node)
		}
		seen[p.Node] = true
		if !c.number(field, p.Ranks, 1, MaxRanks) {
			return
		}
		sum += p.Ranks
	}
	if t.RanksPerNode != 0 && t.Kind == Gang {
		c.bad("ranks-per-node", "%d: per-node already says how many ranks each node has; give one of them", t.RanksPerNode)
	}
	if sum != t.Ranks {
		c.bad("ranks", "%d, but per-node adds up to %d: drop ranks or make them agree", t.Ranks, sum)
	}
	if t.Nodes != len(t.PerNode) {
		c.bad("nodes", "%d, but per-node names %d: drop nodes or make them agree", t.Nodes, len(t.PerNode))
	}
}
