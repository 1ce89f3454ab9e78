package main

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gangway/nodeagent/pack"
)

// smallTask is what an element does besides writing its line: 0 to 999 by its
// index; testdata/smalltask.c has the same.
func smallTask(seed, index uint64) uint64 {
	x := seed*1_000_003 + index + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return (x ^ x>>31) % 1000
}

// fails says whether the element's first attempt exits with 3.
func (c *taskChaos) fails(x execution) bool {
	h := smallTask(c.seed, x.index)
	return x.attempt == 1 && h >= 10 && h < 20
}

// judge checks what the elements of the array wrote, what the launcher says of
// them, and that nothing of them is left.
func (c *taskChaos) judge() {
	ran := c.ran()
	var wrong []string
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for index := uint64(1); index <= c.tasks; index++ {
		attempts := ran[index]
		if len(attempts) == 0 {
			bad("element %d never ran", index)
			continue
		}
		slices.Sort(attempts)
		for i, a := range attempts {
			x := execution{index, a}
			if i+1 == len(attempts) {
				if c.fails(x) {
					bad("element %d failed in attempt %d and did not run again", index, a)
				}
				break
			}
			_, lost := c.lost[x]
			switch known := c.recorded[x]; {
			case attempts[i+1] == a:
				bad("element %d ran twice in attempt %d", index, a)
			case c.well[x]:
				bad("element %d ran in attempts %v, and the success of %d was in the spool at kill %d", index, attempts, a, known)
			case c.fails(x):
			case !lost:
				bad("element %d ran in attempts %v, and attempt %d was in no crew that was killed", index, attempts, a)
			default:
				c.reruns++
			}
		}
		delete(ran, index)
	}
	for index, attempts := range ran {
		bad("element %d, which there is not, ran in attempts %v", index, attempts)
	}
	if len(wrong) > 0 {
		c.fail("%d elements are wrong:\n%s", len(wrong), strings.Join(wrong[:min(len(wrong), 20)], "\n"))
	}
	var counts struct {
		Tasks struct{ Active, Running, Completed, Succeeded, Failed uint64 } `json:"taskCounts"`
	}
	c.await("the tasks are counted", 20*time.Second, func() bool {
		_, err := c.call(http.MethodGet, "/jobs/"+c.name+"/taskcounts", nil, &counts)
		return err == nil
	})
	if n := counts.Tasks; n.Succeeded != c.tasks || n.Completed != c.tasks || n.Failed+n.Active+n.Running > 0 {
		c.fail("the launcher counts %+v, of %d elements that all succeeded%s", n, c.tasks, c.failures())
	}
	c.clean()
}

// ran are the attempts in which the elements wrote a line, by index.
func (c *taskChaos) ran() map[uint64][]uint32 {
	out := make(map[uint64][]uint32, c.tasks)
	files, _ := filepath.Glob(filepath.Join(c.effects, "effects.*"))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) != 3 || !strings.HasSuffix(line, "\n") {
				c.fail("a strange line in %s: %q", filepath.Base(name), line)
			}
			index, err := strconv.ParseUint(f[0], 10, 64)
			attempt, err2 := strconv.ParseUint(f[1], 10, 32)
			if err != nil || err2 != nil {
				c.fail("a strange line in %s: %q", filepath.Base(name), line)
			}
			out[index] = append(out[index], uint32(attempt))
		}
	}
	return out
}

// failures are some of the elements that the launcher calls failed.
func (c *taskChaos) failures() string {
	var list struct{ Value []apiTask }
	_, err := c.call(http.MethodGet, "/jobs/"+c.name+"/tasks?maxresults=5&$filter=executionInfo/result%20eq%20'failure'", nil, &list)
	var b strings.Builder
	for _, t := range list.Value {
		fmt.Fprintf(&b, "\n%s: %s", t.ID, t)
	}
	if err != nil {
		fmt.Fprintf(&b, " (%v)", err)
	}
	return b.String()
}

// clean fails unless nothing of the array is left on any host.
func (c *taskChaos) clean() {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var left []string
		for _, h := range c.hosts {
			left = append(left, h.left(c)...)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.fail("the array is over, and there is still:\n%s", strings.Join(left, "\n"))
		}
	}
}

// scratchFile matches the names of the files that a running element writes to.
var scratchFile = regexp.MustCompile(`\.\d+-\d+\.[a-z.]+$`)

func (h *taskHost) left(c *taskChaos) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, h.name+": "+fmt.Sprintf(format, args...)) }
	agents := 0
	for _, p := range h.procs() {
		switch {
		case !p.Alive():
		case role("agent")(p):
			agents++
		case role("shim")(p) || variable(p, "GANGWAY_ID") != "" || variable(p, "GANGWAY_ARRAY_INDEX") != "":
			say("process %d %q of attempt %q, element %q", p.PID, p.Args, variable(p, "GANGWAY_ID"), variable(p, "GANGWAY_ARRAY_INDEX"))
		}
	}
	if agents > 1 {
		say("%d agents", agents)
	}
	for _, sub := range []string{"shims", "spool"} {
		files, _ := os.ReadDir(filepath.Join(h.agentDir(), sub))
		for _, f := range files {
			say("the agent's %s/%s", sub, f.Name())
		}
	}
	files, _ := filepath.Glob(filepath.Join(h.tmp, "gangway-*"))
	for _, f := range files {
		if n := filepath.Base(f); !regexp.MustCompile(`^gangway-(agent|tasks|users)-\d+$`).MatchString(n) {
			say("%s", n)
		}
	}
	var packs []string
	_ = filepath.WalkDir(filepath.Join(h.tmp, fmt.Sprintf("gangway-tasks-%d", os.Geteuid())), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(filepath.Dir(path)) == pack.Dir {
			packs = append(packs, path)
		}
		return nil
	})
	scratch, indexes := 0, 0
	for _, f := range packs {
		fi, err := os.Stat(f)
		if strings.HasSuffix(f, ".index") {
			indexes++
		}
		if scratchFile.MatchString(f) || err == nil && strings.HasSuffix(f, ".live") && fi.Size() > 0 {
			if scratch++; scratch <= 5 {
				say("scratch file %s", f)
			}
		}
	}
	if scratch > 5 {
		say("%d more scratch files", scratch-5)
	}
	if indexes == 0 {
		say("no pack of the elements' output")
	}
	if log, _ := os.ReadFile(filepath.Join(h.agentDir(), "log")); strings.Contains(string(log), "panic:") {
		c.fail("%s: an agent or a shim has panicked:\n%s", h.name, log)
	}
	return out
}

// end ends the launcher: the jobs are over, nothing but agents is left.
func (c *taskChaos) end() {
	_ = c.chaos.up.Process.Signal(os.Interrupt)
	select {
	case err := <-c.ended:
		c.ended <- err
	case <-time.After(20 * time.Second):
		c.fail("the launcher did not end within 20 s of SIGINT")
	}
}
