package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"gangway/topology"
)

// ends collects what a callback is given.
type ends struct {
	mu   sync.Mutex
	more *sync.Cond
	all  []SlotEnd
}

func newEnds() *ends {
	e := &ends{}
	e.more = sync.NewCond(&e.mu)
	return e
}

func (e *ends) take(batch []SlotEnd) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, batch...)
	e.more.Broadcast()
}

// wait returns the first n ends.
func (e *ends) wait(n int) []SlotEnd {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.all) < n {
		e.more.Wait()
	}
	return e.all
}

// bothWays runs a test with the assembly and through the Forker.
func bothWays(t *testing.T, test func(t *testing.T, fast bool)) {
	for _, fast := range []bool{true, false} {
		t.Run(map[bool]string{true: "fast", false: "forker"}[fast], func(t *testing.T) { test(t, fast) })
	}
}

func testSlots(t testing.TB, n int, fast bool) (*Slots, *ends) {
	t.Helper()
	f := NewForker()
	e := newEnds()
	s, err := f.newSlots(n, e.take, fast)
	if err != nil {
		t.Fatal(err)
	}
	if fast && !s.fast {
		t.Error("this kernel has no fast way")
	}
	t.Cleanup(func() {
		s.Close()
		_ = f.Close()
	})
	return s, e
}

func slotSh(script string) SlotCommand {
	return SlotCommand{Path: "/bin/sh", Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin", "K=v"}}
}

// pipe returns a pipe whose reading end is read after the writing end is closed.
func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := Pipe(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func TestSlotsStatus(t *testing.T) { bothWays(t, testSlotsStatus) }

func testSlotsStatus(t *testing.T, fast bool) {
	s, e := testSlots(t, 2, fast)
	want := map[uint64][2]int{1: {0, 0}, 2: {255, 0}, 3: {0, 9}, 4: {7, 0}}
	s.Start(0, 1, slotSh("exit 0"))
	s.Start(1, 2, slotSh("exit 255"))
	s.Start(0, 3, slotSh("kill -9 $$"))
	s.Start(1, 4, slotSh("exit 7"))
	for _, end := range e.wait(4) {
		w := want[end.Tag]
		st := end.Status
		if end.Err != nil || st.ExitCode != w[0] || st.Signal != w[1] || end.Slot != int(end.Tag+1)%2 || end.Pid < 2 {
			t.Errorf("got %+v", end)
		}
		if st.MaxRSS < 100<<10 || st.User+st.System <= 0 || !end.End.After(end.Start) || st.End != end.End {
			t.Errorf("usage is %+v", end)
		}
	}
}

func TestSlotsSurroundings(t *testing.T) { bothWays(t, testSlotsSurroundings) }

func testSlotsSurroundings(t *testing.T, fast bool) {
	dir := t.TempDir()
	leak, err := os.Create(filepath.Join(dir, "leak"))
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil { // as if inherited
		t.Fatal(err)
	}
	s, e := testSlots(t, 1, fast)
	stdout, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	r, w := pipe(t)
	cpu, err := Affinity(0)
	if err != nil {
		t.Fatal(err)
	}
	c := slotSh(`pwd; env | grep ^K=; ps -o pgid= -p $$; echo $$; readlink /proc/self/fd/0; ls /proc/self/fd | wc -l; echo err >&2`)
	c.Dir, c.Stdout, c.Stderr, c.CPUs = dir, stdout, w, topology.NewCPUSet(cpu.First())
	s.Start(0, 1, c)
	// A shell changes its signal mask.
	c.Path, c.Argv = "/bin/grep", []string{"grep", "-hE", "^(SigBlk|SigIgn|SigCgt|Cpus_allowed_list):", "/proc/self/status"}
	s.Start(0, 2, c)
	c.CPUs = topology.CPUSet{}
	s.Start(0, 3, c)
	for _, end := range e.wait(3) {
		if end.Err != nil || end.Status.ExitCode != 0 {
			t.Fatalf("got %+v", end)
		}
	}
	_ = w.Close()
	b, err := os.ReadFile(stdout.Name())
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b))
	if len(f) != 22 || f[0] != dir || f[1] != "K=v" || f[2] != f[3] || f[4] != "/dev/null" || f[5] != "4" ||
		strings.Trim(f[7], "0") != "" || f[9] != ignored(t) || f[13] != fmt.Sprint(cpu.First()) || f[21] != cpu.String() {
		t.Errorf("the program saw %q", f)
	}
	var got [8]byte
	if n, _ := r.Read(got[:]); string(got[:n]) != "err\n" {
		t.Errorf("standard error has %q", got[:n])
	}
}

// ignored is the set of signals that this process was told to ignore by whoever
// started it, as nohup does: its programs ignore them too.
func ignored(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "SigIgn:")
	return strings.Fields(rest)[0]
}

func TestSlotsStartErrors(t *testing.T) { bothWays(t, testSlotsStartErrors) }

func testSlotsStartErrors(t *testing.T, fast bool) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	s, e := testSlots(t, 1, fast)
	for i, tc := range []struct {
		name string
		cmd  SlotCommand
		kind error
		want string
	}{
		{"missing", SlotCommand{Path: filepath.Join(dir, "none")}, ErrNotFound, "none: not found"},
		{"no x", SlotCommand{Path: write("nox", "#!/bin/sh\n", 0o644)}, ErrNotExecutable, "chmod +x"},
		{"no #!", SlotCommand{Path: write("plain", "echo hello\n", 0o755)}, ErrNotExecutable, "#!/bin/sh"},
		{"workdir", SlotCommand{Path: "/bin/true", Dir: filepath.Join(dir, "gone")}, ErrWorkdir, "gone: working directory not usable"},
		{"cpus", SlotCommand{Path: "/bin/true", CPUs: topology.NewCPUSet(5000)}, ErrBinding, "5000"},
		{"NUL", SlotCommand{Path: "/bin/true", Argv: []string{"true", "a\x00b"}}, nil, "invalid argument"},
		{"too long", SlotCommand{Path: "/bin/true", Argv: []string{"true", strings.Repeat("x", 1<<20)}}, nil, "too long together"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.Start(0, uint64(i), tc.cmd)
			s.Start(0, uint64(100+i), slotSh("exit 3"))
			got := e.wait(2*i + 2)[2*i:]
			var se *StartError
			if !errors.As(got[0].Err, &se) || !errors.Is(got[0].Err, tc.kind) && tc.kind != nil || !strings.Contains(fmt.Sprint(got[0].Err), tc.want) {
				t.Errorf("error is %v, want %q", got[0].Err, tc.want)
			}
			if got[0].Pid != 0 || got[0].Status != (Status{}) || got[0].Start.IsZero() || got[0].End.Before(got[0].Start) {
				t.Errorf("got %+v", got[0])
			}
			if got[1].Err != nil || got[1].Status.ExitCode != 3 {
				t.Errorf("the slot is broken: %+v", got[1])
			}
		})
	}
}

func TestSlotsSignalAndDrop(t *testing.T) { bothWays(t, testSlotsSignalAndDrop) }

func testSlotsSignalAndDrop(t *testing.T, fast bool) {
	s, e := testSlots(t, 2, fast)
	r, w := pipe(t)
	c := slotSh("sleep 1000 & echo ready; wait")
	c.Stdout = w
	s.Start(0, 1, c)
	for tag := range uint64(5) {
		s.Start(0, 10+tag, slotSh("exit 0"))
	}
	var b [6]byte
	if _, err := r.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	if s.Signal(0, 10, 15) || s.Signal(1, 1, 15) || s.Signal(0, 99, 15) {
		t.Error("a command that does not run got a signal")
	}
	if got := fmt.Sprint(s.Drop(0)); got != "[10 11 12 13 14]" {
		t.Errorf("dropped %s", got)
	}
	if got := s.Drop(0); got != nil {
		t.Errorf("dropped again %v", got)
	}
	s.Start(0, 20, slotSh("exit 4"))
	if !s.Signal(0, 1, 15) {
		t.Error("no signal for the one that runs")
	}
	got := e.wait(2)
	if got[0].Tag != 1 || got[0].Status.Signal != 15 || got[1].Tag != 20 || got[1].Status.ExitCode != 4 {
		t.Errorf("got %+v", got)
	}
	if s.Signal(0, 20, 15) {
		t.Error("a command that has ended got a signal")
	}
	_ = w.Close()
	if n, err := r.Read(b[:]); n != 0 || err == nil { // sleep held it
		t.Errorf("the group's other process lives: %d %v", n, err)
	}
}

// TestSlotsSharedFile has commands of a slot append to one file: each one's part
// is known, and what it leaves running does not write into the next one's.
func TestSlotsSharedFile(t *testing.T) { bothWays(t, testSlotsSharedFile) }

func testSlotsSharedFile(t *testing.T, fast bool) {
	s, e := testSlots(t, 1, fast)
	w, err := os.OpenFile(filepath.Join(t.TempDir(), "out"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const n = 50
	for tag := range uint64(n) {
		c := slotSh(fmt.Sprintf("echo start %d; (sleep 1000; echo late) & echo end %d", tag, tag))
		c.Stdout = w
		s.Start(0, tag, c)
	}
	from := int64(0)
	for _, end := range e.wait(n) {
		b := make([]byte, end.StdoutEnd-from)
		if _, err := w.ReadAt(b, from); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("start %d\nend %d\n", end.Tag, end.Tag); string(b) != want || end.StderrEnd != -1 {
			t.Errorf("got %q, want %q; %+v", b, want, end)
		}
		from = end.StdoutEnd
	}
	eventually(t, "the background processes are gone", func() bool { return len(childrenNamed("sleep")) == 0 })
}

// childrenNamed are the children and adopted processes of this one that run.
func childrenNamed(name string) []int {
	var out []int
	pids, _ := Descendants(os.Getpid())
	for _, pid := range pids {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(b)) == name {
			out = append(out, pid)
		}
	}
	return out
}

func TestSlotsCgroup(t *testing.T) { bothWays(t, testSlotsCgroup) }

func testSlotsCgroup(t *testing.T, fast bool) {
	name := fmt.Sprintf("gangway-slots-%d", os.Getpid())
	groups := map[string]*cgroup{}
	for _, controller := range []string{"memory", "none"} {
		bases, err := liveBases(name, controller)
		if err != nil || len(bases) == 0 {
			continue
		}
		b := bases[0]
		g := &cgroup{dir: filepath.Join(b.dir, name), v2: b.v2}
		if os.Mkdir(g.dir, 0o755) == nil {
			defer func() {
				if err := g.remove(); err != nil {
					t.Error(err)
				}
			}()
			groups[g.dir] = g
		}
	}
	if len(groups) == 0 {
		t.Skip("no control group can be made here")
	}
	s, e := testSlots(t, 1, fast)
	for _, g := range groups {
		dir, err := os.Open(g.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		script := "cat /proc/self/cgroup"
		if !fast { // the process is moved after its start
			script = "until grep " + name + " /proc/self/cgroup; do :; done"
		}
		n := len(e.wait(0))
		r, w := pipe(t)
		c := slotSh(script)
		c.Stdout, c.Cgroup = w, dir
		s.Start(0, 1, c)
		s.Start(0, 2, SlotCommand{Path: "/bin/true", Cgroup: w})
		got := e.wait(n + 2)[n:]
		if got[0].Err != nil || got[0].Status.ExitCode != 0 {
			t.Errorf("got %+v", got[0])
		}
		b := make([]byte, 64<<10)
		if n, _ := r.Read(b); !strings.Contains(string(b[:n]), name) {
			t.Errorf("the process was in\n%s", b[:n])
		}
		var se *StartError
		if !errors.As(got[1].Err, &se) || !strings.Contains(se.Error(), "control group") && !strings.Contains(se.Error(), "cgroup") {
			t.Errorf("no directory of a group: %v", got[1].Err)
		}
	}
}

// TestSlotsBusyProgram starts a program while it is written.
func TestSlotsBusyProgram(t *testing.T) { bothWays(t, testSlotsBusyProgram) }

func testSlotsBusyProgram(t *testing.T, fast bool) {
	s, e := testSlots(t, 1, fast)
	prog, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	for i, closed := range []bool{true, false} {
		w, err := os.OpenFile(filepath.Join(t.TempDir(), "true"), os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if _, err := w.Write(prog); err != nil {
			t.Fatal(err)
		}
		s.Start(0, 1, SlotCommand{Path: w.Name()})
		s.Start(0, 2, slotSh("exit 3"))
		if closed {
			_ = w.Close()
		}
		got := e.wait(2*i + 2)[2*i:]
		if closed && got[0].Err != nil || !closed && !errors.Is(got[0].Err, unix.ETXTBSY) || got[1].Status.ExitCode != 3 {
			t.Errorf("closed %v: %+v", closed, got)
		}
	}
}

// TestSlotsDieWithParent kills a process that has slots.
func TestSlotsDieWithParent(t *testing.T) {
	p, _, line := talk(t, self("slots"))
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(9); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slot's process dies", func() bool {
		st, err := readStat(pid)
		return err != nil || st.state == 'Z'
	})
}

func TestSlotsClose(t *testing.T) { bothWays(t, testSlotsClose) }

func testSlotsClose(t *testing.T, fast bool) {
	s, e := testSlots(t, 2, fast)
	for tag := range uint64(20) {
		s.Start(int(tag%2), tag, slotSh("exit 1"))
	}
	s.Close()
	s.Close()
	if len(e.all) != 20 {
		t.Errorf("%d ends of 20 when it is closed", len(e.all))
	}
	if _, err := s.forker.NewSlots(0, e.take); err == nil {
		t.Error("no slots were made")
	}
}
