package sched

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher/job"
	"gangway/topology"
)

var update = flag.Bool("update", false, "rewrite the golden scripts' output")

// TestScripts runs testdata/*.txt: commands, ----, the exact output, an empty
// line. The view lasts for the whole file; plan carries out what it decides.
//
//	node NAME cores=N [mem=BYTES] [gpus=N] [state=S] [why=W] [draining] [unknown]
//	hold NODE ID cpus=LIST [mem=BYTES] [who=W] [foreign] [shared]
//	task NAME [single|gang] [array=N] [N=] [n=] [ppn=] [c=] [gpus=] [mem=] [per=n1:2,n2:1]
//	     [oversubscribe] [priority=] [notbefore=SECONDS] [avoid=n1,n2]
//	end NAME           takes the holds of a task away
//	drop NAME          takes a pending task away
//	up|down NODE       state up or lost
//	time SECONDS
//	plan
//	impossible …       as task, asks only whether it could ever run
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(text))
			if *update {
				if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(got, "\n")); d != "" {
				t.Errorf("%s (-file +now; -update rewrites it):\n%s", f, d)
			}
		})
	}
}

// script is a view that a file's commands work on.
type script struct {
	t    *testing.T
	view View
	now  time.Time
}

func runScript(t *testing.T, text string) string {
	s := &script{t: t, now: time.Unix(0, 0).UTC()}
	var out strings.Builder
	block := []string{}
	flush := func() {
		if len(block) == 0 {
			return
		}
		var answer strings.Builder
		for _, line := range block {
			out.WriteString(line + "\n")
			if !strings.HasPrefix(line, "#") {
				s.command(line, &answer)
			}
		}
		if answer.Len() > 0 {
			out.WriteString("----\n" + answer.String())
		}
		out.WriteString("\n")
		block = nil
	}
	old := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
			flush()
			old = false
		case line == "----":
			old = true
		case !old:
			block = append(block, line)
		}
	}
	flush()
	return strings.TrimSuffix(out.String(), "\n")
}

// words splits a line at blanks outside of quotes.
func words(line string) []string {
	var out []string
	quoted := false
	for _, f := range strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	}) {
		out = append(out, strings.ReplaceAll(f, `"`, ""))
	}
	return out
}

func (s *script) command(line string, out *strings.Builder) {
	w := words(line)
	args := map[string]string{}
	for _, a := range w[1:] {
		k, v, _ := strings.Cut(a, "=")
		args[k] = v
	}
	has := func(k string) bool { _, ok := args[k]; return ok }
	num := func(k string) int {
		if !has(k) {
			return 0
		}
		n, err := strconv.Atoi(args[k])
		if err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	switch w[0] {
	case "node":
		n := testNode(w[1], num("cores"))
		n.Memory, n.Why, n.Draining, n.Known = uint64(num("mem")), args["why"], has("draining"), !has("unknown")
		for i := range num("gpus") {
			n.GPUs = append(n.GPUs, uint32(i))
		}
		if has("state") {
			n.State = NodeState(args["state"])
		}
		s.view.Nodes = append(s.view.Nodes, n)
	case "hold":
		cpus, err := topology.ParseCPUSet(args["cpus"])
		if err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		n := s.node(w[1])
		n.Holds = append(n.Holds, Hold{ID: w[2], Who: args["who"], CPUs: cpus, Memory: uint64(num("mem")),
			Foreign: has("foreign"), Shared: has("shared")})
	case "task", "impossible":
		t := job.TaskSpec{ID: w[1], Kind: job.Gang, Nodes: num("N"), Ranks: num("n"), RanksPerNode: num("ppn"),
			CoresPerRank: num("c"), GPUsPerRank: num("gpus"), MemPerRank: uint64(num("mem")), Oversubscribe: has("oversubscribe"),
			Command: []string{"x"}}
		if has("single") || has("array") {
			t.Kind = job.Single
			t.Range = job.Range{Hi: uint64(num("array"))}
		}
		for _, p := range strings.Split(args["per"], ",") {
			if name, n, ok := strings.Cut(p, ":"); ok {
				k, _ := strconv.Atoi(n)
				t.PerNode = append(t.PerNode, job.NodeRanks{Node: name, Ranks: k})
			}
		}
		t = t.Resolve()
		if err := job.Validate(job.Spec{ID: "j", Tasks: []job.TaskSpec{t}}); err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		if w[0] == "impossible" {
			if r := Impossible(t, s.view.Nodes); r != nil {
				fmt.Fprintf(out, "%s\n", r)
			} else {
				out.WriteString("possible\n")
			}
			return
		}
		p := Pending{Task: w[1], Name: "job/" + w[1], Spec: &t, Priority: num("priority"), Try: job.Try{Range: t.Range, Attempt: 1}}
		if has("notbefore") {
			p.Try.NotBefore = time.Unix(int64(num("notbefore")), 0)
		}
		if has("avoid") {
			p.Try.Avoid = strings.Split(args["avoid"], ",")
		}
		s.view.Pending = append(s.view.Pending, p)
		slices.SortStableFunc(s.view.Pending, func(a, b Pending) int { return b.Priority - a.Priority })
	case "end":
		for _, n := range s.view.Nodes {
			n.Holds = slices.DeleteFunc(n.Holds, func(h Hold) bool { return h.ID == w[1] })
		}
	case "drop":
		s.view.Pending = slices.DeleteFunc(s.view.Pending, func(p Pending) bool { return p.Task == w[1] })
	case "up":
		s.node(w[1]).State = NodeUp
	case "down":
		s.node(w[1]).State = NodeLost
	case "time":
		n, _ := strconv.Atoi(w[1])
		s.now = time.Unix(int64(n), 0).UTC()
	case "plan":
		d := Plan(s.now, s.view, Policy{})
		for _, p := range d.Place {
			fmt.Fprintf(out, "place %s", p.Task)
			if p.Try.Range != (job.Range{Hi: 1}) {
				fmt.Fprintf(out, " [%s]", p.Try.Range)
			}
			out.WriteString(":")
			for _, part := range p.Parts {
				fmt.Fprintf(out, " %s %d+%d cpus %s", part.Node, part.FirstRank, part.Ranks, part.CPUs)
				if part.Memory > 0 {
					fmt.Fprintf(out, " mem %d", part.Memory)
				}
				if len(part.GPUs) > 0 {
					fmt.Fprintf(out, " gpus %v", part.GPUs)
				}
				if part.Shared {
					out.WriteString(" shared")
				}
				out.WriteString(";")
			}
			out.WriteString("\n")
		}
		for _, x := range d.Waiting {
			fmt.Fprintf(out, "wait %s [%s] %s: %s\n", x.Task, x.Range, x.Reason.Code, x.Reason)
		}
		if !d.WakeAt.IsZero() {
			fmt.Fprintf(out, "wake at %d\n", d.WakeAt.Unix())
		}
		if out.Len() == 0 {
			out.WriteString("nothing\n")
		}
		s.view = carryOut(s.view, d)
	default:
		s.t.Fatalf("unknown command %q", line)
	}
}

func (s *script) node(name string) *Node {
	i := slices.IndexFunc(s.view.Nodes, func(n *Node) bool { return n.Name == name })
	if i < 0 {
		s.t.Fatalf("no node %s", name)
	}
	return s.view.Nodes[i]
}

// testNode has cores of two PUs: core i is PUs i and i+cores.
func testNode(name string, cores int) *Node {
	n := &Node{Name: name, State: NodeUp, Known: true}
	for i := range cores {
		n.Cores = append(n.Cores, topology.NewCPUSet(i, i+cores))
	}
	return n
}

// carryOut returns the view after a decision.
func carryOut(v View, d Decision) View {
	out := View{}
	for _, n := range v.Nodes {
		c := *n
		c.Holds = slices.Clone(n.Holds)
		for _, pl := range d.Place {
			for _, p := range pl.Parts {
				if p.Node == n.Name {
					c.Holds = append(c.Holds, Hold{ID: pl.Task, Who: "job/" + pl.Task, CPUs: p.CPUs, Memory: p.Memory, GPUs: p.GPUs, Shared: p.Shared})
				}
			}
		}
		out.Nodes = append(out.Nodes, &c)
	}
	for _, w := range v.Pending {
		for _, pl := range d.Place {
			if pl.Task == w.Task && w.Try.Range.Contains(pl.Try.Range) {
				w.Try.Lo = max(w.Try.Lo, pl.Try.Hi) // ranges are cut from the front
			}
		}
		if w.Try.Len() > 0 {
			out.Pending = append(out.Pending, w)
		}
	}
	return out
}
