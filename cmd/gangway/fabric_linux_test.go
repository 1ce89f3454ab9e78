package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A gang goes under one leaf switch, though the user's order has hosts of
// both; without a fabric it is the order that counts.
func TestHostsFabric(t *testing.T) {
	b := hosts(t, 4)
	file := filepath.Join(b.lab.Launcher().Root(), "tmp", "fabric.yaml")
	text := "switches:\n  - {name: left, links: [{to: top}]}\n  - {name: right, links: [{to: top}]}\n  - {name: top}\nhosts:\n" +
		"  - {name: n1, switch: left}\n  - {name: n2, switch: right}\n  - {name: n3, switch: left}\n  - {name: n4, switch: right}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	on := func(args ...string) string {
		out, _ := b.want(0, append([]string{"run", "--hosts", "n[1-4]", "-D", "/"}, append(args, "--", "hostname")...)...)
		got := lines(out)
		slices.Sort(got)
		return strings.Join(got, " ")
	}
	for _, c := range []struct{ args, want string }{
		{"-N 2", "n1 n2"},
		{"-N 2 --fabric /tmp/fabric.yaml", "n1 n3"},
		{"-N 2 --fabric /tmp/fabric.yaml --switches 1", "n1 n3"},
		{"-N 3 --fabric /tmp/fabric.yaml --switches 1@1s", "n1 n2 n3"},
		{"-N 4 --fabric /tmp/fabric.yaml --spread balance", "n1 n2 n3 n4"},
	} {
		if got := on(strings.Fields(c.args)...); got != c.want {
			t.Errorf("run %s: on %s, want %s", c.args, got, c.want)
		}
	}
	planned, _ := b.want(0, "plan", "--hosts", "n[1-4]", "-D", "/", "-N", "3", "--fabric", "/tmp/fabric.yaml", "--", "hostname")
	if want := "leaves    left: n[1,3]; right: n2\n"; !strings.Contains(planned, want) {
		t.Errorf("the plan does not have %q:\n%s", want, planned)
	}
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"-N 2 --switches 1", 2, "--fabric"},
		{"-N 2 --fabric /tmp/none", 2, "/tmp/none"},
		{"-N 2 --fabric /tmp/fabric.yaml --switches 0", 2, "--switches 1"},
		{"-N 2 --fabric /tmp/fabric.yaml --switches 1@x", 2, "length of time"},
		{"-N 2 --fabric /tmp/fabric.yaml --spread far", 2, "pack, balance"},
		{"-N 3 --fabric /tmp/fabric.yaml --switches 1", 125, "can never be on at most 1 leaf switch"},
	} {
		args := append([]string{"run", "--hosts", "n[1-4]", "-D", "/"}, strings.Fields(c.args)...)
		if _, errs := b.want(c.status, append(args, "--", "hostname")...); !strings.Contains(errs, c.want) {
			t.Errorf("run %s: %q does not have %q", c.args, errs, c.want)
		}
	}
}
