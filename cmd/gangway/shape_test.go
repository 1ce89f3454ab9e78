package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"gangway/launcher/job"
	"gangway/topology"
)

// parsed is a task as run would make it of flags and hosts.
func parsed(t *testing.T, entries []topology.HostEntry, args ...string) (job.TaskSpec, error) {
	t.Helper()
	f := &runFlags{}
	c := &cobra.Command{Use: "run"}
	f.register(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	s, err := f.spec(entries, []string{"true"})
	if err != nil {
		return job.TaskSpec{}, err
	}
	if err := job.Validate(s); err != nil {
		return job.TaskSpec{}, problems(err)
	}
	return s.Tasks[0].Resolve(), nil
}

func TestShapeBySlots(t *testing.T) {
	hosts := []topology.HostEntry{{Name: "n2", Slots: 2}, {Name: "n1"}, {Name: "n3", Slots: 3}}
	for _, c := range []struct {
		args string
		want []job.NodeRanks
		used string
	}{
		{"", []job.NodeRanks{{Node: "n2", Ranks: 2}, {Node: "n1", Ranks: 1}, {Node: "n3", Ranks: 3}}, "n2 n1 n3"},
		{"-N 2", []job.NodeRanks{{Node: "n2", Ranks: 2}, {Node: "n1", Ranks: 1}}, "n2 n1"},
		{"-N 3", []job.NodeRanks{{Node: "n2", Ranks: 2}, {Node: "n1", Ranks: 1}, {Node: "n3", Ranks: 3}}, "n2 n1 n3"},
		{"-n 2", []job.NodeRanks{{Node: "n2", Ranks: 2}}, "n2"},
		{"-n 4", []job.NodeRanks{{Node: "n2", Ranks: 2}, {Node: "n1", Ranks: 1}, {Node: "n3", Ranks: 1}}, "n2 n1 n3"},
		{"-N 3 -n 3", []job.NodeRanks{{Node: "n2", Ranks: 1}, {Node: "n1", Ranks: 1}, {Node: "n3", Ranks: 1}}, "n2 n1 n3"},
		{"-N 2 -n 2", []job.NodeRanks{{Node: "n2", Ranks: 1}, {Node: "n1", Ranks: 1}}, "n2 n1"},
		{"--ppn 2", nil, "n2 n1 n3"},
		{"--ppn 1 -N 2", nil, "n2 n1 n3"},
	} {
		got, err := parsed(t, hosts, append([]string{"--hostfile", "F"}, strings.Fields(c.args)...)...)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		if d := cmp.Diff(c.want, got.PerNode); d != "" {
			t.Errorf("%s: %s", c.args, d)
		}
		var names []string
		for _, e := range used(got, hosts) {
			names = append(names, e.Name)
		}
		if strings.Join(names, " ") != c.used {
			t.Errorf("%s: uses %q, want %q", c.args, names, c.used)
		}
	}
}

func TestShapeRefusals(t *testing.T) {
	hosts := []topology.HostEntry{{Name: "n1", Slots: 2}, {Name: "n2", Slots: 2}}
	for _, c := range []struct{ args, msg, hint string }{
		{"-n 10", "-n 10 is more than the 4 slots of --hostfile F (n1: 2, n2: 2)", "at most -n 4, raise the slots, or give --ppn 5 "},
		{"-n 3 -N 1", "-n 3 is more than the 2 slots of --hostfile F (n1: 2)", "at most -n 2, raise the slots, or give --ppn 3 "},
		{"-N 3", "-N 3, but --hostfile F names 2 hosts", "at most -N 2"},
		{"-N 2 -n 1", "every node needs a rank", "at most -N 1"},
		{"-N 2 --ppn 2 -n 5", "-n 5 is not -N 2 × --ppn 2, which is 4", "make them agree"},
		{"--gpus-per-rank 9999", "--gpus-per-rank: 9999 is out of range", "--help"},
		{"--ppn 9999999 -N 1", "--ppn: 9999999 is out of range", "--help"},
		{"--name a/b", `--name: "a/b" is not an id`, "--help"},
		{"-x 2X=1", `-x: "2X" can't be the name of a variable`, "NAME=VALUE"},
	} {
		_, err := parsed(t, hosts, append([]string{"--hostfile", "F"}, strings.Fields(c.args)...)...)
		var ue *userError
		if !errors.As(err, &ue) || ue.code != exitUsage {
			t.Errorf("%s: %v is no usage error", c.args, err)
			continue
		}
		if !strings.Contains(ue.msg, c.msg) || !strings.Contains(ue.hint, c.hint) {
			t.Errorf("%s:\n%s\n  %s\nwant\n%s\n  %s", c.args, ue.msg, ue.hint, c.msg, c.hint)
		}
		for _, word := range []string{"tasks[", "per-node[", "ranks-per-node"} {
			if strings.Contains(ue.msg, word) {
				t.Errorf("%s: names an inner field: %s", c.args, ue.msg)
			}
		}
	}
	if _, err := parsed(t, nil, "-N", "2"); err == nil || !strings.Contains(err.Error(), "only this machine") {
		t.Errorf("%v", err)
	}
	if _, err := parsed(t, nil, "-x", "B A=1"); err == nil || !strings.Contains(err.Error(), `"B A"`) {
		t.Errorf("%v", err)
	}
}

// A launcher that stays knows its nodes; the command line doesn't.
func TestSubmitShape(t *testing.T) {
	type shape struct{ Nodes, Ranks, PerNode int }
	for args, want := range map[string]shape{
		"":                      {1, 1, 1},
		"-N 4":                  {4, 4, 1},
		"-N 4 --ppn 8":          {4, 32, 8},
		"-N 2 -n 4":             {2, 4, 0},
		"-N 2 -n 4 --ppn 2":     {2, 4, 2},
		"--ppn 3":               {1, 3, 3},
		"-n 8 --ppn 2":          {4, 8, 2},
		"-N 4 --launch primary": {4, 4, 1},
	} {
		f := &submitFlags{}
		c := &cobra.Command{Use: "submit"}
		f.run.register(c)
		if err := c.ParseFlags(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		f.retries, f.onNodeLoss = 0, string(job.NodeLossRequeue)
		s, err := f.command([]string{"true"})
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		r := s.Tasks[0].Resolve()
		if got := (shape{r.Nodes, r.Ranks, r.RanksPerNode}); got != want {
			t.Errorf("%s: %+v, want %+v", args, got, want)
		}
	}
}
