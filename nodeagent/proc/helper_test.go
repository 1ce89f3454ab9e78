//go:build linux

package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The tests' own program plays the processes that they start.
func TestMain(m *testing.M) {
	if mode := os.Getenv("PROC_TEST_HELPER"); mode != "" {
		helper(mode, os.Args[1:])
		return
	}
	goleak.VerifyTestMain(m)
}

func helper(mode string, args []string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
	}
	switch mode {
	case "wrapper": // a rank's wrapper: start a program and return its status
		p, err := Start(Cmd{Path: args[0], Args: args, Env: []string{"A=b"}, Stdout: os.Stdout, Stderr: os.Stderr, KillWithParent: true})
		fail(err)
		st, err := p.Wait()
		fail(err)
		os.Exit(st.ExitCode)
	case "retitle":
		retitled(args)
	case "killfork": // kills while it forks and collects garbage
		f := NewForker()
		stop := make(chan struct{})
		go func() {
			for {
				runtime.GC()
				time.Sleep(2 * time.Millisecond)
			}
		}()
		go func() {
			defer close(stop)
			extra := slices.Repeat([]*os.File{os.Stdin}, 4_000) // takes its time between fork and exec
			from := time.Now()
			for i := 0; i < 300 && (i < 20 || time.Since(from) < 8*time.Second); i++ {
				fmt.Println("forking")
				p, err := f.Start(Cmd{Path: "/bin/true", Args: []string{"true"}, Extra: extra, KillWithParent: true})
				fail(err)
				_, err = p.Wait()
				fail(err)
			}
		}()
		for range 4 {
			go func() {
				for {
					_, err := KillTree(os.Getpid(), 20*time.Millisecond)
					fail(err)
				}
			}()
		}
		<-stop
		fmt.Println("done")
	case "slots": // a process in a slot
		s, err := NewForker().NewSlots(1, func([]SlotEnd) {})
		fail(err)
		s.Start(0, 1, SlotCommand{Path: "/bin/sh", Argv: []string{"sh", "-c", "echo $$; exec sleep 1000"}, Stdout: os.Stdout})
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "nursery": // children from a forker and from a thread that ends
		f := NewForker()
		p, err := f.Start(Cmd{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, KillWithParent: true})
		fail(err)
		ended := make(chan int)
		go ownThread(func() {
			q, err := Start(Cmd{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, KillWithParent: true})
			fail(err)
			go func() { _, _ = q.Wait(); close(ended) }()
		})
		<-ended
		fmt.Println(p.Pid())
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "subreaper": // an orphan comes to us; children keep their status
		fail(SetSubreaper())
		f := NewForker()
		f.StartReaper()
		p, err := f.Start(Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", "(sh -c 'echo $$; exec sleep 0.1' & ) ; exit 7"}, Stdout: os.Stdout})
		fail(err)
		end := time.Now().Add(10 * time.Second)
		for { // the reaper must leave the child's status alone, however long it takes us
			if s, err := readStat(p.Pid()); err != nil || time.Now().After(end) {
				fail(fmt.Errorf("child is gone: %w", err))
			} else if s.state == 'Z' && len(childrenOf(os.Getpid(), nil)) == 1 {
				break
			}
			runtime.Gosched()
		}
		st, err := p.Wait()
		fail(err)
		fmt.Println("status", st.ExitCode)
		fail(f.Close())
	case "hold": // memory
		n, err := strconv.Atoi(args[0])
		fail(err)
		b := make([]byte, n)
		for i := 0; i < n; i += 4096 {
			b[i] = 1
		}
		fmt.Println("held")
		runtime.KeepAlive(b)
	case "locked":
		l, err := Lock(args[0])
		fail(err)
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin)
		fail(l.Close())
	case "detach":
		_, err := Detach(Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", "echo $$; exec sleep 1000"}, KillWithParent: true}, args[0])
		fail(err)
	case "affinity":
		set, err := Affinity(os.Getpid())
		fail(err)
		fmt.Println(set)
	case "runaway":
		dir, err := os.MkdirTemp("", "gangway-runaway")
		fail(err)
		err = runaway(dir)
		_ = os.RemoveAll(dir)
		fail(err)
	case "openfds":
		ents, err := os.ReadDir("/proc/self/fd")
		fail(err)
		for _, e := range ents {
			l, _ := os.Readlink("/proc/self/fd/" + e.Name())
			if strings.Contains(l, "proctest") {
				fmt.Println(e.Name())
			}
		}
	}
}

// self is the test program in a helper's role.
func self(mode string, args ...string) Cmd {
	return Cmd{Path: "/proc/self/exe", Args: append([]string{"helper"}, args...), Env: append(os.Environ(), "PROC_TEST_HELPER="+mode), Stderr: os.Stderr}
}

// output runs c and returns what it wrote.
func output(t testing.TB, start func(Cmd) (*Process, error), c Cmd) (string, Status) {
	t.Helper()
	r, w, err := Pipe(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout = w
	p, err := start(c)
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return string(b), st
}

// talk starts c with a pipe to its stdin and returns its first line.
func talk(t testing.TB, c Cmd) (p *Process, in *os.File, line string) {
	t.Helper()
	r, w, err := Pipe(0)
	if err != nil {
		t.Fatal(err)
	}
	ir, iw, err := Pipe(0)
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin, c.Stdout = ir, w
	p, err = Start(c)
	_, _ = ir.Close(), w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = iw.Close()
		_ = p.Signal(9)
		_, _ = p.Wait()
		_ = r.Close()
	})
	line, err = bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return p, iw, strings.TrimSpace(line)
}

// eventually polls for what the kernel does in its own time.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
