package job

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/topology"
)

func valid() TaskSpec {
	return TaskSpec{ID: "t", Kind: Gang, Ranks: 4, Command: []string{"./solve"}}
}

func TestValidate(t *testing.T) {
	task := func(change func(*TaskSpec)) Spec {
		s := valid()
		change(&s)
		return Spec{ID: "job", Tasks: []TaskSpec{s}}
	}
	cases := []struct {
		name string
		spec Spec
		want []string // fields of the problems, then a word of each
	}{
		{"plain", task(func(*TaskSpec) {}), nil},
		{"single", task(func(s *TaskSpec) { s.Kind, s.Ranks = "", 0 }), nil},
		{"array", task(func(s *TaskSpec) { s.Kind, s.Ranks, s.Range = Single, 1, Range{1, MaxArray + 1} }), nil},
		{"nodes and ranks per node", task(func(s *TaskSpec) { s.Ranks, s.Nodes, s.RanksPerNode = 0, 2, 8 }), nil},
		{"all three agree", task(func(s *TaskSpec) { s.Ranks, s.Nodes, s.RanksPerNode = 16, 2, 8 }), nil},
		{"last node with fewer", task(func(s *TaskSpec) { s.Ranks, s.RanksPerNode = 5, 2 }), nil},
		{"per node", task(func(s *TaskSpec) { s.Ranks, s.PerNode = 0, []NodeRanks{{"a", 1}, {"b", 3}} }), nil},
		{"unlimited retries", task(func(s *TaskSpec) { s.Retries = -1 }), nil},
		{"priority at its ends", Spec{ID: "j", Priority: -1000, Tasks: []TaskSpec{valid()}}, nil},

		{"nothing", Spec{}, []string{"id", "A-Z", "tasks", "at least one"}},
		{"long id", Spec{ID: strings.Repeat("x", 65), Tasks: []TaskSpec{valid()}}, []string{"id", "64"}},
		{"id with a slash", Spec{ID: "a/b", Tasks: []TaskSpec{valid()}}, []string{"id", "A-Z"}},
		{"priority", Spec{ID: "j", Priority: 1001, Tasks: []TaskSpec{valid()}}, []string{"priority", "-1000 to 1000"}},
		{"same id twice", Spec{ID: "j", Tasks: []TaskSpec{valid(), valid()}}, []string{"tasks[1].id", "unique"}},
		{"kind", task(func(s *TaskSpec) { s.Kind = "mpi" }), []string{"tasks[0].kind", "single, gang"}},
		{"no ranks", task(func(s *TaskSpec) { s.Ranks = 0 }), []string{"tasks[0].ranks", "give ranks"}},
		{"negative ranks", task(func(s *TaskSpec) { s.Ranks = -4 }), []string{"tasks[0].ranks", "1 to"}},
		{"negative nodes", task(func(s *TaskSpec) { s.Nodes = -1 }), []string{"tasks[0].nodes", "0 to"}},
		{"more nodes than ranks", task(func(s *TaskSpec) { s.Nodes = 5 }), []string{"tasks[0].nodes", "up to 4"}},
		{"product", task(func(s *TaskSpec) { s.Nodes, s.RanksPerNode = 3, 2 }), []string{"tasks[0].ranks", "3 nodes × 2 ranks-per-node = 6"}},
		{"too many ranks", task(func(s *TaskSpec) { s.Ranks, s.Nodes, s.RanksPerNode = 0, MaxRanks, MaxRanks }), []string{"tasks[0].ranks", "1 to"}},
		{"single with ranks", task(func(s *TaskSpec) { s.Kind = Single }), []string{"tasks[0].ranks", "kind gang"}},
		{"single with nodes", task(func(s *TaskSpec) { s.Kind, s.Ranks, s.Nodes, s.RanksPerNode = Single, 1, 2, 2 }),
			[]string{"tasks[0].nodes", "kind gang", "tasks[0].ranks-per-node", "kind gang"}},
		{"array of gangs", task(func(s *TaskSpec) { s.Range = Range{0, MaxElementwise + 1} }), []string{"tasks[0].range", "gang"}},
		{"array too long", task(func(s *TaskSpec) { s.Kind, s.Ranks, s.Range = Single, 1, Range{0, MaxArray + 1} }), []string{"tasks[0].range", "10000000"}},
		{"array backwards", task(func(s *TaskSpec) { s.Kind, s.Ranks, s.Range = Single, 1, Range{1, 0} }), []string{"tasks[0].range", "empty"}},
		{"array from 2", task(func(s *TaskSpec) { s.Kind, s.Ranks, s.Range = Single, 1, Range{2, 5} }), []string{"tasks[0].range", "0 or 1"}},
		{"per node twice", task(func(s *TaskSpec) { s.PerNode = []NodeRanks{{"a", 2}, {"a", 2}} }), []string{"tasks[0].per-node[1]", "again"}},
		{"per node of no one", task(func(s *TaskSpec) { s.PerNode = []NodeRanks{{"", 4}} }), []string{"tasks[0].per-node[0]", "no node"}},
		{"per node 0", task(func(s *TaskSpec) { s.PerNode = []NodeRanks{{"a", 0}} }), []string{"tasks[0].per-node[0]", "1 to"}},
		{"per node sum", task(func(s *TaskSpec) { s.Nodes, s.RanksPerNode, s.PerNode = 2, 1, []NodeRanks{{"a", 3}} }),
			[]string{"tasks[0].ranks-per-node", "one of them", "tasks[0].ranks", "adds up to 3", "tasks[0].nodes", "names 1"}},
		{"numbers", task(func(s *TaskSpec) { s.CoresPerRank, s.GPUsPerRank, s.MemPerRank = -1, -1, 1<<50+1 }),
			[]string{"tasks[0].cores-per-rank", "1 to", "tasks[0].gpus-per-rank", "0 to", "tasks[0].mem-per-rank", "1 PiB"}},
		{"words", task(func(s *TaskSpec) { s.MPI, s.Launch, s.Via, s.Bind, s.OnNodeLoss = "lam", "x", "y", "z", "w" }),
			[]string{"tasks[0].mpi", "openmpi", "tasks[0].launch", "primary", "tasks[0].via", "mpirun", "tasks[0].bind", "numa", "tasks[0].on-node-loss", "requeue"}},
		{"binding", task(func(s *TaskSpec) { s.Threads, s.SMT, s.Optimize = -1, 1<<10+1, "disk" }),
			[]string{"tasks[0].threads", "0 to", "tasks[0].smt", "0 to", "tasks[0].optimize", "gpu, cpu"}},
		{"binding of auto", task(func(s *TaskSpec) { s.Bind, s.Optimize, s.NoGreedy = "core", "cpu", true }),
			[]string{"tasks[0].optimize", "bind auto", "tasks[0].no-greedy", "bind auto"}},
		{"SMT unbound", task(func(s *TaskSpec) { s.Bind, s.SMT = "none", 1 }), []string{"tasks[0].smt", "bind none"}},
		{"threads of a primary", task(func(s *TaskSpec) { s.Launch, s.Threads = LaunchPrimary, 2 }), []string{"tasks[0].launch", "places its ranks itself"}},
		{"binding is well", task(func(s *TaskSpec) { s.Threads, s.SMT, s.Optimize, s.NoGreedy = 8, 2, "gpu", true }), nil},
		{"times", task(func(s *TaskSpec) { s.TimeLimit, s.KillGrace, s.LaunchDeadline = -1, -1, 1<<62 }),
			[]string{"tasks[0].time", "0 (none)", "tasks[0].kill-grace", "0 (none)", "tasks[0].launch-deadline", "0 (none)"}},
		{"command", task(func(s *TaskSpec) { s.Command = nil }), []string{"tasks[0].command", "program"}},
		{"NUL", task(func(s *TaskSpec) { s.Command, s.WorkDir = []string{"x", "a\x00b"}, "\x00" }), []string{"tasks[0].command", "NUL", "tasks[0].workdir", "NUL"}},
		{"env", task(func(s *TaskSpec) { s.Env = []string{"A=1", "B", "=C"} }), []string{"tasks[0].env", "NAME=value", "tasks[0].env", "NAME=value"}},
		{"not UTF-8", task(func(s *TaskSpec) { s.Command, s.WorkDir, s.Env = []string{"x", "a\xff"}, "/\xfe", []string{"A=\xff"} }),
			[]string{"tasks[0].command", `argument 1, "a\xff", is not UTF-8`, "tasks[0].env", "the value of A", "tasks[0].workdir", "is not UTF-8"}},
		{"names in env", task(func(s *TaskSpec) { s.Env = []string{"B A=1", "2X=1", "x.y=1", "É=1", "_a9=\x00", "OK_1="} }),
			[]string{"tasks[0].env", `"B A"`, "tasks[0].env", `"2X"`, "tasks[0].env", "letters", "tasks[0].env", `"É"`, "tasks[0].env", "NUL"}},
		{"retries", task(func(s *TaskSpec) { s.Retries = -2 }), []string{"tasks[0].retries", "-1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := Validate(c.spec)
			if err == nil {
				if len(c.want) > 0 {
					t.Errorf("valid, want problems with %v", c.want)
				}
				return
			}
			p := err.(Problems)
			ok := 2*len(p) == len(c.want)
			for i := range p {
				ok = ok && 2*i < len(c.want) && p[i].Field == c.want[2*i] && strings.Contains(p[i].Text, c.want[2*i+1])
			}
			if !ok {
				t.Errorf("problems %q, want %q", p, c.want)
			}
		})
	}
}

// TestResolve: what follows from a task's fields is filled in, once for all.
func TestResolve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := valid()
		s.Kind = rapid.SampledFrom([]Kind{"", Single, Gang}).Draw(t, "kind")
		s.Ranks = rapid.IntRange(-1, 9).Draw(t, "n")
		s.Nodes = rapid.IntRange(-1, 4).Draw(t, "N")
		s.RanksPerNode = rapid.IntRange(-1, 4).Draw(t, "ppn")
		s.CoresPerRank = rapid.IntRange(-1, 2).Draw(t, "c")
		s.Threads, s.SMT = rapid.IntRange(-1, 9).Draw(t, "threads"), rapid.IntRange(-1, 3).Draw(t, "smt")
		s.Bind = rapid.SampledFrom([]string{"", "gpu", "none"}).Draw(t, "bind")
		if rapid.Bool().Draw(t, "per") {
			s.PerNode = []NodeRanks{{"a", 2}, {"b", rapid.IntRange(-1, 3).Draw(t, "b")}}
		}
		r := s.Resolve()
		if d := cmp.Diff(r, r.Resolve()); d != "" {
			t.Fatalf("resolved twice is another:\n%s", d)
		}
		err, again := Validate(Spec{ID: "j", Tasks: []TaskSpec{s}}), Validate(Spec{ID: "j", Tasks: []TaskSpec{r}})
		if (err == nil) != (again == nil) {
			t.Fatalf("valid: %v, resolved: %v", err, again)
		}
		if err != nil {
			return
		}
		if s.CoresPerRank == 0 && r.CoresPerRank*max(r.SMT, 1) < r.Threads || r.Bind == "gpu" && r.GPUsPerRank < 1 {
			t.Fatalf("resolved %+v", r)
		}
		if r.Ranks < 1 || r.CoresPerRank < 1 || r.Range.Len() < 1 || r.MPI == "" {
			t.Fatalf("resolved %+v", r)
		}
		if r.Kind == Gang && r.RanksPerNode > 0 && r.Nodes > 0 && r.Nodes*r.RanksPerNode != r.Ranks {
			t.Fatalf("resolved %+v", r)
		}
	})
}

func TestReasons(t *testing.T) {
	for want, r := range map[string]Reason{
		"rank 0 on n1 ended with status 1":                     {Code: FailRank, Detail: "rank 0 on n1 ended with status 1", Nodes: []NodeShort{{Node: "n1"}}},
		"it failed: n1":                                        {Code: FailRank, Detail: "it failed", Nodes: []NodeShort{{Node: "n1"}}},
		"needs 4 cores, 1 free: n1 has 1 of 4 (held by bob)":   {Code: WaitCores, Want: 4, Have: 1, Nodes: []NodeShort{{Node: "n1", Want: 4, Have: 1, Detail: "(held by bob)"}}},
		"needs 1 core, 0 free":                                 {Code: WaitClaimed, Want: 1},
		"needs 1.5 GiB, 512 MiB free: n1 has 512 MiB of 2 GiB": {Code: WaitMemory, Want: 3 << 29, Have: 1 << 29, Nodes: []NodeShort{{Node: "n1", Want: 2 << 30, Have: 1 << 29}}},
		"needs 2 GPUs, 0 free":                                 {Code: WaitGPUs, Want: 2},
		"needs 3 nodes, 2 free":                                {Code: WaitNodes, Want: 3, Have: 2},
		"time-limit":                                           {Code: FailTimeLimit},
		"no; do":                                               {Code: FailDisk, Detail: "no", Hint: "do"},
		"x: a, b, c, d, and 2 more nodes":                      {Detail: "x", Nodes: []NodeShort{{Node: "a"}, {Node: "b"}, {Node: "c"}, {Node: "d"}, {Node: "e"}, {Node: "f"}}},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1 << 20: "1 MiB", 1<<60 + 1<<59: "1.5 EiB", 1<<64 - 1: "16 EiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// TestTables: every state but the last leads to the end, none to itself, and
// the last nowhere.
func TestTables(t *testing.T) {
	states := []AttemptState{AttemptPlaced, AttemptPreparing, AttemptReady, AttemptLaunching, AttemptRunning, AttemptEnding, AttemptLost, AttemptEnded}
	for _, s := range states {
		next := s.Next()
		if (len(next) == 0) != (s == AttemptEnded) || s.MayBecome(s) || s.MayBecome(AttemptPlaced) {
			t.Errorf("%s leads to %v", s, next)
		}
		if !s.MayBecome(AttemptEnding) && s != AttemptEnding && s != AttemptEnded {
			t.Errorf("%s can't be ended", s)
		}
		if s.MayBecome(AttemptEnded) != (s == AttemptEnding) {
			t.Errorf("%s: only what is ending may have ended", s)
		}
	}
	for _, s := range []TaskState{TaskActive, TaskPreparing, TaskRunning, TaskCompleted} {
		if s.MayBecome(TaskCompleted) == (s == TaskCompleted) || s.MayBecome(s) || s == TaskCompleted && s.MayBecome(TaskRunning) {
			t.Errorf("%s leads to %v", s, s.Next())
		}
	}
}

// TestRowsAreStable pins the encodings: rows written by this version must be
// read by later ones.
func TestRowsAreStable(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 0, 0, 5, time.UTC)
	for _, c := range []struct {
		row  Row
		want string
	}{
		{Encode(TableMeta, "meta", MetaRow{"c", 2, 3}), `{"cluster":"c","epoch":2,"seq":3}`},
		{EncodeBlock(BlockRow{Seq: 7, Task: "abcd-0", Attempt: "abcd-0-0-1", At: at,
			Done:  []Outcome{{Range: Range{0, 3}, Success: true}, {Range: Range{3, 4}, Signal: 9, Reason: &Reason{Code: FailRank}}},
			Again: []Try{{Range: Range{4, 5}, Attempt: 2, Retries: 1}}, Was: []Outcome{{Range: Range{4, 5}, Signal: 9, Reason: &Reason{Code: FailRank}}},
			Node: "n1", Last: []LastLine{{3, "killed"}},
			Costs: &Costs{Attempt: []uint32{1, 1, 1, 1, 1}, Start: []int64{at.UnixMicro(), 1, 2, 3, 4}, Wall: []uint64{9, 8, 7, 6, 5}, CPU: make([]uint64, 5), RSS: []uint64{1000, 1001, 1000, 1001, 1000}}}),
			"\x02\x06abcd-0\x01\nabcd-0-0-1\x02n1\x013{\"lo\":0,\"hi\":0,\"signal\":9,\"reason\":{\"code\":\"rank\"}}\x01'{\"lo\":0,\"hi\":0,\"attempt\":2,\"retries\":1}\x01\a\x00\xa0\x82\xa0\xb0\r\x05\x02\x00\x03\x00\x00\x01\x01\x01\b\x01\x00\x01\b\x01\x016\x05\x02\x00\xfd\x8f\xaa\x99\xba\xbb\xb0\x063\xffC\x95\xd1\xed`\x06\x00\x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x000\x00\x00\x00\x00\x00\x00\n\x03\x9c\x02\x00\x00\xd0\x0f\x01\n\t\x01\x06\x06killed*\x9c\x80\x85"},
		{Encode(TablePart, PartKey("abcd-0-0-1", 1), PartRow{Node: "n2", FirstRank: 2, Ranks: 2, CPUs: topology.NewCPUSet(0, 1, 4), Seen: true}),
			`{"node":"n2","first_rank":2,"ranks":2,"cpus":"0-1,4","seen":true}`},
		{Encode(TableNode, "n1", NodeRow{Name: "n1", Seq: 1, State: "up"}), `{"name":"n1","seq":1,"state":"up"}`},
	} {
		if got := string(c.row.Value); got != c.want {
			t.Errorf("%s/%s:\n%s\nwant\n%s", c.row.Table, c.row.Key, got, c.want)
		}
	}
	var m MetaRow
	if err := (Row{Table: TableMeta, Key: "meta", Value: []byte(`{"cluster":"c","new":[1]}`)}).Decode(&m); err != nil || m.Cluster != "c" {
		t.Errorf("a row with a field of a later version: %v, %+v", err, m)
	}
	if err := (Row{Table: TableMeta, Key: "meta", Value: []byte(`{`)}).Decode(&m); err == nil || !strings.Contains(err.Error(), "meta/meta") {
		t.Errorf("a damaged row: %v", err)
	}
	keys := []string{NumberKey(2), NumberKey(10), NumberKey(1<<64 - 1)}
	if keys[0] >= keys[1] || keys[1] >= keys[2] {
		t.Errorf("keys do not sort as their numbers: %v", keys)
	}
	id := AttemptID(TaskUID("abcdefghij", 46655), MaxArray, 1295)
	if len(id) > 24 {
		t.Errorf("id %s is longer than 24 bytes", id)
	}
}

// FuzzDecode: no bytes in a row make the launcher panic.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"x","parts":[{"cpus":"0-3"}],"try":{"lo":1,"hi":2}}`))
	f.Add([]byte(`{"cpus":"99999999"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Row{Table: TableAttempt, Key: "k", Value: b}
		var a AttemptRow
		if r.Decode(&a) == nil {
			if _, err := json.Marshal(a); err != nil {
				t.Errorf("decoded, but can't be encoded: %v", err)
			}
		}
		var p PartRow
		_ = r.Decode(&p)
	})
}
