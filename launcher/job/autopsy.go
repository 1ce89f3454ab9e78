package job

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gangway/mpi"
	"gangway/topology"
)

// Death is the kind of a gang's death.
type Death string

// The kinds.
const (
	DeathUnknown   Death = "unknown"
	DeathExit      Death = "exit"      // a rank ended with a status
	DeathAbort     Death = "abort"     // MPI_Abort, or the MPI library gave up
	DeathCrash     Death = "crash"     // segmentation fault, bus error, abort(), …
	DeathMemory    Death = "memory"    // out of memory
	DeathKilled    Death = "killed"    // a signal from outside
	DeathShim      Death = "shim"      // gangway's own process on a node ended
	DeathSilent    Death = "silent"    // a node is cut off or down
	DeathLaunch    Death = "launch"    // it did not come to run
	DeathPreflight Death = "preflight" // a check before the start
	DeathLimit     Death = "limit"     // time limit
	DeathCancelled Death = "cancelled"
	DeathMPIRun    Death = "mpirun" // mpirun failed though no rank did
)

// Autopsy is what was found of the end of an attempt that did not end well.
type Autopsy struct {
	Death    Death     `json:"death"`
	Rank     int       `json:"rank"`           // that died first; -1: none did
	Node     string    `json:"node,omitempty"` // where it began, several with commas; "": unknown
	How      string    `json:"how"`            // in words
	Phase    string    `json:"phase,omitempty"`
	Said     string    `json:"said,omitempty"` // MPI_Abort's message, or the MPI library's
	At       time.Time `json:"at,omitzero"`    // the node's clock
	Suspects []Suspect `json:"suspects,omitempty"`
	Told     int       `json:"told,omitempty"` // ranks of which an end is known
}

// Suspect is a node that may be at fault, rather than the program.
type Suspect struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

// Diagnose returns the autopsy of an attempt: its primary's, or another node's
// if the primary is lost, or what the launcher itself knows. nil: nothing has
// failed so far.
func (a *AttemptRow) Diagnose() *Autopsy {
	if len(a.Parts) == 0 {
		return nil
	}
	if r := a.Parts[0].Results; len(r) > 0 {
		switch last := r[len(r)-1]; {
		case last.Autopsy != nil && a.knows(last):
			return last.Autopsy
		case last.Success():
			return nil
		}
	}
	for _, p := range a.Parts[1:] {
		for _, r := range p.Results {
			if r.Autopsy != nil {
				return r.Autopsy
			}
		}
	}
	var why *Reason
	var node string
	for _, p := range a.Parts {
		if p.Failure != nil && p.Failure.Code != WaitClaimed {
			why, node = p.Failure, p.Node
			break
		}
	}
	if why == nil {
		for _, p := range a.Parts {
			for _, r := range p.Results {
				if r.Failure != nil && r.Failure.Code != FailCancelled && r.Failure.Code != FailPeerLost {
					why, node = r.Failure, p.Node
				}
			}
		}
	}
	if why == nil {
		why = a.End
	}
	if why == nil && a.Verdict != nil {
		why = a.Verdict.Reason
	}
	if why == nil {
		return a.bare()
	}
	if node == "" && len(why.Nodes) > 0 && why.Code != FailCancelled && why.Code != FailTimeLimit {
		node = why.Nodes[0].Node
	}
	out := &Autopsy{Death: deathFor(why.Code), Rank: -1, Node: node, How: why.String()}
	if why.Hint != "" {
		out.How = strings.TrimSuffix(out.How, "; "+why.Hint)
	}
	if nodeFault(why.Code) && node != "" {
		out.Suspects = []Suspect{{Node: node, Why: out.How}}
	}
	return out
}

// knows reports whether the primary's result can tell what the attempt died of:
// a primary that was told to end can't, nor can one that was cut off and is back.
func (a *AttemptRow) knows(r Result) bool {
	first := &a.Parts[0]
	lost := func(p PartRow) bool { return p.Cut || p.Failure != nil && p.Failure.Code == FailNodeLost }
	accused := slices.ContainsFunc(a.Parts[1:], func(p PartRow) bool {
		return slices.ContainsFunc(p.Results, func(r Result) bool { return r.Autopsy != nil && r.Autopsy.Node == first.Node })
	})
	switch d := r.Autopsy; {
	case d.Death == DeathCancelled:
		return (a.End == nil || a.End.Code == FailCancelled) && !(accused && r.Failure != nil && r.Failure.Code == FailLease)
	case d.Death == DeathSilent && d.Node == first.Node: // it hears nobody: or the others are all down
		return lost(*first) || accused || !slices.ContainsFunc(a.Parts[1:], lost)
	case d.Death == DeathSilent:
		return !(accused && lost(*first))
	}
	return true
}

// bare is the autopsy of a result that came without one.
func (a *AttemptRow) bare() *Autopsy {
	for _, r := range a.Parts[0].Results {
		if r.Success() {
			continue
		}
		out := &Autopsy{Death: DeathExit, Rank: r.FirstRank, Node: r.FirstNode, How: mpi.HowEnded(r.ExitCode, r.Signal), Told: len(r.Ranks)}
		switch {
		case mpi.Crashed(r.ExitCode, r.Signal):
			out.Death = DeathCrash
		case r.Signal != 0:
			out.Death = DeathKilled
		}
		return out
	}
	return nil
}

func deathFor(c Code) Death {
	switch c {
	case FailNodeLost, FailPeerLost:
		return DeathSilent
	case FailShimLost:
		return DeathShim
	case FailTimeLimit:
		return DeathLimit
	case FailCancelled, FailRequeued, FailLease:
		return DeathCancelled
	case FailMemory:
		return DeathMemory
	case FailMPIRun:
		return DeathMPIRun
	case FailRank, FailInput:
		return DeathExit
	case FailPreflight:
		return DeathPreflight
	case "", FailUnknown:
		return DeathUnknown
	}
	return DeathLaunch
}

// nodeFault reports whether a failure speaks against its node rather than the
// program or the request.
func nodeFault(c Code) bool {
	switch c {
	case FailNodeLost, FailShimLost, FailNodeAgent, FailDisk, FailPreflight:
		return true
	}
	return false
}

// Report is an autopsy with what became of the other ranks, folded for reading.
type Report struct {
	Autopsy
	Attempt uint32    `json:"attempt"` // its number, from 1
	ID      string    `json:"id"`      // the attempt's
	Nodes   []string  `json:"nodes"`   // of the attempt, in rank order
	Ranks   int       `json:"ranks"`   // of the attempt
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	Fates   []Fate    `json:"fates,omitempty"` // how the ranks ended, the first's in front
	Words   []Words   `json:"words,omitempty"` // last lines of standard error, the first rank's in front
	Avoided []string  `json:"avoided,omitempty"`
}

// Fate is how some ranks ended.
type Fate struct {
	How   string   `json:"how"`
	Count int      `json:"count"`
	Ranks string   `json:"ranks"` // as "0-3,7"
	Nodes []string `json:"nodes"` // in rank order
}

// Words are last lines of some ranks' standard error.
type Words struct {
	Ranks string   `json:"ranks"` // as "0-3,7"
	Lines []string `json:"lines"`
}

// maxWords is how many different last lines a report shows.
const maxWords = 16

// Report returns the report on an attempt; nil: it has not failed.
func (a *AttemptRow) Report() *Report {
	d := a.Diagnose()
	if d == nil {
		return nil
	}
	r := &Report{Autopsy: *d, Attempt: a.Try.Attempt, ID: a.ID, Started: a.Started, Ended: a.Ended, Avoided: slices.Clone(a.Try.Avoid)}
	for _, p := range a.Parts {
		r.Nodes = append(r.Nodes, p.Node)
		r.Ranks += p.Ranks
	}
	r.fold(a)
	return r
}

// fold groups the ranks by how they ended.
func (r *Report) fold(a *AttemptRow) {
	type group struct {
		how          string
		order        int
		ranks        []int
		nodes        []string
		first, until time.Duration // after the first death
	}
	groups := map[string]*group{}
	add := func(key string, order, rank int, node string, after time.Duration) {
		g := groups[key]
		if g == nil {
			g = &group{how: key, order: order, first: after, until: after}
			groups[key] = g
		}
		g.ranks = append(g.ranks, rank)
		if node != "" && !slices.Contains(g.nodes, node) {
			g.nodes = append(g.nodes, node)
		}
		g.first, g.until = min(g.first, after), max(g.until, after)
	}
	const killed = "killed by gangway"
	heard := map[int]bool{}
	words := map[string][]int{}
	var texts []string
	for _, k := range a.ends() {
		heard[k.Rank] = true
		if k.LastStderr != "" {
			if words[k.LastStderr] == nil {
				texts = append(texts, k.LastStderr)
			}
			words[k.LastStderr] = append(words[k.LastStderr], k.Rank)
		}
		how, order := mpi.HowEnded(k.ExitCode, k.Signal), 1
		after := time.Duration(0)
		switch {
		case k.Rank == r.Rank:
			how, order = r.How, 0
		case k.Killed:
			how, order = killed, 2
			if !r.At.IsZero() && !k.End.IsZero() {
				after = max(0, k.End.Sub(r.At)).Round(time.Millisecond)
			}
		case k.ExitCode == 0 && k.Signal == 0:
			order = 3
		default:
			how = "by itself: " + how
		}
		if k.Phase != "" {
			how += ", in MPI: " + k.Phase
		}
		add(how, order, k.Rank, a.nodeOfRank(k.Rank), after)
	}
	if a.launched() {
		for rank := range r.Ranks {
			if !heard[rank] {
				add("not heard of", 4, rank, a.nodeOfRank(rank), 0)
			}
		}
	}
	all := make([]*group, 0, len(groups))
	for _, g := range groups {
		all = append(all, g)
	}
	slices.SortFunc(all, func(x, y *group) int {
		return cmp.Or(cmp.Compare(x.order, y.order), cmp.Compare(x.ranks[0], y.ranks[0]))
	})
	for _, g := range all {
		how := g.how
		if rest, ok := strings.CutPrefix(how, killed); ok && !r.At.IsZero() {
			how = killed + " " + span(g.first, g.until) + " later" + rest
		}
		r.Fates = append(r.Fates, Fate{How: how, Count: len(g.ranks), Ranks: rankList(g.ranks), Nodes: g.nodes})
	}
	slices.SortStableFunc(texts, func(x, y string) int {
		own := func(t string) int {
			if slices.Contains(words[t], r.Rank) {
				return 0
			}
			return 1
		}
		return cmp.Compare(own(x), own(y))
	})
	for _, t := range texts[:min(len(texts), maxWords)] {
		r.Words = append(r.Words, Words{Ranks: rankList(words[t]), Lines: strings.Split(strings.TrimRight(t, "\n"), "\n")})
	}
}

// ends are the ends of the ranks, by rank: the primary's record, or what the
// others have told if there is none.
func (a *AttemptRow) ends() []RankExit {
	if r := a.Parts[0].Results; len(r) > 0 {
		return r[len(r)-1].Ranks
	}
	var out []RankExit
	for _, p := range a.Parts {
		for _, r := range p.Results {
			out = append(out, r.Ranks...)
		}
	}
	slices.SortStableFunc(out, func(x, y RankExit) int { return cmp.Compare(x.Rank, y.Rank) })
	return out
}

// launched reports whether ranks were told to go: every part was ready.
func (a *AttemptRow) launched() bool {
	return !slices.ContainsFunc(a.Parts, func(p PartRow) bool { return !p.Ready })
}

func (a *AttemptRow) nodeOfRank(rank int) string {
	for i := range a.Parts {
		if p := &a.Parts[i]; p.HasRank(rank) {
			return p.Node
		}
	}
	return ""
}

func rankList(ranks []int) string { return topology.NewCPUSet(ranks...).String() }

// span writes "12 ms" or "12 to 40 ms".
func span(from, to time.Duration) string {
	if from == to {
		return fmt.Sprintf("%d ms", to.Milliseconds())
	}
	return fmt.Sprintf("%d to %d ms", from.Milliseconds(), to.Milliseconds())
}

// Headline is the autopsy in one line: who, where, how.
func (d *Autopsy) Headline() string {
	var s string
	switch {
	case d.Rank >= 0 && d.Node != "":
		s = fmt.Sprintf("rank %d on %s: %s", d.Rank, d.Node, d.How)
	case d.Rank >= 0:
		s = fmt.Sprintf("rank %d: %s", d.Rank, d.How)
	case d.Node != "" && !names(d.How, d.Node):
		s = d.Node + ": " + d.How
	default:
		s = d.How
	}
	if d.Phase != "" {
		s += " (in MPI: " + d.Phase + ")"
	}
	if d.Said != "" && d.Said != d.How {
		s += ": " + d.Said
	}
	return s
}
