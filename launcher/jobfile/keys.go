package jobfile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gangway/launcher/job"
	"gangway/topology/yamltree"
)

// maxScript is the size of a set-up script, in bytes.
const maxScript = 1 << 20

// maxInline is the size of a script task, in bytes: Linux takes no argument of
// more than 128 KiB.
const maxInline = 120 << 10

// taskKey is a key of a task.
type taskKey struct {
	name string
	what string // job.Validate's name of the field, if it is another
	gang bool   // the key makes the task a gang
	set  func(d *decoder, t *task, n *yamltree.Node) error
}

func (k taskKey) field() string {
	if k.what != "" {
		return k.what
	}
	return k.name
}

// keyOf is the key that stands for a field of job.Validate.
func keyOf(field string) string {
	switch field {
	case "id":
		return "name"
	case "range":
		return "array"
	case "cores-per-rank":
		return "cpus-per-rank"
	}
	return field
}

// taskKeys is every key that a task can have.
func taskKeys() []taskKey {
	return append([]taskKey{
		{name: "name", what: "id", set: setName},
		{name: "id", set: word(func(s *job.TaskSpec) *string { return &s.ID })},
		{name: "kind", set: word(func(s *job.TaskSpec) *job.Kind { return &s.Kind })},
		{name: "array", what: "range", set: setArray},
		{name: "sweep", set: setSweep},
		{name: "command", set: setCommand},
		{name: "script", what: "command", set: setScript},
		{name: "nodes", gang: true, set: count(func(s *job.TaskSpec) *int { return &s.Nodes })},
		{name: "ranks", gang: true, set: count(func(s *job.TaskSpec) *int { return &s.Ranks })},
		{name: "ranks-per-node", gang: true, set: count(func(s *job.TaskSpec) *int { return &s.RanksPerNode })},
		{name: "per-node", gang: true, set: setPerNode},
		{name: "cpus-per-rank", what: "cores-per-rank", set: count(func(s *job.TaskSpec) *int { return &s.CoresPerRank })},
		{name: "gpus-per-rank", set: integer(func(s *job.TaskSpec) *int { return &s.GPUsPerRank })},
		{name: "mem-per-rank", set: setMemory},
		{name: "oversubscribe", set: boolean(func(s *job.TaskSpec) *bool { return &s.Oversubscribe })},
		{name: "mpi", set: word(func(s *job.TaskSpec) *string { return &s.MPI })},
		{name: "launch", set: word(func(s *job.TaskSpec) *job.Launch { return &s.Launch })},
		{name: "via", set: word(func(s *job.TaskSpec) *string { return &s.Via })},
		{name: "bind", set: word(func(s *job.TaskSpec) *string { return &s.Bind })},
		{name: "threads", set: count(func(s *job.TaskSpec) *int { return &s.Threads })},
		{name: "smt", set: count(func(s *job.TaskSpec) *int { return &s.SMT })},
		{name: "optimize", set: word(func(s *job.TaskSpec) *string { return &s.Optimize })},
		{name: "no-greedy", set: boolean(func(s *job.TaskSpec) *bool { return &s.NoGreedy })},
		{name: "preflight", set: word(func(s *job.TaskSpec) *string { return &s.Preflight })},
		{name: "switches", gang: true, set: setSwitches},
		{name: "spread", gang: true, set: word(func(s *job.TaskSpec) *job.Spread { return &s.Spread })},
		{name: "distribution", gang: true, set: word(func(s *job.TaskSpec) *job.Distribution { return &s.Distribution })},
		{name: "network", set: word(func(s *job.TaskSpec) *string { return &s.Network })},
		{name: "time", set: duration(func(s *job.TaskSpec) *time.Duration { return &s.TimeLimit })},
		{name: "kill-grace", set: duration(func(s *job.TaskSpec) *time.Duration { return &s.KillGrace })},
		{name: "launch-deadline", set: duration(func(s *job.TaskSpec) *time.Duration { return &s.LaunchDeadline })},
		{name: "workdir", set: setWorkDir},
		{name: "env", set: setEnv},
		{name: "setup", set: setSetup},
		{name: "bcast", set: boolean(func(s *job.TaskSpec) *bool { return &s.Bcast })},
		{name: "retries", set: integer(func(s *job.TaskSpec) *int { return &s.Retries })},
		{name: "on-node-loss", set: word(func(s *job.TaskSpec) *job.NodeLoss { return &s.OnNodeLoss })},
	}, orderKeys()...)
}

// jobKeys is every key of a job.
func jobKeys() []string {
	return []string{"job", "pool", "priority", "max-failures", "max-running", "defaults", "tasks"}
}

// later are keys that have a meaning, but not in this version.
func later() []string {
	return []string{"inputs", "outputs", "container", "exclusive", "user", "account", "start-after"}
}

// otherWord gives the key for what other schedulers and gangway's flags call it.
func otherWord(key string) string {
	switch strings.ReplaceAll(strings.ToLower(key), "_", "-") {
	case "ntasks", "np", "procs", "processes":
		return "ranks"
	case "ntasks-per-node", "ppn", "tasks-per-node":
		return "ranks-per-node"
	case "cpus-per-task", "cores-per-rank", "cpus", "cores":
		return "cpus-per-rank"
	case "threads-per-rank", "omp-num-threads", "num-threads":
		return "threads"
	case "threads-per-core", "ntasks-per-core", "hint":
		return "smt"
	case "gpus", "gpus-per-task", "gres":
		return "gpus-per-rank"
	case "mem", "memory", "mem-per-cpu":
		return "mem-per-rank"
	case "partition", "queue":
		return "pool"
	case "time-limit", "timelimit", "walltime", "timeout":
		return "time"
	case "launch-timeout":
		return "launch-deadline"
	case "chdir", "cwd", "working-directory":
		return "workdir"
	case "environment", "variables":
		return "env"
	case "dependency", "needs", "after":
		return "depends-on"
	case "run", "cmd", "exec", "command-line":
		return "command"
	case "job-name":
		return "job"
	case "matrix", "foreach":
		return "sweep"
	}
	return ""
}

func (d *decoder) unknownJobKey(p yamltree.Pair) {
	_, isTask := d.keys[p.Key]
	switch other := otherWord(p.Key); {
	case isTask:
		d.bad(p.At, "put it below a task in tasks:, or below defaults: for all tasks", "%s: belongs to a task, not to the job", p.Key)
	case slices.Contains(later(), p.Key):
		d.bad(p.At, "remove it", "%s: is not yet in this version", p.Key)
	case other != "" && !slices.Contains(jobKeys(), other):
		d.bad(p.At, "write "+other+": below a task or defaults:", "%s: is not a key of a job", quote(p.Key))
	default:
		d.unknown(p, "a job", jobKeys())
	}
}

func (d *decoder) unknownTaskKey(p yamltree.Pair) {
	switch {
	case p.Key == "stdin":
		d.bad(p.At, "redirect it in a script: ./program < input", "stdin: a job's tasks have no standard input")
	case slices.Contains(jobKeys(), p.Key):
		d.bad(p.At, "put it at the beginning of a line, beside tasks:", "%s: belongs to the job, not to a task", p.Key)
	case slices.Contains(later(), p.Key):
		d.bad(p.At, "remove it", "%s: is not yet in this version", p.Key)
	default:
		var names []string
		for _, k := range taskKeys() {
			names = append(names, k.name)
		}
		d.unknown(p, "a task", names)
	}
}

// unknown tells of a key that has no meaning, and which one may be meant.
func (d *decoder) unknown(p yamltree.Pair, of string, names []string) {
	hint := "known are " + strings.Join(names, ", ")
	if near := nearest(p.Key, names); near != "" {
		hint = "perhaps " + near + ":"
	}
	if other := otherWord(p.Key); other != "" {
		hint = "gangway calls it " + other + ":"
		if slices.Contains(later(), other) {
			hint += ", which is not yet in this version"
		}
	}
	d.bad(p.At, hint, "%s is not a key of %s", quote(p.Key), of)
}

// nearest returns the name that a typing mistake away is key, "" if none is.
func nearest(key string, names []string) string {
	key = strings.ReplaceAll(strings.ToLower(key), "_", "-")
	if len(key) > 40 {
		return ""
	}
	best, least := "", 3
	for _, name := range names {
		if d := distance(key, name); d < least && d*2 < len(name) {
			best, least = name, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete, replace or swap with their
// neighbour that make b out of a.
func distance(a, b string) int {
	rows := [][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows[0], rows[1], rows[2] = last, row, before
	}
	return rows[1][len(b)]
}

// word reads a text.
func word[T ~string](field func(*job.TaskSpec) *T) func(*decoder, *task, *yamltree.Node) error {
	return func(d *decoder, t *task, n *yamltree.Node) error {
		s, err := d.text(n)
		*field(&t.spec) = T(s)
		return err
	}
}

func boolean(field func(*job.TaskSpec) *bool) func(*decoder, *task, *yamltree.Node) error {
	return func(d *decoder, t *task, n *yamltree.Node) error {
		s, err := d.text(n)
		if err != nil {
			return err
		}
		if *field(&t.spec), err = parseBool(s); err != nil {
			return valueError{what: err.Error(), hint: "write true or false"}
		}
		return nil
	}
}

func number(v *int) func(*decoder, *task, *yamltree.Node) error {
	return func(d *decoder, _ *task, n *yamltree.Node) error {
		s, err := d.text(n)
		if err != nil {
			return err
		}
		if *v, err = parseInt(s); err != nil {
			return valueError{what: err.Error(), hint: "write a number such as 4"}
		}
		return nil
	}
}

func integer(field func(*job.TaskSpec) *int) func(*decoder, *task, *yamltree.Node) error {
	return func(d *decoder, t *task, n *yamltree.Node) error { return number(field(&t.spec))(d, t, n) }
}

// count reads a number from 1: where 0 has a meaning, leaving the key out has
// the same.
func count(field func(*job.TaskSpec) *int) func(*decoder, *task, *yamltree.Node) error {
	return func(d *decoder, t *task, n *yamltree.Node) error {
		err := integer(field)(d, t, n)
		if v := *field(&t.spec); err == nil && v < 1 {
			return valueError{what: fmt.Sprintf("%d is out of range", v), hint: "write a number from 1"}
		}
		return err
	}
}

func duration(field func(*job.TaskSpec) *time.Duration) func(*decoder, *task, *yamltree.Node) error {
	return func(d *decoder, t *task, n *yamltree.Node) error {
		s, err := d.text(n)
		if err != nil {
			return err
		}
		if *field(&t.spec), err = parseTime(s); err != nil {
			return valueError{what: err.Error(), hint: "write 90s, 30m, 1h30m, 2d12h, HH:MM:SS or days-HH:MM"}
		}
		return nil
	}
}
