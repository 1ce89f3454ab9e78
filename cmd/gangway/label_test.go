package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gangway/launcher/job"
)

func TestLabelledLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	type piece struct {
		rank int // -1: without a label
		data string
	}
	for _, c := range []struct {
		name  string
		in    []piece
		want  string
		first int // pieces after which something must be out already; 0: don't care
	}{
		{"whole lines", []piece{{0, "a\nb\n"}, {1, "c\n"}}, "[0] a\n[0] b\n[1] c\n", 1},
		{"pieces of lines don't mix", []piece{{0, "a"}, {1, "c"}, {0, "b\n"}, {1, "d\n"}}, "[0] ab\n[1] cd\n", 0},
		{"empty lines", []piece{{0, "\n\n"}}, "[0] \n[0] \n", 1},
		{"no end", []piece{{1, "c"}, {0, "a"}}, "[0] a\n[1] c\n", 0},
		{"one prefix for a long line", []piece{{0, long}, {0, long}, {0, long + "\nb\n"}}, "[0] " + long + long + long + "\n[0] b\n", 2},
		{"a long line without end", []piece{{0, long + "a"}}, "[0] " + long + "a\n", 1},
		{"another between", []piece{{0, long + "a"}, {1, "c\n"}, {0, "b\n"}}, "[0] " + long + "a\n[1] c\n[0] b\n", 1},
		{"another's unfinished line does not cut it", []piece{{0, long + "a"}, {1, "c"}, {0, "b\n"}, {1, "\n"}}, "[0] " + long + "ab\n[1] c\n", 1},
		{"two long ones", []piece{{0, long + "a"}, {1, long + "b"}, {0, "\n"}}, "[0] " + long + "a\n[1] " + long + "b\n[0] \n", 1},
		{"mpirun's own words", []piece{{0, long + "a"}, {-1, "mpirun: bad\n"}}, "[0] " + long + "a\nmpirun: bad\n", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w bytes.Buffer
			o := outputStream{w: &w}
			for i, p := range c.in {
				var err error
				if p.rank < 0 {
					err = o.plain([]byte(p.data))
				} else {
					err = o.labelled(p.rank, []byte(p.data))
				}
				if err != nil {
					t.Fatal(err)
				}
				if i+1 == c.first && w.Len() == 0 {
					t.Errorf("nothing is out after %d pieces", i+1)
				}
			}
			if err := o.last(nil); err != nil {
				t.Fatal(err)
			}
			if got := w.String(); got != c.want {
				t.Errorf("got %s\nwant %s", short(got), short(c.want))
			}
		})
	}
}

func short(s string) string {
	return fmt.Sprintf("%q", strings.ReplaceAll(s, strings.Repeat("x", maxLine), "…"))
}

// Every physical line begins with one prefix, and without the prefixes and the
// breaks that were put in, each rank's bytes are what it wrote.
func TestLabelledKeepsBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w bytes.Buffer
		o := outputStream{w: &w}
		wrote := map[int]string{}
		for range rapid.IntRange(1, 30).Draw(t, "pieces") {
			rank := rapid.IntRange(0, 2).Draw(t, "rank")
			n := rapid.SampledFrom([]int{0, 1, 5, maxLine / 2, maxLine, maxLine + 1}).Draw(t, "length")
			data := strings.Repeat(string(rune('a'+rank)), n)
			if rapid.Bool().Draw(t, "ends") {
				data += "\n"
			}
			wrote[rank] += data
			if err := o.labelled(rank, []byte(data)); err != nil {
				t.Fatal(err)
			}
			held := 0
			for _, tail := range o.tails {
				held += len(tail)
			}
			if held > 3*maxLine {
				t.Fatalf("%d bytes are held back", held)
			}
		}
		_ = o.last(nil)
		got := map[int]string{}
		for line := range strings.Lines(w.String()) {
			var rank int
			if _, err := fmt.Sscanf(line, "[%d] ", &rank); err != nil || !strings.HasSuffix(line, "\n") {
				t.Fatalf("line %.40q has no prefix or no end", line)
			}
			rest := line[len("[0] "):]
			if strings.Trim(rest, string(rune('a'+rank))+"\n") != "" {
				t.Fatalf("line %.40q has other bytes than rank %d's", line, rank)
			}
			got[rank] += rest
		}
		for rank, s := range wrote {
			if strings.ReplaceAll(got[rank], "\n", "") != strings.ReplaceAll(s, "\n", "") {
				t.Fatalf("rank %d wrote %d bytes, %d came out", rank, len(s), len(got[rank]))
			}
		}
	})
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("closed") }

// One stream whose reader went away leaves the other alone.
func TestBrokenStreams(t *testing.T) {
	for _, label := range []bool{false, true} {
		var errs bytes.Buffer
		s := newSink(&app{stdout: brokenWriter{}, stderr: &errs}, &runFlags{label: label}, false)
		if s.Output("n1", 0, false, []byte("out\n")) == nil {
			t.Error("the closed stdout is not reported")
		}
		if err := s.Output("n1", 0, true, []byte("oops\n")); err != nil || !strings.Contains(errs.String(), "oops") {
			t.Errorf("%v; stderr has %q", err, errs.String())
		}
		s.Notice("n1", "a warning", true)
		if !strings.Contains(errs.String(), "a warning") {
			t.Errorf("stderr has %q", errs.String())
		}
		var out bytes.Buffer
		s = newSink(&app{stdout: &out, stderr: brokenWriter{}}, &runFlags{label: label}, false)
		if s.Output("n1", 0, true, []byte("oops\n")) == nil {
			t.Error("the closed stderr is not reported")
		}
		if err := s.Output("n1", 0, false, []byte("out\n")); err != nil || !strings.Contains(out.String(), "out") {
			t.Errorf("%v; stdout has %q", err, out.String())
		}
	}
}

func TestExitStatusOfOutcomes(t *testing.T) {
	for _, c := range []struct {
		name string
		o    job.Outcome
		want int
	}{
		{"success", job.Outcome{Success: true}, 0},
		{"exit", job.Outcome{ExitCode: 7, Reason: &job.Reason{Code: job.FailRank}}, 7},
		{"signal", job.Outcome{Signal: 9, Reason: &job.Reason{Code: job.FailRank}}, 137},
		{"not found", job.Outcome{Reason: &job.Reason{Code: job.FailNotFound}}, 127},
		{"not executable", job.Outcome{Reason: &job.Reason{Code: job.FailNotExecutable}}, 126},
		{"time", job.Outcome{Signal: 15, Reason: &job.Reason{Code: job.FailTimeLimit}}, 124},
		{"Ctrl-C", job.Outcome{Signal: 9, Reason: &job.Reason{Code: job.FailCancelled, Signal: 2, Detail: "stopped"}}, 130},
		{"cancelled by no signal", job.Outcome{ExitCode: 1, Reason: &job.Reason{Code: job.FailCancelled, Detail: "after SIGINT was seen"}}, 125},
		{"input was read", job.Outcome{ExitCode: 3, Reason: &job.Reason{Code: job.FailInput}}, 3},
		{"node lost", job.Outcome{ExitCode: 3, Reason: &job.Reason{Code: job.FailNodeLost}}, 125},
	} {
		if got := exitStatus(c.o); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
