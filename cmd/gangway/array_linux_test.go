package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/internal/lab"
)

// arrayElements is how many elements the arrays of these tests have; each writes
// a line.
const arrayElements = 10_000

// effects are the attempts that wrote a line, by element.
func effects(t *testing.T, dir string) map[int][]string {
	t.Helper()
	out := map[int][]string{}
	files, _ := filepath.Glob(filepath.Join(dir, "effects.*"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			index, attempt, ok := strings.Cut(strings.TrimSpace(line), " ")
			i, err := strconv.Atoi(index)
			if !ok || err != nil {
				t.Fatalf("%s has the line %q", f, line)
			}
			out[i] = append(out[i], attempt)
		}
	}
	return out
}

// submitArray submits an array whose elements write who they are.
func (s *daemon) submitArray(dir string) {
	s.t.Helper()
	file := filepath.Join(dir, "array.yaml")
	text := fmt.Sprintf("job: a\ntasks:\n  - id: A\n    array: 1-%d\n    command: [/bin/sh, -c, 'echo $GANGWAY_ARRAY_INDEX $GANGWAY_ATTEMPT >> %s/effects.$GANGWAY_SLOT.$(hostname)']\n    workdir: /\n",
		arrayElements, dir)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.want(0, "submit", "--launcher", "unix:"+s.socket, file)
}

// wantAll fails unless every element ran and was counted once. Elements may have
// run twice only if their shim was killed.
func (s *daemon) wantAll(dir string) {
	s.t.Helper()
	out, _ := s.want(0, "job", "wait", "a", "--timeout", "4m", "--launcher", "unix:"+s.socket)
	if want := fmt.Sprintf("a: %d succeeded\n", arrayElements); out != want {
		s.t.Errorf("job wait: %q, want %q", out, want)
	}
	ran := effects(s.t, dir)
	for i := 1; i <= arrayElements; i++ {
		if len(ran[i]) != 1 {
			s.t.Errorf("element %d ran in attempts %v", i, ran[i])
		}
	}
	if len(ran) != arrayElements {
		s.t.Errorf("%d elements ran, of %d", len(ran), arrayElements)
	}
}

// begun waits until so many elements have run.
func begun(t *testing.T, dir string, n int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d elements have run", n), 2*time.Minute, func() bool { return len(effects(t, dir)) >= n })
}

// TestArrayOutlivesLauncherAndAgents: on four hosts, the launcher and each agent
// are killed in the middle of an array.
func TestArrayOutlivesLauncherAndAgents(t *testing.T) {
	if why := lab.Missing(); why != "" {
		t.Skip(why)
	}
	b := &bed{t: t, bin: gangwayBinary(t), limit: 10 * time.Minute, lab: lab.New(t, 4, lab.Share(buildDir))}
	data := filepath.Join(b.lab.Dir(), "data")
	s := b.up(data, "--hosts", "n[1-4]")
	dir := filepath.Join(b.lab.Dir(), "effects")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.submitArray(dir)
	for i := 1; i <= 4; i++ {
		begun(t, dir, arrayElements*i/8)
		for _, p := range s.find(i, role("agent")) {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			_ = s.Process.Kill()
			<-s.done
			s = b.up(data, "--hosts", "n[1-4]")
		}
	}
	s.wantAll(dir)
}
