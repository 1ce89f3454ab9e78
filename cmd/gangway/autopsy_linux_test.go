package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gangway/internal/lab"
	"gangway/launcher/job"
)

// rankShell is a rank of sleeper itself, not what it runs.
func rankShell(p lab.Proc) bool {
	return len(p.Args) > 2 && p.Args[0] == "sh" && strings.HasPrefix(p.Args[2], `echo "ready`)
}

// Whatever is killed under a gang, the run says which rank and node it was.
func TestHostsAutopsy(t *testing.T) {
	for _, c := range []struct {
		name   string
		do     func(b *bed)
		death  job.Death
		rank   int
		node   string
		says   string
		fate   string // of the ranks of n1, if they are told of
		suspec bool
		within time.Duration // until no rank is left
	}{
		{"rank", func(b *bed) { b.killOne(2, "rank", program("sleep")) }, job.DeathExit, 1, "n2", "status 137", "killed by gangway", false, 2 * time.Second},
		{"program", func(b *bed) { b.killOne(2, "rank", rankShell) }, job.DeathKilled, 1, "n2", "killed from outside", "killed by gangway", true, 2 * time.Second},
		{"shim", func(b *bed) { b.killOne(2, "shim", role("shim")) }, job.DeathShim, -1, "n2", "ended or was killed", "killed by gangway", true, 2 * time.Second},
		{"primary's shim", func(b *bed) { b.killOne(1, "shim", role("shim")) }, job.DeathShim, -1, "n1", "", "", true, 2 * time.Second},
		{"host cut off", func(b *bed) {
			if err := b.lab.Cut(2); err != nil {
				b.t.Fatal(err)
			}
		}, job.DeathSilent, -1, "n2", "silent", "killed by gangway", true, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := hosts(t, 3)
			p := b.start(nil, nil, append([]string{"run", "--json", "--hosts", "n[1-3]", "-D", "/", "--"}, sleeper...)...)
			readyOn(t, p, 3)
			from, dead := time.Now(), 0
			if c.death == job.DeathSilent {
				dead = 2
			}
			c.do(b)
			goneWithin(b, from, c.within, dead)
			if status := p.status(); status == 0 || c.death != job.DeathExit && c.death != job.DeathKilled && status != 125 {
				t.Errorf("exit status %d; %s", status, p.err)
			}
			var got *job.Report
			for _, line := range lines(p.out.String()) {
				var e struct {
					Type    string
					Autopsy *job.Report
				}
				if json.Unmarshal([]byte(line), &e) == nil && e.Type == "result" {
					got = e.Autopsy
				}
			}
			if got == nil {
				t.Fatalf("no autopsy in\n%s", p.out)
			}
			if got.Death != c.death || got.Rank != c.rank || got.Node != c.node || !strings.Contains(got.How, c.says) {
				t.Errorf("%+v", got.Autopsy)
			}
			if suspected := slices.ContainsFunc(got.Suspects, func(s job.Suspect) bool { return s.Node == c.node }); suspected != c.suspec {
				t.Errorf("suspects %+v", got.Suspects)
			}
			if c.fate != "" && !slices.ContainsFunc(got.Fates, func(f job.Fate) bool {
				return strings.HasPrefix(f.How, c.fate) && slices.Contains(f.Nodes, "n1")
			}) {
				t.Errorf("fates %+v", got.Fates)
			}
			if c.name == "host cut off" {
				if err := b.lab.Mend(2); err != nil {
					t.Fatal(err)
				}
				b.nothingLeft(30 * time.Second)
			}
		})
	}
}

// A task whose first attempt dies on a node is tried again without it; the
// autopsy of the first stays.
func TestUpAutopsy(t *testing.T) {
	s := upLab(t, 3)
	mark := s.lab.Dir() + "/tried"
	script := `test -e ` + mark + ` && exit 0; echo "ready $GANGWAY_RANK"; echo "I am $GANGWAY_RANK" >&2; sleep 300`
	gw := func(status int, args ...string) string {
		t.Helper()
		out, _ := s.want(status, slices.Concat(args[:1:1], []string{"--launcher", "unix:" + s.socket}, args[1:])...)
		return out
	}
	gw(0, "submit", "--name", "g", "-N", "2", "--ppn", "1", "--retries", "1", "-D", "/", "--", "sh", "-c", script)
	var victim string
	var host int
	waitFor(t, "two ranks run", 60*time.Second, func() bool {
		n := 0
		for i := 1; i <= 3; i++ {
			if len(s.find(i, program("sleep"))) > 0 {
				n, host = n+1, i
			}
		}
		victim = "n" + string(rune('0'+host))
		return n == 2
	})
	if err := os.WriteFile(mark, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.killOne(host, "shim", role("shim"))
	gw(0, "job", "wait", "g")
	var x struct {
		job.Report
		Actions []struct {
			Node    string
			LeftOut bool
		}
	}
	if err := json.Unmarshal([]byte(gw(0, "task", "--json", "autopsy", "g")), &x); err != nil {
		t.Fatal(err)
	}
	if x.Attempt != 1 || x.Death != job.DeathShim || x.Node != victim || len(x.Actions) != 1 || x.Actions[0].Node != victim || !x.Actions[0].LeftOut {
		t.Errorf("%+v", x)
	}
	text := gw(0, "task", "autopsy", "g")
	for _, want := range []string{"attempt 1", "gangway's process on " + victim, "killed by gangway", "suspected: " + victim, "left out of the next attempt", "I am 0"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	gw(exitFailed, "task", "autopsy", "g", "--attempt", "2")
	gw(exitFailed, "task", "autopsy", "g", "--attempt", "9")
	t.Log("\n" + text)
}
