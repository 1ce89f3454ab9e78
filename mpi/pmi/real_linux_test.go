package pmi_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gangway/mpi"
	"gangway/mpi/pmi"
)

// compilers returns the MPI compilers of MPICH's family on this machine: the
// distribution's, and those of the project's Python environments.
func compilers(t *testing.T) []string {
	var found []string
	for _, name := range []string{"mpicc.mpich", "../../.cache/venv-mpich5/bin/mpicc", "../../.cache/venv-intel/bin/mpicc"} {
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				found = append(found, path)
			}
		}
	}
	if len(found) == 0 {
		t.Skip("no MPI of MPICH's family on this machine: apt-get install mpich libmpich-dev, or .ci/deps.sh")
	}
	return found
}

// label names an installation in a test's name.
func label(mpicc string) string {
	if strings.Contains(mpicc, "venv-") {
		return filepath.Base(filepath.Dir(filepath.Dir(mpicc)))
	}
	return filepath.Base(mpicc)
}

const program = `
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
	int r, n, sum = 0, local;
	char line[16];
	MPI_Comm node;
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &r);
	MPI_Comm_size(MPI_COMM_WORLD, &n);
	MPI_Allreduce(&r, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
	MPI_Comm_size(node, &local);
	printf("rank %d of %d sum %d local %d\n", r, n, sum, local);
	fflush(stdout);
	if (argc > 1 && !strcmp(argv[1], "abort") && r == 1) MPI_Abort(MPI_COMM_WORLD, 7);
	if (argc > 1 && !strcmp(argv[1], "leave") && r == 1) _exit(0);
	if (argc > 1) { if (!fgets(line, sizeof line, stdin)) return 3; }
	MPI_Comm_free(&node);
	MPI_Finalize();
	return 0;
}
`

func build(t *testing.T, mpicc string) string {
	t.Helper()
	src := filepath.Join(t.TempDir(), "p.c")
	if err := os.WriteFile(src, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	exe := strings.TrimSuffix(src, ".c")
	cmd := exec.Command(mpicc, "-O1", "-o", exe, src)
	cmd.Env = append(os.Environ(), "I_MPI_ROOT="+filepath.Dir(filepath.Dir(mpicc)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mpicc, err, out)
	}
	return exe
}

// gang is a run of a program over servers that take each other for other nodes.
type gang struct {
	t       *testing.T
	servers []*pmi.Server
	nodeOf  []int
	cmds    []*exec.Cmd
	stdins  []io.WriteCloser
	out     syncBuffer
	aborts  chan string
	serve   chan error
	wg      sync.WaitGroup
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// allgather puts the parts of n callers together, over and over.
type allgather struct {
	mu    sync.Mutex
	cond  *sync.Cond
	n     int
	parts map[int][]byte
	round int
	last  []byte
}

func newAllgather(n int) *allgather {
	a := &allgather{n: n, parts: map[int][]byte{}}
	a.cond = sync.NewCond(&a.mu)
	return a
}

func (a *allgather) of(i int) func([]byte) ([]byte, error) {
	return func(part []byte) ([]byte, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.parts[i] = part
		if len(a.parts) == a.n {
			a.last = nil
			for k := range a.n {
				a.last = append(a.last, a.parts[k]...)
			}
			a.parts = map[int][]byte{}
			a.round++
			a.cond.Broadcast()
			return a.last, nil
		}
		for round := a.round; a.round == round; {
			a.cond.Wait()
		}
		return a.last, nil
	}
}

func start(t *testing.T, exe, mpicc string, nodeOf []int, args ...string) *gang {
	t.Helper()
	g := &gang{t: t, nodeOf: nodeOf, aborts: make(chan string, 64), serve: make(chan error, 64)}
	nodes := slices.Max(nodeOf) + 1
	all := newAllgather(nodes)
	locals := make([][]int, nodes)
	for r, n := range nodeOf {
		locals[n] = append(locals[n], r)
	}
	kvs := fmt.Sprintf("kvs_%d_%d", os.Getpid(), time.Now().UnixNano())
	for n := range nodes {
		c := pmi.Config{Size: len(nodeOf), Ranks: locals[n], Mapping: pmi.Mapping(nodeOf), KVS: kvs, Exchange: all.of(n),
			Abort: func(rank, code int, message string) { g.aborts <- fmt.Sprintf("%d %d", rank, code) }}
		s, err := pmi.New(c)
		if err != nil {
			t.Fatal(err)
		}
		g.servers = append(g.servers, s)
	}
	for r, n := range nodeOf {
		local := slices.Index(locals[n], r)
		cmd := exec.Command(exe, args...)
		cmd.Stdout, cmd.Stderr = &g.out, &g.out
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		g.stdins = append(g.stdins, stdin)
		ours, theirs := socketPair(t)
		cmd.ExtraFiles = []*os.File{theirs}
		cmd.Env = append(mpi.Scrub(os.Environ()), "PMI_FD=3", fmt.Sprintf("PMI_RANK=%d", r), fmt.Sprintf("PMI_SIZE=%d", len(nodeOf)),
			fmt.Sprintf("MPI_LOCALRANKID=%d", local), fmt.Sprintf("MPI_LOCALNRANKS=%d", len(locals[n])),
			"I_MPI_ROOT="+filepath.Dir(filepath.Dir(mpicc)), "I_MPI_PIN=0", "UCX_TLS=posix,tcp,self", "FI_PROVIDER=tcp")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = theirs.Close()
		g.cmds = append(g.cmds, cmd)
		g.wg.Go(func() { g.serve <- g.servers[n].Serve(local, tracing(ours, r)) })
	}
	t.Cleanup(func() {
		g.kill()
		for _, c := range g.cmds {
			_ = c.Wait()
		}
		g.wg.Wait()
		for _, s := range g.servers {
			s.Wait()
		}
	})
	return g
}

func (g *gang) kill() {
	for _, c := range g.cmds {
		_ = c.Process.Kill()
	}
}

// release lets the ranks that read a line go on.
func (g *gang) release() {
	for _, w := range g.stdins {
		_, _ = io.WriteString(w, "go\n")
	}
}

func (g *gang) wait() {
	g.t.Helper()
	late := time.AfterFunc(2*time.Minute, g.kill)
	defer late.Stop()
	for r, c := range g.cmds {
		if err := c.Wait(); err != nil {
			g.t.Errorf("rank %d: %v\n%s", r, err, g.out.String())
		}
	}
}

// until waits for what the ranks print.
func (g *gang) until(cond func(out string) bool) {
	g.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !cond(g.out.String()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			g.kill()
			g.t.Fatalf("only:\n%s", g.out.String())
		}
	}
}

// awaitPhase waits until a rank of a node is where it must come to.
func (g *gang) awaitPhase(node, local int, want pmi.Phase) {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		switch p := g.servers[node].Phase(local); {
		case p == want:
			return
		case time.Now().After(end):
			g.t.Fatalf("rank %d of node %d is in %s, not in %s", local, node, p, want)
		}
	}
}

func socketPair(t *testing.T) (net.Conn, *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "pmi")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	return conn, os.NewFile(uintptr(fds[1]), "rank")
}

// tracing prints what one rank says, when GANGWAY_TEST_TRACE has its number.
func tracing(c io.ReadWriteCloser, rank int) io.ReadWriteCloser {
	if os.Getenv("GANGWAY_TEST_TRACE") != fmt.Sprint(rank) {
		return c
	}
	return &tracer{c}
}

type tracer struct{ io.ReadWriteCloser }

func (t *tracer) Read(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Read(p)
	fmt.Fprintf(os.Stderr, "< %.150s\n", bytes.TrimSpace(p[:n]))
	return n, err
}

func (t *tracer) Write(p []byte) (int, error) {
	fmt.Fprintf(os.Stderr, "> %.150s\n", bytes.TrimSpace(p))
	return t.ReadWriteCloser.Write(p)
}

// The real libraries find each other, on one node and on two, block and round
// robin, and see which ranks share a node.
func TestReal(t *testing.T) {
	for _, mpicc := range compilers(t) {
		exe := build(t, mpicc)
		for _, nodeOf := range [][]int{{0}, {0, 0, 0}, {0, 0, 1, 1}, {0, 1, 0, 1}, {0, 1, 1}} {
			t.Run(fmt.Sprintf("%s/%v", label(mpicc), nodeOf), func(t *testing.T) {
				g := start(t, exe, mpicc, nodeOf, "wait")
				g.until(func(out string) bool { return strings.Count(out, "local") == len(nodeOf) })
				for r, n := range nodeOf {
					g.awaitPhase(n, index(nodeOf, r), pmi.Running)
				}
				g.release()
				g.wait()
				count := map[int]int{}
				for _, n := range nodeOf {
					count[n]++
				}
				size := len(nodeOf)
				for r, n := range nodeOf {
					want := fmt.Sprintf("rank %d of %d sum %d local %d\n", r, size, size*(size-1)/2, count[n])
					if !strings.Contains(g.out.String(), want) {
						t.Errorf("no %q in:\n%s", want, g.out.String())
					}
				}
				for range nodeOf {
					if err := <-g.serve; err != nil {
						t.Error(err)
					}
				}
				for r, n := range nodeOf {
					if p := g.servers[n].Phase(index(nodeOf, r)); p != pmi.Done {
						t.Errorf("rank %d ended in %s", r, p)
					}
				}
			})
		}
	}
}

// index is rank r's place among the ranks of its node.
func index(nodeOf []int, r int) int {
	i := 0
	for k := range r {
		if nodeOf[k] == nodeOf[r] {
			i++
		}
	}
	return i
}

func TestRealAbort(t *testing.T) {
	for _, mpicc := range compilers(t) {
		t.Run(label(mpicc), func(t *testing.T) {
			g := start(t, build(t, mpicc), mpicc, []int{0, 0}, "abort")
			if got := <-g.aborts; got != "1 7" {
				t.Errorf("abort %s", got)
			}
			g.kill()
			for range 2 {
				if err := <-g.serve; !errors.Is(err, pmi.ErrAborted) && !errors.Is(err, pmi.ErrUnfinished) {
					t.Error(err)
				}
			}
		})
	}
}

func TestRealLeave(t *testing.T) {
	for _, mpicc := range compilers(t) {
		t.Run(label(mpicc), func(t *testing.T) {
			g := start(t, build(t, mpicc), mpicc, []int{0, 0}, "leave")
			err := <-g.serve
			var re *pmi.RankError
			if !errors.As(err, &re) || re.Rank != 1 || !errors.Is(err, pmi.ErrUnfinished) {
				t.Errorf("%v", err)
			}
			g.kill()
			<-g.serve
		})
	}
}
