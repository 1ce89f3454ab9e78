//go:build linux

package proc

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lines waits until file has n lines of numbers.
func lines(t *testing.T, file string, n int) []int {
	t.Helper()
	var out []int
	eventually(t, fmt.Sprintf("%d numbers in %s", n, file), func() bool {
		b, _ := os.ReadFile(file)
		out = nil
		for _, w := range strings.Fields(string(b)) {
			if i, err := strconv.Atoi(w); err == nil {
				out = append(out, i)
			}
		}
		return len(out) >= n && bytes.HasSuffix(b, []byte("\n"))
	})
	slices.Sort(out)
	return out
}

// family starts a shell with children, a grandchild in its own session and one
// that ignores SIGTERM, and returns it with all their pids.
func family(t *testing.T, env ...string) (*Process, []int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pids")
	c := sh(`
echo $$ >>` + file + `
sh -c 'echo $$ >>` + file + `; exec sleep 1000' &
sh -c 'echo $$ >>` + file + `; setsid sh -c "echo \$\$ >>` + file + `; exec sleep 1000" & wait' &
sh -c 'trap "" TERM; echo $$ >>` + file + `; while :; do sleep 1000; done' &
wait`)
	c.Env = append(os.Environ(), env...)
	p, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	pids := lines(t, file, 5)
	t.Cleanup(func() {
		Kill(pids)
		_, _ = p.Wait()
	})
	return p, pids
}

func living(pids []int) (out []int) {
	for _, p := range pids {
		if s, err := readStat(p); err == nil && s.alive() {
			out = append(out, p)
		}
	}
	return out
}

func without(pids []int, drop ...int) []int {
	return slices.DeleteFunc(slices.Clone(pids), func(p int) bool { return slices.Contains(drop, p) })
}

func TestDescendants(t *testing.T) {
	p, pids := family(t)
	want := without(pids, p.Pid())
	eventually(t, "all are listed", func() bool {
		got, err := Descendants(p.Pid())
		if err != nil {
			t.Fatal(err)
		}
		return len(without(want, got...)) == 0
	})
	if got, err := Descendants(1 << 30); err != nil || len(got) != 0 {
		t.Errorf("of nobody: %v %v", got, err)
	}
}

func TestKillTree(t *testing.T) {
	p, pids := family(t)
	left, err := KillTree(p.Pid(), 10*time.Second)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if l := living(pids); len(l) != 0 {
		t.Errorf("still alive: %v", l)
	}
}

func TestKillTreeSparesTheExcluded(t *testing.T) {
	p, pids := family(t)
	kids := childrenOf(p.Pid(), nil)
	var spared []int
	for _, k := range kids { // the one with a child
		if below := childrenOf(k, nil); len(below) == 1 && !slices.Contains(childrenOf(below[0], nil), 0) {
			spared = append([]int{k}, below...)
			break
		}
	}
	if len(spared) != 2 {
		t.Fatalf("children %v of %d have none", kids, p.Pid())
	}
	left, err := KillTree(p.Pid(), 10*time.Second, spared[0])
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if l := living(spared); len(l) != 2 {
		t.Errorf("of the spared %v live %v", spared, l)
	}
	if l := living(without(pids, spared...)); len(l) != 0 {
		t.Errorf("still alive: %v", l)
	}
	Kill(spared)
}

func TestSignalTree(t *testing.T) {
	p, pids := family(t)
	if err := SignalTree(p.Pid(), 15); err != nil {
		t.Error(err)
	}
	eventually(t, "all but the stubborn and the root end", func() bool { return len(living(pids)) <= 2 })
	if l := living(pids); !slices.Contains(l, p.Pid()) && len(l) == 2 {
		t.Errorf("the root got the signal: %v", l)
	}
}

func TestByEnv(t *testing.T) {
	marker := fmt.Sprintf("GANGWAY_ID=test-%d", os.Getpid())
	p, pids := family(t, marker)
	if got := ByEnv(marker); len(without(pids, got...)) != 0 {
		t.Errorf("found %v of %v", got, pids)
	}
	if got := ByEnv(marker[:len(marker)-1]); len(got) != 0 {
		t.Errorf("a marker that is only a prefix finds %v", got)
	}
	if !Alive(p.Pid(), marker) || Alive(p.Pid(), "GANGWAY_ID=other") || Alive(1<<30, marker) {
		t.Error("Alive is wrong")
	}
	left, err := KillByEnv(marker, 10*time.Second)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if l := living(pids); len(l) != 0 {
		t.Errorf("still alive: %v", l)
	}
	if Alive(p.Pid(), marker) {
		t.Error("a zombie is alive")
	}
	if got := ByEnv(marker); len(got) != 0 {
		t.Errorf("after the end: %v", got)
	}
}

// TestRunaway lets chains of processes run that each start the next and exit,
// in a new session or not: at any time there are few, but never the same ones.
// Beside them bombs double until they are 64. All end by themselves after a while.
func TestRunaway(t *testing.T) {
	if out, st := output(t, Start, self("runaway")); st.ExitCode != 0 || out != "" {
		t.Errorf("%+v %s", st, out)
	}
}

func runaway(dir string) error {
	if err := SetSubreaper(); err != nil {
		return err
	}
	f := NewForker()
	defer f.Close()
	f.StartReaper()
	marker := fmt.Sprintf("GANGWAY_ID=runaway-%d", os.Getpid())
	script := filepath.Join(dir, "hop")
	const hop = `#!/bin/sh
[ "$(date +%s)" -lt "$END" ] || exit
if [ "$1" = far ]; then setsid "$0" far & else "$0" near & fi
exit
`
	const bomb = `#!/bin/sh
[ "$(date +%s)" -lt "$END" ] || exit
if [ "$1" -gt 0 ]; then "$0" $(($1 - 1)) & "$0" $(($1 - 1)) & fi
wait
while [ "$(date +%s)" -lt "$END" ]; do sleep 0.01; done
`
	bombs := filepath.Join(dir, "bomb")
	for p, s := range map[string]string{script: hop, bombs: bomb} {
		if err := os.WriteFile(p, []byte(s), 0o755); err != nil {
			return err
		}
	}
	env := append(os.Environ(), fmt.Sprintf("END=%d", time.Now().Add(20*time.Second).Unix()), marker)
	for _, args := range [][]string{{script, "far"}, {script, "near"}, {script, "far"}, {bombs, "6"}} {
		p, err := f.Start(Cmd{Path: args[0], Args: args, Env: env, NewSession: true})
		if err != nil {
			return err
		}
		go func() { _, _ = p.Wait() }()
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if d, err := Descendants(os.Getpid()); err != nil || len(d) > 20 {
			break
		}
	}
	start := time.Now()
	left, err := KillTree(os.Getpid(), 15*time.Second)
	if err != nil || len(left) > 0 {
		return fmt.Errorf("left %v after %v: %w", left, time.Since(start), err)
	}
	if found := ByEnv(marker); len(found) > 0 {
		return fmt.Errorf("escaped: %v", found)
	}
	if d := time.Since(start); d > 8*time.Second {
		return fmt.Errorf("it took %v", d)
	}
	return nil
}

func TestParseStat(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want stat
		ok   bool
	}{
		{"7 (a) S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 13 20 0 1 99 1", stat{7, 1, 2, 'S', 99}, true},
		{"7 (a) b (c)) Z 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 13 20 0 1 99 1", stat{7, 1, 2, 'Z', 99}, true},
		{"7 (a) S 1 2", stat{}, false},
		{"", stat{}, false},
		{") (", stat{}, false},
	} {
		got, err := parseStat([]byte(tc.in))
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%q: %+v %v", tc.in, got, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (a) b (c)) Z 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 13 20 0 1 99 1"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err != nil && s != (stat{}) {
			t.Errorf("an error and %+v", s)
		}
	})
}

func BenchmarkDescendants(b *testing.B) {
	for b.Loop() {
		if _, err := Descendants(os.Getpid()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkKillTreeOfOne(b *testing.B) {
	for b.Loop() {
		p, err := Start(Cmd{Path: "/bin/sleep", Args: []string{"sleep", "1000"}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := KillTree(p.Pid(), time.Second); err != nil {
			b.Fatal(err)
		}
		_, _ = p.Wait()
	}
}

// A child that is stopped between fork and exec would stop the whole process at
// its next collection of garbage, for ever: the test itself could not tell.
func TestKillTreeWhileForking(t *testing.T) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "PROC_TEST_HELPER=killfork")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	// Slow is not hung: the time is that without another child.
	const patience = 30 * time.Second
	hung := time.AfterFunc(patience, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	defer hung.Stop()
	var last string
	for lines := bufio.NewScanner(out); lines.Scan(); hung.Reset(patience) {
		last = lines.Text()
	}
	if err := c.Wait(); err != nil || last != "done" {
		t.Fatalf("it hung or failed: %v\n%s", err, errs.String())
	}
}
