package jobfile

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/job"
)

// Format writes a job as a job file: Parse of the result gives spec again, with
// its kinds and ranges filled in. It fails for what a job file can't say:
// invalid jobs, sessions, standard input, texts that are not UTF-8.
func Format(spec job.Spec) ([]byte, error) {
	var w writer
	w.line("job: %s", text(spec.ID))
	if spec.Pool != "" {
		w.line("pool: %s", text(spec.Pool))
	}
	if spec.Priority != 0 {
		w.line("priority: %d", spec.Priority)
	}
	if spec.MaxFailures != nil {
		w.line("max-failures: %d", *spec.MaxFailures)
	}
	if spec.MaxRunning != 0 {
		w.line("max-running: %d", spec.MaxRunning)
	}
	w.line("tasks:")
	want := spec
	want.Tasks = nil
	for _, t := range spec.Tasks {
		if t.Kind == "" {
			t.Kind = job.Single
		}
		t.Range = t.Elements()
		want.Tasks = append(want.Tasks, t)
		w.task(t)
	}
	out := []byte(w.String())
	got, err := Parse("job file", out)
	if err != nil {
		return nil, fmt.Errorf("job %s can't be written as a job file: %w", spec.ID, err)
	}
	if !equal(got, want) {
		return nil, fmt.Errorf("job %s can't be written as a job file: it has settings that a job file lacks, such as a session, standard input or text that is not UTF-8", spec.ID)
	}
	return out, nil
}

// equal compares jobs; empty lists are as good as none.
func equal(a, b job.Spec) bool {
	for _, s := range []*job.Spec{&a, &b} {
		tasks := make([]job.TaskSpec, len(s.Tasks))
		for i, t := range s.Tasks {
			if len(t.PerNode) == 0 {
				t.PerNode = nil
			}
			if len(t.Env) == 0 {
				t.Env = nil
			}
			if len(t.DependsOn) == 0 {
				t.DependsOn = nil
			}
			t.Exit = t.Exit.Plain()
			if len(t.EnvBase) == 0 {
				t.EnvBase = nil
			}
			tasks[i] = t
		}
		s.Tasks = tasks
	}
	return reflect.DeepEqual(a, b)
}

// writer collects a file's lines.
type writer struct{ strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

func (w *writer) key(key, value string) {
	if value != "" {
		w.line("    %s: %s", key, value)
	}
}

func (w *writer) number(key string, n int) {
	if n != 0 {
		w.key(key, strconv.Itoa(n))
	}
}

func (w *writer) word(key, value string) {
	if value != "" {
		w.key(key, text(value))
	}
}

func (w *writer) flag(key string, on bool) {
	if on {
		w.key(key, "true")
	}
}

func (w *writer) time(key string, d time.Duration) {
	if d != 0 {
		w.key(key, d.String())
	}
}

func (w *writer) task(t job.TaskSpec) {
	w.name(t)
	derived := job.Single
	if varyGang(t) || t.Nodes != 0 || t.Ranks != 0 || t.RanksPerNode != 0 || len(t.PerNode) > 0 {
		derived = job.Gang
	}
	if t.Kind != derived {
		w.word("kind", string(t.Kind))
	}
	w.sweep(t)
	switch {
	case t.Sweep != nil:
	case t.Range.Lo == 0 && t.Range.Hi > 1:
		w.key("array", strconv.FormatUint(t.Range.Hi, 10))
	case t.Range.Lo > 0:
		w.key("array", fmt.Sprintf("%d-%d", t.Range.Lo, t.Range.Hi-1))
	}
	w.number("nodes", t.Nodes)
	w.number("ranks", t.Ranks)
	w.number("ranks-per-node", t.RanksPerNode)
	if len(t.PerNode) > 0 {
		w.line("    per-node:") // a list, since a node that is there twice is told by job.Validate
		for _, p := range t.PerNode {
			w.line("      - %s: %d", text(p.Node), p.Ranks)
		}
	}
	w.number("cpus-per-rank", t.CoresPerRank)
	w.number("gpus-per-rank", t.GPUsPerRank)
	if t.MemPerRank > 0 {
		w.key("mem-per-rank", formatBytes(t.MemPerRank))
	}
	w.flag("oversubscribe", t.Oversubscribe)
	w.word("mpi", t.MPI)
	w.word("launch", string(t.Launch))
	w.word("via", t.Via)
	w.word("bind", t.Bind)
	w.number("threads", t.Threads)
	w.number("smt", t.SMT)
	w.word("optimize", t.Optimize)
	w.flag("no-greedy", t.NoGreedy)
	w.word("preflight", t.Preflight)
	w.word("distribution", string(t.Distribution))
	if t.Switches > 0 {
		v := strconv.Itoa(t.Switches)
		if t.SwitchesWait > 0 {
			v += "@" + t.SwitchesWait.String()
		}
		w.key("switches", v)
	}
	w.word("spread", string(t.Spread))
	w.word("network", t.Network)
	w.time("time", t.TimeLimit)
	w.time("kill-grace", t.KillGrace)
	w.time("launch-deadline", t.LaunchDeadline)
	w.word("workdir", t.WorkDir)
	if len(t.Env) > 0 {
		w.line("    env:")
		for _, e := range t.Env {
			name, value, _ := strings.Cut(e, "=")
			w.line("      %s: %s", text(name), text(value))
		}
	}
	if t.Setup != nil {
		w.line("    setup:")
		w.line("      name: %s", text(t.Setup.Name))
		w.line("      script: %s", block(string(t.Setup.Script), "        "))
	}
	w.command(t.Command)
	w.flag("bcast", t.Bcast)
	w.number("retries", t.Retries)
	w.word("on-node-loss", string(t.OnNodeLoss))
	w.order(t)
}

// command writes a list of arguments, in one line if none has several itself.
func (w *writer) command(command []string) {
	words := make([]string, len(command))
	for i, c := range command {
		if strings.Contains(c, "\n") {
			w.line("    command:")
			for _, c := range command {
				w.line("      - %s", block(c, "        "))
			}
			return
		}
		words[i] = text(c)
	}
	w.line("    command: [%s]", strings.Join(words, ", "))
}

// text writes a text plain where no reader can mistake it, else in quotes.
func text(s string) string {
	plain := s != "" && s[0] != '-' && s[0] != '.'
	for i := 0; i < len(s); i++ {
		c := s[i]
		plain = plain && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' || c == '/')
	}
	switch strings.ToLower(s) { // readers of older YAML take these for truth values or nothing
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		plain = false
	}
	if plain && (s[0] < '0' || s[0] > '9') {
		return s
	}
	return quoted(s)
}

// quoted writes a text in double quotes, with JSON's escapes, which are also
// YAML's. What would look different in a terminal is escaped too.
func quoted(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string never fails
		return strconv.Quote(s)
	}
	var out strings.Builder
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		switch {
		case r == '\t' || r > 0xFFFF || r < 0x7F:
			out.WriteRune(r)
		case !printable(r) || visible(string(r)) != string(r) || r == 0x85:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// block writes a text of several lines as it is, where YAML keeps that, else in
// quotes.
func block(s, indent string) string {
	body, ok := strings.CutSuffix(s, "\n")
	lines := strings.Split(body, "\n")
	for i, l := range lines { // inner lines may be empty
		ok = ok && visible(l) == l && strings.TrimRight(l, " ") == l && (l != "" || i > 0 && i < len(lines)-1)
	}
	if !ok || strings.HasPrefix(lines[0], " ") {
		return quoted(s)
	}
	return "|\n" + indent + strings.Join(lines, "\n"+indent)
}
