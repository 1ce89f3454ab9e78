package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// mapShell runs shell scripts in which gangway is the program under test.
type mapShell struct {
	b   *bed
	dir string // the scripts' own
	env []string
}

func newMapShell(t *testing.T) *mapShell {
	t.Helper()
	b := local(t)
	s := &mapShell{b: b, dir: t.TempDir()}
	bin := t.TempDir()
	wrapper := fmt.Sprintf("#!/bin/sh\nc=$1\nshift\nexec '%s' \"$c\" --tmpdir '%s' \"$@\"\n", b.bin, b.base)
	if err := os.WriteFile(filepath.Join(bin, "gangway"), []byte(wrapper), 0o700); err != nil {
		t.Fatal(err)
	}
	s.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+s.dir, "SHELL=/bin/sh", "LC_ALL=C.UTF-8")
	if err := os.MkdirAll(filepath.Join(s.dir, ".parallel"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, ".parallel", "will-cite"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs a script and returns what it wrote, with its exit status.
func (s *mapShell) run(script string) (stdout, stderr string, status int) {
	s.b.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Dir, cmd.Env = s.dir, s.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		s.b.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestMapIsLikeParallel runs the same with GNU Parallel.
func TestMapIsLikeParallel(t *testing.T) {
	if _, err := exec.LookPath("parallel"); err != nil {
		t.Skip("GNU Parallel is not installed: .ci/deps.sh --all does it")
	}
	s := newMapShell(t)
	for name, text := range map[string]string{"l2": "x\ny\n", "l1": "a b\n", "d.txt": ""} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, script := range []string{
		`P -k echo ::: a b c`,
		`P -k 'echo {} {.} {/} {//} {/.} {#}' ::: a.x b/c.d /e ''`,
		`P -k echo {} {1} {.} ::: a.x b.y ::: 1.z 2`,
		`P -k echo pre{}post ::: a b ::: 1`,
		`P -k echo {1/.} {2//} ::: d/a.x ::: p/q/r`,
		`P -k echo ::: a b c :::+ 1 2 3`,
		`P -k echo ::: a b c :::+ 1 2`,
		`P -k echo ::: a :::+ 1 2`,
		`P -k echo :::: l1 l2`,
		`P -k -a l1 -a l2 echo`,
		`P -k echo :::: l2 ::::+ l2 ::: 1 2`,
		`seq 5 | P -k echo`,
		`seq 5 | P -k echo x{} :::: - ::: a b`,
		`seq 5 | P -k -N2 echo {1}-{2}`,
		`seq 5 | P -k -N2 echo`,
		`seq 6 | P -k -N3 'echo {} {2};'`,
		`printf 'a\n\nb' | P -k 'echo [{}]'`,
		`printf 'a\0b c\0' | P -0 -k echo`,
		`printf 'a,b,c' | P -d , -k echo`,
		`printf '' | P echo`,
		`printf 'a b\nc d\n' | P -k --colsep ' ' echo {2} {1}`,
		`P -k ::: 'echo hi' 'echo "x  y"'`,
		`P -k 'printf "%s\n" {}' ::: 'a  b' "it's" '$HOME' '"' '*' '' ';id' '-x'`,
		`P -k 'echo x; echo y >&2; exit {}' ::: 0 3 4`,
		`P 'exit {}' ::: 1 2 0 3`,
		`seq 150 | P 'exit 1'`,
		`P -j1 -k --halt now,fail=1 'echo {}; sleep 1; exit {}' ::: 0 5 3`,
		`P -j1 --halt now,success=1 'echo {}; sleep 1; exit {}' ::: 2 0 3`,
		`P -k --tag 'printf "a\nb\n"; echo e >&2' ::: 1 2 ::: 3`,
		`P --dry-run -k echo {} ::: 'a b' "it's" '' -x 'a*b' '~x' a/b_c.d`,
		`P -k --results res 'echo {1}-{2}' ::: a/b 'x\y' ::: q; find res -name stdout | LC_ALL=C sort | while read -r f; do echo "$f"; cat "$f"; done; rm -r res`,
		`P -k --joblog log 'exit {}' ::: 0 2 >/dev/null; cut -f 1,2,5,6,7,8,9 log | sort`,
		`P --joblog log 'exit {}' ::: 0 2; P -k --resume --joblog log 'echo {}; exit {}' ::: 0 2 3; echo $?; P -k --resume-failed --joblog log 'echo {};: {}' ::: 0 2 3; cut -f 1 log`,
		`P -j2 'echo {%}' ::: a b c d | sort -u | tail -n 1 | grep -c '[12]'`,
		`P -k cat ::: d.txt l1 l2 nofile`,
		`P -k 'awk "BEGIN { print 1+{} }"' ::: 1 2`,
	} {
		t.Run(script, func(t *testing.T) {
			ask := func(program string) (string, int) {
				_ = os.Remove(filepath.Join(s.dir, "log"))
				p := program
				if program == "parallel" {
					p += " --will-cite"
				}
				out, errs, status := s.run(strings.ReplaceAll(script, "P ", p+" "))
				if strings.Contains(script, "--tag") {
					out += errs
				}
				return out, status
			}
			want, wantStatus := ask("parallel")
			got, status := ask("gangway map")
			if d := cmp.Diff(want, got); d != "" || status != wantStatus {
				t.Errorf("exit status %d, Parallel's %d; Parallel (-), gangway (+):\n%s", status, wantStatus, d)
			}
		})
	}
}

func TestMapIsLikeXargs(t *testing.T) {
	s := newMapShell(t)
	for _, script := range []string{
		`seq 5 | P -n 2 echo`,
		`seq 4 | P -n 1 echo`,
		`printf 'a\0b c\0' | P -0 -n 1 echo`,
		`printf 'a\nb' | P -n 1 printf '<%s>\n' x`,
		`printf '' | P -r -n 1 echo`,
	} {
		want, _, wantStatus := s.run(strings.ReplaceAll(script, "P ", "xargs "))
		got, _, status := s.run(strings.ReplaceAll(script, "P ", "gangway map -k "))
		if d := cmp.Diff(want, got); d != "" || status != wantStatus {
			t.Errorf("%s: status %d and %d\n%s", script, wantStatus, status, d)
		}
	}
}

// TestMapDocument runs what docs/map.md shows.
func TestMapDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/map.md")
	if err != nil {
		t.Fatal(err)
	}
	s := newMapShell(t)
	n := 0
	for i, part := range strings.Split(string(text), "```console\n") {
		if i == 0 {
			continue
		}
		block, _, _ := strings.Cut(part, "```\n")
		for _, example := range strings.Split("\n"+block, "\n$ ")[1:] {
			n++
			command, want, _ := strings.Cut(example, "\n")
			for strings.HasSuffix(command, `\`) {
				var more string
				more, want, _ = strings.Cut(want, "\n")
				command += "\n" + more
			}
			out, errs, _ := s.run(command)
			if d := cmp.Diff(strings.TrimRight(want, "\n"), strings.TrimRight(out+errs, "\n")); d != "" {
				t.Errorf("$ %s\n%s", command, d)
			}
		}
	}
	if n < 10 {
		t.Errorf("found %d examples", n)
	}
}

func TestMapManyLines(t *testing.T) {
	s := newMapShell(t)
	// Big output of an early element that is slow, and all in order.
	out, errs, status := s.run(`seq 3000 | gangway map -k -j 4 'if [ {} = 1 ]; then sleep 1; fi; echo {}' | cmp - lines || exit 9`)
	if status != 9 {
		t.Errorf("status %d before there is the file: %s%s", status, out, errs)
	}
	if out, errs, status = s.run(`seq 3000 >lines; seq 3000 | gangway map -k -j 4 'if [ {} = 1 ]; then sleep 1; fi; echo {}' | cmp - lines`); status != 0 {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
}

func TestMapRetriesAndTimeout(t *testing.T) {
	s := newMapShell(t)
	out, errs, status := s.run(`gangway map -k --retries 2 'echo {} >>tries; echo $GANGWAY_ATTEMPT; test $GANGWAY_ATTEMPT = {}' ::: 1 3 7; sort tries | uniq -c | tr -s ' '`)
	if want := "1\n3\n3\n 1 1\n 3 3\n 3 7\n"; out != want || status != 0 {
		t.Errorf("status %d, wrote %q %q, want %q", status, out, errs, want)
	}
	began := time.Now()
	_, errs, status = s.run(`gangway map -k --timeout 300ms --joblog log 'sleep {}' ::: 60 0 60; echo $? >st; cut -f 7,8 log | grep -c '	15'; exit $(cat st)`)
	if status != 2 || !strings.Contains(errs, "sleep 60: the time limit of 300ms is over") || time.Since(began) > 30*time.Second {
		t.Errorf("status %d, says %q after %v", status, errs, time.Since(began))
	}
}

func TestMapStopsSoon(t *testing.T) {
	s := newMapShell(t)
	// The node begins the next one before it is told.
	out, errs, status := s.run(`gangway map -k -j 1 --joblog log --halt soon,fail=1 'echo {}; sleep 0.5; exit {}' ::: 0 3 0 0 0 0 0 0 0 0; echo $? $(grep -c : log)`)
	if n := strings.Count(out, "0\n"); status != 0 || n > 3 || !strings.HasPrefix(out, "0\n3\n") || !strings.Contains(out, "\n3 ") {
		t.Errorf("wrote %q, %q", out, errs)
	}
}

func TestMapResumesResults(t *testing.T) {
	s := newMapShell(t)
	out, errs, status := s.run(`gangway map -k --results res 'echo {}; exit {}' ::: 0 1; gangway map -k --resume --results res echo new{} ::: 0 1 2; ls res/1; cat res/1/*/stdout`)
	if want := "0\n1\n2\n0\n1\nnew2\n"; out != want {
		t.Errorf("status %d, wrote %q %q, want %q", status, out, errs, want)
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "res", "results.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var codes []int
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		var e struct {
			Seq      int      `json:"seq"`
			Values   []string `json:"values"`
			ExitCode int      `json:"exit_code"`
			WallUS   uint64   `json:"wall_us"`
			Stdout   string   `json:"stdout"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.WallUS == 0 || e.Stdout == "" || len(e.Values) != 1 {
			t.Fatalf("%q: %v", line, err)
		}
		codes = append(codes, e.ExitCode)
	}
	if slices.Sort(codes); !slices.Equal(codes, []int{0, 0, 1}) {
		t.Errorf("exit codes %v", codes)
	}
}

func TestMapJSON(t *testing.T) {
	s := newMapShell(t)
	out, errs, status := s.run(`gangway map --json -k 'echo {}; exit {}' ::: 0 3`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if status != 1 || len(lines) != 3 {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	var sum struct{ Type, Stdout string }
	if err := json.Unmarshal([]byte(lines[1]), &sum); err != nil || sum.Type != "element" || sum.Stdout != "3\n" {
		t.Errorf("%s: %v", lines[1], err)
	}
	var end struct {
		Type                             string
		Total, Succeeded, Failed, Status int
	}
	if err := json.Unmarshal([]byte(lines[2]), &end); err != nil || end.Type != "result" || end.Total != 2 || end.Succeeded != 1 || end.Failed != 1 || end.Status != 1 {
		t.Errorf("%s: %v", lines[2], err)
	}
}

func TestMapInterrupted(t *testing.T) {
	b := local(t)
	for _, second := range []bool{false, true} {
		mark := filepath.Join(t.TempDir(), "began")
		script := fmt.Sprintf("echo >%s; sleep 1000", mark)
		if second {
			script = "trap '' TERM; " + script + "; sleep 1000"
		}
		p := b.start(nil, nil, "map", "--tmpdir", b.base, "--kill-grace", "20s", script+";: {}", ":::", "1", "2", "3", "4", "5")
		waitFor(t, "a command runs", 30*time.Second, func() bool { _, err := os.Stat(mark); return err == nil })
		began := time.Now()
		_ = p.Process.Signal(syscall.SIGINT)
		if second { // two that come together are one
			waitFor(t, "the end", 15*time.Second, func() bool {
				select {
				case <-p.done:
					return true
				default:
					_ = p.Process.Signal(syscall.SIGINT)
					return false
				}
			})
		}
		if got := p.status(); got != exitSignal+int(syscall.SIGINT) || time.Since(began) > 15*time.Second {
			t.Errorf("status %d after %v: %s%s", got, time.Since(began), p.out, p.err)
		}
		b.nothingLeft(10 * time.Second)
	}
}

func TestMapReaderGoesAway(t *testing.T) {
	s := newMapShell(t)
	out, errs, _ := s.run(`{ seq 1000 | gangway map 'echo {}; sleep 0.01'; echo $? >&2; } | head -n 1 | wc -l`)
	if strings.TrimSpace(out) != "1" || strings.TrimSpace(errs) != fmt.Sprint(exitSignal+int(syscall.SIGPIPE)) {
		t.Errorf("wrote %q, says %q", out, errs)
	}
}

func TestMapOverHosts(t *testing.T) {
	b := hosts(t, 2)
	out, errs := b.want(0, "map", "-k", "--joblog", filepath.Join(b.t.TempDir(), "log"), "--hosts", "n[1-2]", "-j", "2", "hostname; sleep 0.2; echo {};", ":::", "a", "b", "c", "d")
	var values []string
	seen := map[string]bool{}
	for i, l := range strings.Fields(out) {
		if i%2 == 1 {
			values = append(values, l)
		} else {
			seen[l] = true
		}
	}
	if !slices.Equal(values, []string{"a", "b", "c", "d"}) || len(seen) != 2 {
		t.Errorf("wrote %q %q", out, errs)
	}
}
