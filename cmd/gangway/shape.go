package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gangway/launcher/job"
	"gangway/topology"
)

// shape fills in the counts that the list of hosts implies. Counts that can't
// be had together are refused here, in the words of the flags.
func (f *runFlags) shape(t *job.TaskSpec, entries []topology.HostEntry) error {
	if len(entries) == 0 && f.nodes > 1 && !f.standing {
		return usagef("name hosts with --hosts, --hostfile or --agents", "-N %d, but without a list of hosts there is only this machine", f.nodes)
	}
	if n := len(entries); n > 0 && f.nodes > n {
		return usagef(fmt.Sprintf("ask for at most -N %d, or name more hosts", n), "-N %d, but %s names %s", f.nodes, f.listFlag(), count(n, "host"))
	}
	if f.ranks > 0 && f.nodes > f.ranks {
		return usagef(fmt.Sprintf("ask for at most -N %d, or for more ranks", f.ranks), "-N %d -n %d: every node needs a rank", f.nodes, f.ranks)
	}
	if f.ranks > 0 && f.nodes > 0 && f.ppn > 0 && f.nodes*f.ppn != f.ranks {
		return usagef("drop one of the three, or make them agree",
			"-n %d is not -N %d × --ppn %d, which is %d", f.ranks, f.nodes, f.ppn, f.nodes*f.ppn)
	}
	slots := slices.ContainsFunc(entries, func(e topology.HostEntry) bool { return e.Slots > 0 })
	switch {
	case len(entries) == 0:
		if t.Ranks == 0 {
			t.Nodes = max(t.Nodes, 1)
			t.RanksPerNode = max(t.RanksPerNode, 1)
		}
	case slots && f.ppn == 0:
		return f.bySlots(t, entries)
	case f.ranks == 0:
		if f.nodes == 0 {
			t.Nodes = len(entries)
		}
		if f.ppn == 0 {
			t.RanksPerNode = 1
		}
	}
	return nil
}

// bySlots places ranks as the slots of a hostfile say, in its order: all of
// them or, with -n, as many as it takes. With -N the first hosts are used, each
// of them.
func (f *runFlags) bySlots(t *job.TaskSpec, entries []topology.HostEntry) error {
	if f.nodes > 0 {
		entries = entries[:f.nodes]
	}
	all := 0
	for _, e := range entries {
		all += max(e.Slots, 1)
	}
	if f.ranks > all {
		return usagef(f.fewerRanks(entries, all), "-n %d is more than the %s of %s (%s)", f.ranks, count(all, "slot"), f.listFlag(), slotList(entries))
	}
	left := all
	if f.ranks > 0 {
		left = f.ranks
	}
	for i, e := range entries {
		n := min(max(e.Slots, 1), left)
		if f.nodes > 0 {
			n = min(n, left-(len(entries)-1-i)) // one for each that is to come
		}
		if n == 0 {
			break
		}
		t.PerNode = append(t.PerNode, job.NodeRanks{Node: e.Name, Ranks: n})
		left -= n
	}
	t.Ranks, t.Nodes = 0, 0
	return nil
}

// fewerRanks says what would fit in place of -n.
func (f *runFlags) fewerRanks(entries []topology.HostEntry, all int) string {
	per := (f.ranks + len(entries) - 1) / len(entries)
	return fmt.Sprintf("ask for at most -n %d, raise the slots, or give --ppn %d to place ranks regardless of slots", all, per)
}

// listFlag is the flag that names the hosts, with a file's name.
func (f *runFlags) listFlag() string {
	switch {
	case f.hostfile != "":
		return "--hostfile " + f.hostfile
	case f.agents != "":
		return "--agents"
	}
	return "--hosts"
}

// slotList names the hosts and their slots, the first few.
func slotList(entries []topology.HostEntry) string {
	const shown = 4
	var out []string
	for i, e := range entries {
		if i == shown {
			out = append(out, fmt.Sprintf("and %d more", len(entries)-i))
			break
		}
		out = append(out, fmt.Sprintf("%s: %d", e.Name, max(e.Slots, 1)))
	}
	return strings.Join(out, ", ")
}

// used are the hosts of the list that a task has ranks on: no other needs to
// be reached. All of them, unless it says which.
func used(t job.TaskSpec, entries []topology.HostEntry) []topology.HostEntry {
	if len(t.PerNode) == 0 {
		return entries
	}
	return slices.DeleteFunc(slices.Clone(entries), func(e topology.HostEntry) bool {
		return !slices.ContainsFunc(t.PerNode, func(p job.NodeRanks) bool { return p.Node == e.Name })
	})
}

func count(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

// problems words what is wrong with a spec by the flags that set its fields.
func problems(err error) error {
	var all job.Problems
	if !errors.As(err, &all) {
		return err
	}
	lines := make([]string, len(all))
	for i, p := range all {
		field := strings.TrimPrefix(p.Field, "tasks[0].")
		if k := strings.IndexByte(field, '['); k >= 0 {
			field = field[:k]
		}
		if flag := flagOf(field); flag != "" {
			field = flag
		}
		lines[i] = field + ": " + p.Text
	}
	return usagef("see gangway run --help", "%s", strings.Join(lines, "\n"))
}

// flagOf is the flag that sets a field of a spec.
func flagOf(field string) string {
	switch field {
	case "nodes":
		return "-N"
	case "ranks":
		return "-n"
	case "ranks-per-node":
		return "--ppn"
	case "per-node":
		return "--hostfile"
	case "cores-per-rank":
		return "-c"
	case "env":
		return "-x"
	case "workdir":
		return "--chdir"
	case "id":
		return "--name"
	case "via":
		return "--launch"
	case "launch-deadline":
		return "--launch-timeout"
	case "switches-wait":
		return "--switches"
	case "gpus-per-rank", "mem-per-rank", "mpi", "launch", "bind", "threads", "smt", "optimize", "no-greedy", "preflight", "switches", "spread", "distribution", "network", "time", "kill-grace", "priority":
		return "--" + field
	}
	return ""
}
