package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/launcher"
)

func TestBindingFlags(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // of the task, or an error
	}{
		{"-n 2", "cores 1 gpus 0 threads 0 smt 0 optimize  no-greedy false"},
		{"-n 2 --threads 6", "cores 6 gpus 0 threads 6 smt 0 optimize  no-greedy false"},
		{"-n 2 --threads 6 --smt 2", "cores 3 gpus 0 threads 6 smt 2 optimize  no-greedy false"},
		{"-n 2 --threads 5 --smt 2", "cores 3 gpus 0 threads 5 smt 2 optimize  no-greedy false"},
		{"-n 2 --threads 6 -c 1", "cores 1 gpus 0 threads 6 smt 0 optimize  no-greedy false"},
		{"-n 2 --optimize cpu --no-greedy", "cores 1 gpus 0 threads 0 smt 0 optimize cpu no-greedy true"},
		{"-n 2 --bind gpu", "cores 1 gpus 1 threads 0 smt 0 optimize  no-greedy false"},
		{"-n 2 --bind gpu --gpus-per-rank 2", "cores 1 gpus 2 threads 0 smt 0 optimize  no-greedy false"},
		{"--launch primary --bind gpu", "cores 1 gpus 0 threads 0 smt 0 optimize  no-greedy false"},
		{"-n 2 --threads 0", "--threads 0"},
		{"-n 2 --smt -1", "--smt -1"},
		{"-n 2 --bind core --no-greedy", "--no-greedy: means nothing with bind core"},
		{"-n 2 --bind none --smt 2", "--smt: means nothing with bind none"},
		{"-n 2 --optimize disk", "--optimize: \"disk\" is unknown"},
		{"--launch primary --threads 2", "--launch: primary starts a command that places its ranks itself"},
	} {
		s, err := parsed(t, nil, strings.Fields(c.args)...)
		got := fmt.Sprintf("cores %d gpus %d threads %d smt %d optimize %s no-greedy %v", s.CoresPerRank, s.GPUsPerRank, s.Threads, s.SMT, s.Optimize, s.NoGreedy)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, want %s", c.args, got, c.want)
		}
	}
}

func TestReportBindings(t *testing.T) {
	b := local(t)
	// This machine's own findings are no matter here.
	args := []string{"-n", "1", "--preflight", "off", "--bind", "core", "--report-bindings", "--", "sh", "-c", "grep Cpus_allowed_list /proc/self/status"}
	out, errs := b.want(0, append([]string{"run"}, args...)...)
	cpus := strings.Fields(out)[1]
	if want := fmt.Sprintf("cpus %s numa ", cpus); !strings.HasPrefix(errs, "gangway: rank 0 ") || !strings.Contains(errs, want) || !strings.HasSuffix(errs, " threads 1\n") {
		t.Errorf("the program runs on %s, said is %q", cpus, errs)
	}
	out, _ = b.want(0, append([]string{"run", "--json"}, args...)...)
	var said struct{ Ranks []launcher.Place }
	for _, line := range lines(out) {
		if strings.Contains(line, `"type":"bindings"`) {
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(said.Ranks) != 1 || said.Ranks[0].CPUs == "" || said.Ranks[0].Threads != 1 || said.Ranks[0].Env != nil {
		t.Errorf("said %+v in %s", said, out)
	}
	if _, errs := b.want(0, "run", "--bind", "none", "--report-bindings", "--", "true"); !strings.Contains(errs, " unbound") {
		t.Errorf("unbound: %q", errs)
	}
	if _, errs := b.want(0, "run", "--launch", "primary", "--report-bindings", "--", "true"); !strings.Contains(errs, "places its ranks itself") {
		t.Errorf("primary: %q", errs)
	}
}

func TestPlanTellsTheEnvironment(t *testing.T) {
	b := local(t)
	out, _ := b.want(0, "plan", "-n", "1", "--threads", "1", "--json", "--", "true")
	var d planDocument
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	p := d.Ranks[0]
	want := map[string]string{"OMP_NUM_THREADS": "1", "OMP_PLACES": "{" + p.CPUs + "}", "OMP_PROC_BIND": "spread"}
	if diff := cmp.Diff(want, p.Env); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !strings.Contains(out, `"nics": []`) || !strings.Contains(out, `"gpus": []`) {
		t.Errorf("lists that are empty are lists: %s", out)
	}
}

// TestBindingCantBe holds that what can't be is said before anything starts.
func TestBindingCantBe(t *testing.T) {
	b := local(t)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"1 GPU can never fit", []string{"--bind", "gpu"}},
		{"1 GPU can never fit", []string{"--gpus-per-rank", "1"}},
		{"add --oversubscribe", []string{"--threads", "5000"}},
		{"PUs a core", []string{"--smt", "500"}},
	} {
		out, errs := b.want(exitFailed, append(append([]string{"run"}, c.args...), "--", "echo", "started")...)
		if out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: %q %q, want %q", c.args, out, errs, c.want)
		}
	}
}

func TestPlaceInWords(t *testing.T) {
	p := launcher.Place{Rank: 3, Node: "n1", CPUs: "8-11", Mem: []int{1}, GPUs: []string{"2"}, NICs: []string{"mlx5_2"}, Threads: 4}
	if got, want := p.String(), "rank 3 n1 cpus 8-11 numa 1 gpus 2 nic mlx5_2 threads 4"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := (launcher.Place{Node: "n1", Threads: 1}).String(), "rank 0 n1 unbound threads 1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestSubmitReportsNothing holds that what only a run can print is not offered.
func TestSubmitReportsNothing(t *testing.T) {
	if f := newSubmitCommand(&app{}).Flags().Lookup("report-bindings"); f == nil || !f.Hidden {
		t.Error("submit offers --report-bindings")
	}
}
