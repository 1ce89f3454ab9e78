package batchapi

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gangway/launcher/job"
)

// memory is a Backend that runs nothing: a task completes when a test says so.
type memory struct {
	mu      sync.Mutex
	seq     Version
	clock   time.Time
	pools   []Pool
	nodes   []Node
	jobs    []*memoryJob
	auto    bool // tasks complete as they are added
	onRead  func()
	subtask []Subtask
}

type memoryJob struct {
	Job
	tasks []*Task
	files map[string]string // task/name → content
}

func newMemory() *memory {
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	m := &memory{clock: at}
	m.pools = []Pool{{ID: "default", Version: 1, State: "active", Alloc: "steady", Nodes: 2, Target: 2, Slots: 4, SlotsMax: 8, Times: Times{Created: at, Modified: at}}}
	m.nodes = []Node{{ID: "n2", State: "running", Scheduling: true, Cores: 4, Running: 1}, {ID: "n1", State: "idle", Scheduling: true, Cores: 4, Address: "10.0.0.1"}}
	return m
}

func (m *memory) tick() (Version, time.Time) {
	m.seq++
	m.clock = m.clock.Add(time.Second)
	return m.seq, m.clock
}

func (m *memory) lock() func() { m.mu.Lock(); return m.mu.Unlock }

func (m *memory) Pools(context.Context) ([]Pool, error) {
	defer m.lock()()
	return slices.Clone(m.pools), nil
}

func (m *memory) Pool(_ context.Context, id string) (Pool, error) {
	defer m.lock()()
	for _, p := range m.pools {
		if strings.EqualFold(p.ID, id) {
			return p, nil
		}
	}
	return Pool{}, &NotFound{KindPool, id}
}

func (m *memory) ResizePool(context.Context, string, Version, Resize) error {
	return &Conflict{CodeWrongState, "this pool's machines are fixed"}
}

func (m *memory) StopResize(context.Context, string, Version) error {
	return &Conflict{CodeWrongState, "no resize is under way"}
}

func (m *memory) RemoveNodes(_ context.Context, _ string, _ Version, nodes []string, _ Deallocation) error {
	defer m.lock()()
	m.nodes = slices.DeleteFunc(m.nodes, func(n Node) bool { return slices.Contains(nodes, n.ID) })
	return nil
}

func (m *memory) Nodes(context.Context, string) ([]Node, error) {
	defer m.lock()()
	return slices.Clone(m.nodes), nil
}

func (m *memory) find(id string) (*Node, error) {
	for i := range m.nodes {
		if strings.EqualFold(m.nodes[i].ID, id) {
			return &m.nodes[i], nil
		}
	}
	return nil, &NotFound{KindNode, id}
}

func (m *memory) Node(_ context.Context, _, id string) (Node, error) {
	defer m.lock()()
	n, err := m.find(id)
	if err != nil {
		return Node{}, err
	}
	return *n, nil
}

func (m *memory) scheduling(id string, on bool) error {
	defer m.lock()()
	n, err := m.find(id)
	if err != nil {
		return err
	}
	if n.Scheduling == on {
		return &Conflict{CodeNodeScheduling, "it is so already"}
	}
	n.Scheduling = on
	return nil
}

func (m *memory) DisableScheduling(_ context.Context, _, id string, _ Deallocation) error {
	return m.scheduling(id, false)
}
func (m *memory) EnableScheduling(_ context.Context, _, id string) error {
	return m.scheduling(id, true)
}

func (m *memory) job(id string) (*memoryJob, error) {
	for _, j := range m.jobs {
		if strings.EqualFold(j.ID, id) {
			return j, nil
		}
	}
	return nil, &NotFound{KindJob, id}
}

func (m *memory) AddJob(_ context.Context, n NewJob) (Job, error) {
	defer m.lock()()
	if _, err := m.job(n.ID); err == nil {
		return Job{}, &Conflict{CodeJobExists, "The specified job already exists."}
	}
	v, at := m.tick()
	j := &memoryJob{Job: Job{NewJob: n, Version: v, State: JobActive, Times: Times{Created: at, Modified: at, StateAt: at}, Cursor: fmt.Sprintf("%020d", v)}, files: map[string]string{}}
	m.jobs = append(m.jobs, j)
	return j.Job, nil
}

func (m *memory) Job(_ context.Context, id string) (Job, error) {
	defer m.lock()()
	j, err := m.job(id)
	if err != nil {
		return Job{}, err
	}
	return j.Job, nil
}

func (m *memory) Jobs(_ context.Context, q JobQuery) ([]Job, error) {
	defer m.lock()()
	var all []Job
	for _, j := range m.jobs {
		if j.Cursor > q.After && (q.Owner == "" || q.Owner == j.Owner) && len(all) < q.Limit {
			all = append(all, j.Job)
		}
	}
	return all, nil
}

func (m *memory) change(id string, seen Version, f func(*memoryJob) error) error {
	defer m.lock()()
	j, err := m.job(id)
	if err != nil {
		return err
	}
	if seen != 0 && seen != j.Version {
		return Stale{}
	}
	state := j.State
	if err := f(j); err != nil {
		return err
	}
	j.Version, j.Times.Modified = m.tick()
	if j.State != state {
		j.Times.StateAt, j.Times.Prev = j.Times.Modified, string(state)
	}
	return nil
}

func (m *memory) UpdateJob(_ context.Context, id string, seen Version, s JobSettings) error {
	return m.change(id, seen, func(j *memoryJob) error { j.JobSettings = s; return nil })
}

func (m *memory) DisableJob(_ context.Context, id string, seen Version, _ DisableTasks) error {
	return m.change(id, seen, func(j *memoryJob) error { j.State = JobDisabled; return nil })
}

func (m *memory) EnableJob(_ context.Context, id string, seen Version) error {
	return m.change(id, seen, func(j *memoryJob) error { j.State = JobActive; return nil })
}

func (m *memory) TerminateJob(_ context.Context, id string, seen Version, reason string) error {
	return m.change(id, seen, func(j *memoryJob) error {
		if j.State == JobCompleted {
			return &Conflict{CodeJobCompleted, "The specified job is already in a completed state."}
		}
		j.State, j.Reason = JobCompleted, reason
		return nil
	})
}

func (m *memory) DeleteJob(_ context.Context, id string, seen Version) error {
	if err := m.change(id, seen, func(*memoryJob) error { return nil }); err != nil {
		return err
	}
	defer m.lock()()
	m.jobs = slices.DeleteFunc(m.jobs, func(j *memoryJob) bool { return strings.EqualFold(j.ID, id) })
	return nil
}

func (m *memory) AddTasks(_ context.Context, id string, specs []job.TaskSpec) ([]Task, []error, error) {
	defer m.lock()()
	j, err := m.job(id)
	if err != nil {
		return nil, nil, err
	}
	if j.State == JobCompleted {
		return nil, nil, &Conflict{CodeJobCompleted, "The specified job is already in a completed state."}
	}
	added, errs := make([]Task, len(specs)), make([]error, len(specs))
	for i, s := range specs {
		if slices.ContainsFunc(j.tasks, func(t *Task) bool { return strings.EqualFold(t.ID, s.ID) }) {
			errs[i] = &Conflict{CodeTaskExists, "The specified task already exists."}
			continue
		}
		v, at := m.tick()
		t := &Task{ID: s.ID, Spec: s, Version: v, State: job.TaskActive, Times: Times{Created: at, Modified: at, StateAt: at}, Cursor: fmt.Sprintf("%020d", v)}
		j.tasks = append(j.tasks, t)
		if m.auto {
			m.complete(j, t, 0)
		}
		added[i] = *t
	}
	return added, errs, nil
}

// complete ends a task and gives it an output.
func (m *memory) complete(j *memoryJob, t *Task, exit int) {
	t.Version, t.Times.Modified = m.tick()
	t.State, t.Times.Prev = job.TaskCompleted, string(job.TaskRunning)
	t.Run = Run{Node: "n1", Pool: "default", Folder: "workitems/" + j.ID + "/" + t.ID, Started: m.clock, Ended: m.clock, Exit: &exit, Success: exit == 0}
	if exit != 0 {
		t.Run.Failure = &job.Reason{Code: job.FailRank, Detail: fmt.Sprintf("exit status %d", exit)}
	}
	j.files[t.ID+"/stdout.txt"] = "hello from " + t.ID + "\n"
	j.files[t.ID+"/wd/a b.txt"] = strings.Repeat("0123456789", 10)
}

func (m *memory) task(jobID, id string) (*memoryJob, *Task, error) {
	j, err := m.job(jobID)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range j.tasks {
		if strings.EqualFold(t.ID, id) {
			return j, t, nil
		}
	}
	return nil, nil, &NotFound{KindTask, id}
}

func (m *memory) Task(_ context.Context, jobID, id string) (Task, error) {
	defer m.lock()()
	_, t, err := m.task(jobID, id)
	if err != nil {
		return Task{}, err
	}
	return *t, nil
}

func (m *memory) Tasks(_ context.Context, id string, q TaskQuery) ([]Task, error) {
	defer m.lock()()
	j, err := m.job(id)
	if err != nil {
		return nil, err
	}
	var all []Task
	i, _ := slices.BinarySearchFunc(j.tasks, q.After+"\x00", func(t *Task, s string) int { return strings.Compare(t.Cursor, s) })
	for _, t := range j.tasks[i:] {
		if len(all) == q.Limit {
			break
		}
		if len(q.States) == 0 || slices.Contains(q.States, t.State) {
			all = append(all, *t)
		}
	}
	return all, nil
}

func (m *memory) changeTask(jobID, id string, seen Version, f func(*memoryJob, *Task) error) error {
	defer m.lock()()
	j, t, err := m.task(jobID, id)
	if err != nil {
		return err
	}
	if seen != 0 && seen != t.Version {
		return Stale{}
	}
	if err := f(j, t); err != nil {
		return err
	}
	t.Version, t.Times.Modified = m.tick()
	return nil
}

func (m *memory) UpdateTask(_ context.Context, jobID, id string, seen Version, s job.TaskSpec) error {
	return m.changeTask(jobID, id, seen, func(_ *memoryJob, t *Task) error { t.Spec = s; return nil })
}

func (m *memory) TerminateTask(_ context.Context, jobID, id string, seen Version) error {
	return m.changeTask(jobID, id, seen, func(j *memoryJob, t *Task) error {
		if t.State == job.TaskCompleted {
			return &Conflict{CodeTaskCompleted, "The specified task is already in a completed state."}
		}
		m.complete(j, t, 137)
		t.Run.Failure = &job.Reason{Code: job.FailCancelled}
		return nil
	})
}

func (m *memory) ReactivateTask(_ context.Context, jobID, id string, seen Version) error {
	return m.changeTask(jobID, id, seen, func(_ *memoryJob, t *Task) error {
		if t.State != job.TaskCompleted || t.Run.Success {
			return &Conflict{CodeWrongState, "it did not fail"}
		}
		t.State, t.Run = job.TaskActive, Run{}
		return nil
	})
}

func (m *memory) DeleteTask(_ context.Context, jobID, id string, seen Version) error {
	return m.changeTask(jobID, id, seen, func(j *memoryJob, t *Task) error {
		j.tasks = slices.DeleteFunc(j.tasks, func(o *Task) bool { return o == t })
		return nil
	})
}

func (m *memory) TaskCounts(_ context.Context, id string) (Counts, error) {
	defer m.lock()()
	j, err := m.job(id)
	if err != nil {
		return Counts{}, err
	}
	var c StateCounts
	for _, t := range j.tasks {
		switch {
		case t.State == job.TaskActive:
			c.Active++
		case t.State == job.TaskCompleted && t.Run.Success:
			c.Completed++
			c.Succeeded++
		case t.State == job.TaskCompleted:
			c.Completed++
			c.Failed++
		default:
			c.Running++
		}
	}
	return Counts{c, c}, nil
}

func (m *memory) Attempts(_ context.Context, jobID, id string) ([]Attempt, error) {
	t, err := m.Task(context.Background(), jobID, id)
	return []Attempt{{Number: 1, Node: t.Run.Node}}, err
}

func (m *memory) Summary(ctx context.Context, id string) (Summary, error) {
	c, err := m.TaskCounts(ctx, id)
	return Summary{Counts: c.Tasks}, err
}

func (m *memory) Subtasks(context.Context, string, string) ([]Subtask, error) { return m.subtask, nil }

func (m *memory) Explain(_ context.Context, jobID, id string) (Explanation, error) {
	t, err := m.Task(context.Background(), jobID, id)
	r := job.Reason{Code: job.WaitCores, Want: 8, Have: 4}
	return Explanation{State: t.State, Reason: &r, Sentence: r.String()}, err
}

func (m *memory) Autopsy(_ context.Context, jobID, id string, attempt uint32) (Autopsy, error) {
	if _, err := m.Task(context.Background(), jobID, id); err != nil {
		return Autopsy{}, err
	}
	if attempt > 2 {
		return Autopsy{}, &NotFound{KindAutopsy, id}
	}
	a := Autopsy{Attempts: []uint32{1, 2}, Actions: []NodeAction{{Node: "n1", LeftOut: true, Guilty: 1}}}
	a.Autopsy = job.Autopsy{Death: job.DeathKilled, Rank: 3, Node: "n1", How: "killed from outside (signal 9)"}
	a.Attempt = cmp.Or(attempt, 2)
	return a, nil
}

// files returns the files of a root by name; a node's are those of every task.
func (m *memory) files(r FileRoot) map[string]string {
	all := map[string]string{}
	for _, j := range m.jobs {
		for k, v := range j.files {
			if r.Node != "" {
				all["workitems/"+j.ID+"/"+k] = v
			} else if name, ok := strings.CutPrefix(k, r.Task+"/"); ok && j.ID == r.Job {
				all[name] = v
			}
		}
	}
	return all
}

func (m *memory) ListFiles(_ context.Context, r FileRoot, _ string, recursive bool) ([]File, error) {
	defer m.lock()()
	seen := map[string]bool{}
	var all []File
	for name, text := range m.files(r) {
		parts := strings.Split(name, "/")
		for i := 1; i < len(parts); i++ {
			dir := strings.Join(parts[:i], "/")
			if !seen[dir] && (recursive || i == 1) {
				seen[dir] = true
				all = append(all, File{Name: dir, Dir: true, Modified: m.clock})
			}
		}
		if recursive || len(parts) == 1 {
			all = append(all, File{Name: name, Size: int64(len(text)), Modified: m.clock, Mode: 0o100644})
		}
	}
	return all, nil
}

func (m *memory) StatFile(ctx context.Context, r FileRoot, name string) (File, error) {
	all, err := m.ListFiles(ctx, r, "", true)
	for _, f := range all {
		if f.Name == name {
			return f, err
		}
	}
	return File{}, &NotFound{KindFile, name}
}

func (m *memory) ReadFile(_ context.Context, r FileRoot, name string, off int64, n int) ([]byte, error) {
	defer m.lock()()
	if m.onRead != nil {
		m.onRead()
	}
	text, ok := m.files(r)[name]
	if !ok {
		return nil, &NotFound{KindFile, name}
	}
	off = min(off, int64(len(text)))
	return []byte(text[off:min(int(off)+n, len(text))]), nil
}

func (m *memory) DeleteFile(_ context.Context, r FileRoot, name string, recursive bool) error {
	defer m.lock()()
	j, err := m.job(r.Job)
	if err != nil {
		return err
	}
	found := false
	for k := range m.files(r) {
		switch {
		case k == name:
		case strings.HasPrefix(k, name+"/") && !recursive:
			return &Conflict{CodeWrongState, "the folder is not empty; give recursive=true"}
		case !strings.HasPrefix(k, name+"/"):
			continue
		}
		found = true
		delete(j.files, r.Task+"/"+k)
	}
	if !found {
		return &NotFound{KindFile, name}
	}
	return nil
}

// completeAll makes every task complete as it is added.
func (m *memory) completeAll() { defer m.lock()(); m.auto = true }
