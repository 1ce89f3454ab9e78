package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// planned runs gangway plan with arguments and returns what it printed.
func planned(t *testing.T, args ...string) (out, errs string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	a := &app{stdout: &o, stderr: &e}
	root := newRoot(a)
	root.SetArgs(append([]string{"plan"}, args...))
	status = report(&e, a.json, root.Execute())
	return o.String(), e.String(), status
}

func TestPlanFrom(t *testing.T) {
	out, errs, status := planned(t, "--from", "pack:2 core:4 pu:2", "-n", "2", "--threads", "2", "--json")
	if status != exitOK {
		t.Fatalf("status %d: %s", status, errs)
	}
	var d fromDocument
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	want := fromDocument{Node: "synthetic", Ranks: []fromRank{
		{Rank: 0, Threads: 2, CPUs: "0,2,4,6", GPUs: []string{}, Mem: []int{0}, NICs: []string{},
			Env: map[string]string{"OMP_NUM_THREADS": "2", "OMP_PLACES": "{0,2},{4,6}", "OMP_PROC_BIND": "spread"}},
		{Rank: 1, Threads: 2, CPUs: "8,10,12,14", GPUs: []string{}, Mem: []int{0}, NICs: []string{},
			Env: map[string]string{"OMP_NUM_THREADS": "2", "OMP_PLACES": "{8,10},{12,14}", "OMP_PROC_BIND": "spread"}},
	}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out, errs, status = planned(t, "--from", "pack:2 core:4 pu:2", "-n", "2", "--bind", "core", "--cpus", "4-15")
	if status != exitOK {
		t.Fatalf("status %d: %s", status, errs)
	}
	const text = "node      synthetic\n\nRANK  THREADS  CPUS  NUMA  GPUS  NICS\n0     1        4-5   0     -     -\n1     1        6-7   0     -     -\n"
	if diff := cmp.Diff(text, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPlanFromErrors(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd")
	if err := os.WriteFile(odd, []byte("no machine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.xml")
	if err := os.WriteFile(newer, []byte(`<topology version="9.0"></topology>`), 0o600); err != nil {
		t.Fatal(err)
	}
	const machine = "pack:1 core:4 pu:2"
	for _, c := range []struct {
		status int
		want   string
		args   []string
	}{
		{exitFailed, "no such file", []string{"--from", filepath.Join(dir, "absent.xml"), "-n", "1"}},
		{exitFailed, "neither", []string{"--from", odd, "-n", "1"}},
		{exitFailed, `version "9.0" is not known`, []string{"--from", newer, "-n", "1"}},
		{exitUsage, "give the number of ranks", []string{"--from", machine}},
		{exitUsage, "-n 0", []string{"--from", machine, "-n", "0"}},
		{exitUsage, "-n -3", []string{"--from", machine, "-n", "-3"}},
		{exitUsage, "-n 1000001", []string{"--from", machine, "-n", "1000001"}},
		{exitUsage, "--threads 0", []string{"--from", machine, "-n", "1", "--threads", "0"}},
		{exitUsage, "--optimize", []string{"--from", machine, "-n", "1", "--optimize", "disk"}},
		{exitUsage, "--bind", []string{"--from", machine, "-n", "1", "--bind", "tape"}},
		{exitUsage, "--cpus", []string{"--from", machine, "-n", "1", "--cpus", "a"}},
		{exitFailed, "the cores have 1 to 2", []string{"--from", machine, "-n", "1", "--smt", "3"}},
		{exitFailed, "no GPUs are known", []string{"--from", machine, "-n", "1", "--bind", "gpu"}},
		{exitFailed, "granted cpus 9 are not online", []string{"--from", machine, "-n", "1", "--cpus", "9"}},
		{exitFailed, "5 ranks of 1 cores need 5", []string{"--from", machine, "-n", "5", "-c", "1"}},
		{exitUsage, "--cpus is for plans of other machines", []string{"--cpus", "0", "-n", "1", "--", "true"}},
	} {
		if _, errs, status := planned(t, c.args...); status != c.status || !strings.Contains(errs, c.want) {
			t.Errorf("%q: status %d, %q; want %d, %q", c.args, status, errs, c.status, c.want)
		}
	}
}
