package state

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gangway/launcher/job"
	"gangway/launcher/sched"
	"gangway/nodeagent/wire/sweep"
	"gangway/topology"
)

// drawTask draws a task that a cluster of four nodes of four cores can run.
func drawTask(t *rapid.T) job.TaskSpec {
	s := job.TaskSpec{
		OnNodeLoss:   rapid.SampledFrom([]job.NodeLoss{"", job.NodeLossFail, job.NodeLossWait}).Draw(t, "loss"),
		Retries:      rapid.IntRange(0, 2).Draw(t, "retries"),
		CoresPerRank: rapid.IntRange(0, 2).Draw(t, "cores"),
		MemPerRank:   rapid.SampledFrom([]uint64{0, 1 << 30, 2 << 30}).Draw(t, "mem"),
	}
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0:
		s.Kind = job.Single
	case 1:
		s.Kind = job.Single
		s.Range = job.Range{Lo: 1, Hi: uint64(rapid.IntRange(2, 60).Draw(t, "n"))}
	case 2:
		s.Kind, s.Nodes, s.RanksPerNode = job.Gang, rapid.IntRange(1, 4).Draw(t, "N"), rapid.IntRange(1, 2).Draw(t, "ppn")
	case 3:
		s.Kind, s.Ranks = job.Gang, rapid.IntRange(1, 6).Draw(t, "n")
	case 4:
		s.Kind, s.Ranks, s.Oversubscribe = job.Gang, rapid.IntRange(1, 40).Draw(t, "n"), true
		s.MemPerRank = 0
	case 5:
		s.Kind, s.Nodes, s.RanksPerNode = job.Gang, rapid.IntRange(1, 2).Draw(t, "N"), 1
		s.Range = job.Range{Lo: 1, Hi: uint64(rapid.IntRange(2, 9).Draw(t, "n"))}
	case 6:
		s.Kind, s.CoresPerRank, s.Vary = job.Single, 0, map[string]string{"cores-per-rank": "{c}"}
		s.Sweep = &sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Name: "c", Values: []string{"1", "2", "1", "2"}[:rapid.IntRange(1, 4).Draw(t, "n")]}}}}}
	}
	return s
}

// TestRandom throws any event at the cluster at any time. After each, the
// invariants hold and the rows load to the same state; in the end, with nodes
// that do what they are told, all work comes to an end.
func TestRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.every = rapid.IntRange(1, 6).Draw(t, "every") // comparing takes most of the time
		w.c.SetDrainAfter(2)
		w.fleet(4, 4, 4, 4)
		jobs := 0
		done := map[string]uint64{} // completed elements by task
		outcome := func(node string) job.Result {
			r := job.Result{FirstRank: -1}
			switch rapid.IntRange(0, 4).Draw(t, "outcome") {
			case 0:
				r.ExitCode = rapid.IntRange(1, 255).Draw(t, "exit")
			case 1:
				r.Signal = 9
			case 2:
				code := rapid.SampledFrom([]job.Code{job.FailRank, job.FailPeerLost, job.FailNotFound, job.FailCancelled, job.FailTimeLimit}).Draw(t, "code")
				r.Failure = &job.Reason{Code: code}
			case 3:
				r.ExitCode = 1
				r.Autopsy = &job.Autopsy{Death: job.DeathExit, Rank: 0, Node: node, How: "ended with status 1"}
				if rapid.Bool().Draw(t, "suspected") {
					r.Autopsy.Suspects = []job.Suspect{{Node: node, Why: "it may be bad"}}
				}
			}
			return r
		}
		// anyPart draws a living part, and sometimes one that is not there.
		anyPart := func() (id, node string, a job.AttemptRow) {
			node = nodeName(rapid.IntRange(0, 3).Draw(t, "node"))
			ids := make([]string, 0, len(w.c.attempts))
			for id := range w.c.attempts {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			if len(ids) == 0 || rapid.IntRange(0, 19).Draw(t, "stale") == 0 {
				return "none", node, a
			}
			id = rapid.SampledFrom(ids).Draw(t, "id")
			a, _ = w.c.Attempt(id)
			if rapid.IntRange(0, 19).Draw(t, "astray") > 0 {
				node = rapid.SampledFrom(a.Parts).Draw(t, "part").Node
			}
			return id, node, a
		}
		anyNode := func() (int, string) {
			i := rapid.IntRange(0, 3).Draw(t, "node")
			return i, nodeName(i)
		}
		submit := func(t *rapid.T) {
			if jobs++; jobs > 6 {
				return
			}
			spec := job.Spec{ID: fmt.Sprint("job", jobs), Session: rapid.Bool().Draw(t, "session"),
				Priority: rapid.IntRange(-1, 1).Draw(t, "priority"), KeepOpen: rapid.Bool().Draw(t, "open")}
			for i := range rapid.IntRange(1, 3).Draw(t, "tasks") {
				task := drawTask(t)
				task.ID, task.Command = fmt.Sprint("t", i), []string{"x"}
				spec.Tasks = append(spec.Tasks, task)
			}
			w.apply(JobSubmitted{UID: fmt.Sprint("job", jobs), Spec: spec})
		}
		plan := func(t *rapid.T) { w.plan() }
		ready := func(t *rapid.T) {
			id, node, _ := anyPart()
			e := ShimReady{ID: id, Node: node, MeshPort: 7}
			if rapid.IntRange(0, 9).Draw(t, "fails") == 0 {
				e.Failure = &job.Reason{Code: job.FailNotFound}
			}
			w.apply(e)
		}
		readyAll := func(t *rapid.T) {
			id, _, a := anyPart()
			for _, p := range a.Parts {
				w.apply(ShimReady{ID: id, Node: p.Node, MeshPort: 7})
			}
		}
		result := func(t *rapid.T) {
			id, node, a := anyPart()
			r := outcome(node)
			r.Range = a.Try.Range
			// A part that was never ready may have a result of failure only.
			w.apply(AttemptResult{ID: id, Node: node, Result: r})
		}
		// block draws news of a crew: of what it has, of what it had or never had,
		// and of blocks that were there before or are missing.
		block := func(t *rapid.T) {
			id, node, a := anyPart()
			if a.Crew == nil {
				_, _ = w.try(CrewBlock{ID: id, Node: node, Seq: 1})
				return
			}
			e := CrewBlock{ID: id, Node: node, Seq: a.Crew.Block + 1}
			switch rapid.IntRange(0, 9).Draw(t, "seq") {
			case 0:
				e.Seq = a.Crew.Block
			case 1:
				e.Seq += 2
			}
			for _, try := range a.Crew.Open {
				r := CrewRun{Range: try.Range, Attempt: try.Attempt}
				r.Lo = rapid.Uint64Range(r.Lo, r.Hi-1).Draw(t, "lo")
				r.Hi = rapid.Uint64Range(r.Lo+1, r.Hi).Draw(t, "hi")
				switch rapid.IntRange(0, 7).Draw(t, "run") {
				case 0:
				case 1, 2:
					e.Returned = append(e.Returned, r)
				case 3:
					r.Attempt++ // it is another's now
					fallthrough
				default:
					e.Runs = append(e.Runs, r)
				}
			}
			slices.SortFunc(e.Runs, func(a, b CrewRun) int { return cmp.Compare(a.Lo, b.Lo) })
			e.Costs = &job.Costs{}
			for _, r := range e.Runs {
				for left := r.Len(); left > 0; {
					n := rapid.Uint64Range(1, left).Draw(t, "alike")
					o := outcome(node)
					if rapid.Bool().Draw(t, "good") {
						o = job.Result{}
					}
					e.Endings = append(e.Endings, Ending{Count: n, ExitCode: o.ExitCode, Signal: o.Signal, Failure: o.Failure})
					left -= n
				}
				for range r.Len() {
					k := e.Costs
					k.Attempt, k.Start, k.Wall = append(k.Attempt, r.Attempt), append(k.Start, 1), append(k.Wall, 2)
					k.CPU, k.RSS = append(k.CPU, 3), append(k.RSS, 4)
				}
			}
			if !slices.ContainsFunc(a.Parts, func(p job.PartRow) bool { return !p.Ready }) || len(e.Runs) == 0 {
				_, err := w.try(e)
				if refuse := e.Seq > a.Crew.Block+1 && node == a.Parts[0].Node; refuse != (err != nil) {
					t.Fatalf("block %+v of %+v: %v", e, a.Crew, err)
				}
			}
		}
		// Of jobs and tasks that may not be there, or not be open: refusals
		// are part of it.
		anyJob := func() string { return fmt.Sprint("job", rapid.IntRange(1, 6).Draw(t, "job")) }
		anyTask := func() string { return job.TaskUID(anyJob(), rapid.IntRange(0, 3).Draw(t, "task")) }
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				task := drawTask(t)
				task.ID, task.Command = fmt.Sprint("a", rapid.IntRange(0, 3).Draw(t, "id")), []string{"x"}
				_, _ = w.try(TasksAdded{Job: anyJob(), Tasks: []job.TaskSpec{task}})
			},
			"hold": func(t *rapid.T) {
				_, _ = w.try(JobHeld{Job: anyJob(), On: rapid.Bool().Draw(t, "on"),
					Running: rapid.SampledFrom([]HeldRunning{HeldWait, HeldRequeue, HeldTerminate}).Draw(t, "running")})
			},
			"change": func(t *rapid.T) {
				p, open := rapid.IntRange(-1, 1).Draw(t, "priority"), rapid.Bool().Draw(t, "open")
				_, _ = w.try(JobChanged{Job: anyJob(), Priority: &p, KeepOpen: &open})
			},
			"change task": func(t *rapid.T) {
				n := rapid.IntRange(0, 2).Draw(t, "retries")
				_, _ = w.try(TaskChanged{Task: anyTask(), Retries: &n})
			},
			"reactivate": func(t *rapid.T) {
				uid := anyTask()
				if _, err := w.try(TaskReactivated{Task: uid}); err == nil {
					done[uid] = 0
				}
			},
			"delete task": func(t *rapid.T) { _, _ = w.try(TaskDeleted{Task: anyTask()}) },
			"delete job": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					_, _ = w.try(JobDeleted{Job: anyJob()})
				}
			},
			"submit": submit, "plan": plan, "plan again": plan, "ready": ready, "ready all": readyAll, "ready all 2": readyAll,
			"result": result, "result again": result, "block": block, "block 2": block, "block 3": block,
			"started": func(t *rapid.T) {
				id, node, a := anyPart()
				// A shim starts nothing before it is told to, which is
				// when all are ready.
				if slices.ContainsFunc(a.Parts, func(p job.PartRow) bool { return !p.Ready }) {
					return
				}
				w.apply(ShimStarted{ID: id, Node: node})
			},
			"shim gone": func(t *rapid.T) {
				id, node, _ := anyPart()
				w.apply(ShimGone{ID: id, Node: node, Unread: rapid.Bool().Draw(t, "unread")})
			},
			"planned": func(t *rapid.T) {
				id, node, _ := anyPart()
				w.apply(LaunchPlanned{ID: id, Node: node, Plan: []byte(`{"argv":["x"]}`)})
			},
			"refused": func(t *rapid.T) {
				id, node, _ := anyPart()
				w.apply(AttemptRefused{ID: id, Node: node, Claimed: rapid.Bool().Draw(t, "claimed")})
			},
			"cancel": func(t *rapid.T) {
				uid := fmt.Sprint("job", rapid.IntRange(1, 6).Draw(t, "job"))
				e := CancelRequested{Job: uid, Now: rapid.Bool().Draw(t, "now")}
				if rapid.Bool().Draw(t, "one") {
					e.Task = job.TaskUID(uid, 0)
				}
				_, _ = w.try(e) // there may be no such job yet
			},
			"down": func(t *rapid.T) { _, n := anyNode(); w.apply(NodeDown{Node: n, Why: "cut"}) },
			"lost": func(t *rapid.T) { _, n := anyNode(); w.apply(NodeLost{Node: n, Why: "silent"}) },
			"gone": func(t *rapid.T) {
				_, n := anyNode()
				w.apply(NodeGone{Node: n, Leases: rapid.SampledFrom([]Leases{AllAttempts, SessionLeases, RequeuedLeases}).Draw(t, "leases"), Why: "lease"})
			},
			"drain": func(t *rapid.T) {
				_, n := anyNode()
				w.apply(NodeDrained{Node: n, On: rapid.Bool().Draw(t, "on"),
					Running: rapid.SampledFrom([]HeldRunning{"", HeldRequeue, HeldTerminate}).Draw(t, "running")})
			},
			"claims": func(t *rapid.T) {
				_, n := anyNode()
				w.apply(NodeClaims{Node: n, Claims: []job.Claim{{ID: "f", Who: "other", CPUs: topology.NewCPUSet(0, 4),
					Shared: rapid.Bool().Draw(t, "shared")}}})
			},
			"back": func(t *rapid.T) {
				i, n := anyNode()
				w.apply(NodeUp{Node: n, Agent: "a2", Boot: "b", Topology: machine(4, 8<<30, fmt.Sprintf("10.0.0.%d", i+1)), GPUs: []uint32{0, 1}})
				inv := Inventory{Node: n}
				for _, p := range w.c.Desired(n) {
					if rapid.Bool().Draw(t, "there") {
						phase := ShimPreparing
						if p.Phase == PhaseLaunch {
							phase = rapid.SampledFrom([]ShimPhase{ShimReadyPhase, ShimRunning, ShimEnded}).Draw(t, "phase")
						}
						inv.Shims = append(inv.Shims, Shim{ID: p.ID, Phase: phase})
					}
				}
				w.apply(inv)
			},
			"restart": func(t *rapid.T) { w.apply(Restarted{Epoch: w.c.Epoch() + 1}) },
			"time":    func(t *rapid.T) { w.now = w.now.Add(time.Second) },
			"": func(t *rapid.T) {
				for uid := range w.c.tasks {
					s := w.status(uid)
					if n := s.Succeeded + s.Failed; n < done[uid] {
						t.Fatalf("task %s had %d completed elements, now %d", uid, done[uid], n)
					} else {
						done[uid] = n
					}
				}
				for _, n := range w.c.order {
					parts := w.c.Desired(n.row.Name)
					if d := Delta(parts, parts); len(d.Set)+len(d.Remove) > 0 {
						t.Fatalf("a node differs from itself: %+v", d)
					}
				}
			},
		})
		w.reload(nil)
		w.heal()
		w.reload(nil)
		for _, j := range sortedJobs(w.c.jobs) {
			for _, task := range j.tasks {
				if s := w.status(task.uid); s.State != job.TaskCompleted {
					t.Fatalf("task %s never ends: %+v\nview %+v", task.uid, s, sched.Plan(w.now, w.c.View(), sched.Policy{}))
				}
			}
			ends := 0
			for _, n := range w.log {
				if n.Kind == JobEnded && n.Job == j.row.UID {
					ends++
				}
			}
			if ends != 1 {
				t.Fatalf("job %s was reported as ended %d times", j.row.UID, ends)
			}
		}
		if len(w.c.attempts) > 0 {
			t.Fatalf("%d attempts are left", len(w.c.attempts))
		}
	})
}

// heal brings all nodes back, with whatever should be there, and lets them work.
func (w *world) heal() {
	for i, n := range w.c.order {
		name := n.row.Name
		w.apply(NodeDrained{Node: name})
		w.apply(NodeUp{Node: name, Boot: "b", Topology: machine(4, 8<<30, fmt.Sprintf("10.0.0.%d", i+1)), GPUs: []uint32{0, 1}})
		inv := Inventory{Node: name}
		for _, p := range w.c.Desired(name) {
			inv.Shims = append(inv.Shims, Shim{ID: p.ID, Phase: ShimPreparing})
		}
		w.apply(inv)
	}
	closed := false
	for _, j := range w.c.Jobs() {
		_, _ = w.try(JobHeld{Job: j.Row.UID})
		_, _ = w.try(JobChanged{Job: j.Row.UID, KeepOpen: &closed}) // refused if it was told to end
	}
	w.serve(good)
	for _, n := range w.c.order { // drained for what had happened before
		w.apply(NodeDrained{Node: n.row.Name})
	}
	w.serve(good)
}
