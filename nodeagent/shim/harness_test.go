//go:build linux

package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/topology"
	"gangway/topology/probe"
)

// TestMain lets the test binary be what the product's one binary is: the shim,
// the wrapper and the remote shell, by name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case RankName:
		os.Exit(RankMain(os.Args, os.Environ()))
	case RshName:
		os.Exit(RshMain(os.Args))
	}
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		c, err := fileConn(os.NewFile(3, "agent"))
		if err == nil {
			err = Main(context.Background(), c)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "shim:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func fileConn(f *os.File) (net.Conn, error) {
	defer f.Close()
	return net.FileConn(f)
}

var counter atomic.Int32

// member is one shim as its agent sees it.
type member struct {
	t    testing.TB
	a    *wire.Assignment
	root string
	p    *os.Process
	conn net.Conn

	taskRoot, taskPath string // of a kept task

	mu       sync.Mutex
	change   *sync.Cond
	ready    *wire.Ready
	plan     *wire.LaunchPlan
	result   *wire.Result
	credit   uint64
	started  map[uint32]int64
	notices  []string
	out      map[string][]byte // "rank/stream"
	eofs     map[string]bool
	end      uint64 // of the output sequence
	gap      string
	noAck    bool
	lastWord bool        // the shim has said that nothing is left
	blocks   *blocksSeen // of a crew
	conns    int
	exited   bool
	status   string
}

func assignment(t testing.TB, command ...string) *wire.Assignment {
	t.Helper()
	node := liveNode(t)
	id := fmt.Sprintf("t%d-%d", os.Getpid(), counter.Add(1))
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Assignment{
		Id: id, Name: &wire.AttemptName{Cluster: "c", TaskUid: "u", Range: &wire.Range{Hi: 1}, Attempt: 1, Epoch: 1},
		Job: "job", Task: "task", Command: command, Workdir: wd, Mpi: "auto", Bind: "core",
		NodeCount: 1, NodeDir: "/tmp/gangway-" + id, Cpus: node.Allowed.String(), NodeRanks: 1, TotalRanks: 1, CoresPerRank: 1,
		LaunchDeadlineMs: 20000, KillGraceMs: 500, Oversubscribe: true, Node: "here",
	}
}

func ranks(a *wire.Assignment, n uint32) *wire.Assignment {
	a.NodeRanks, a.TotalRanks = n, n
	return a
}

var liveOnce = sync.OnceValues(probe.Live)

func liveNode(t testing.TB) topology.Node {
	t.Helper()
	n, err := liveOnce()
	if err != nil {
		t.Skipf("this machine can't be probed: %v", err)
	}
	return n
}

// startMember starts a shim on this machine as an agent does.
func startMember(t testing.TB, a *wire.Assignment, leaseMs uint64) *member {
	t.Helper()
	return startOn(t, a, leaseMs, liveNode(t))
}

// startOn starts a shim on this machine that takes it for another.
func startOn(t testing.TB, a *wire.Assignment, leaseMs uint64, node topology.Node) *member {
	t.Helper()
	cmd := exec.Command(executable(t), "shim")
	cmd.Env, cmd.Dir = os.Environ(), "/"
	return startWith(t, a, leaseMs, node, "", cmd, cmd.Start)
}

func executable(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// startWith starts a shim by cmd and start; root is where its file system is
// seen from here.
func startWith(t testing.TB, a *wire.Assignment, leaseMs uint64, node topology.Node, root string, cmd *exec.Cmd, start func() error) *member {
	t.Helper()
	model, err := json.Marshal(node)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		t.Skip(err)
	}
	cmd.Env = append(cmd.Env, "GANGWAY_ID="+a.GetId())
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = start()
	_ = theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, a: a, root: root, p: cmd.Process, started: map[uint32]int64{}, out: map[string][]byte{}, eofs: map[string]bool{}}
	m.change = sync.NewCond(&m.mu)
	m.use(ours)
	if a.GetTaskDir() != "" {
		m.taskRoot = keptRoot(t)
		m.taskPath = filepath.Join(m.taskRoot, a.GetTaskDir())
		if err := os.MkdirAll(m.taskPath, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := link.WriteFrame(ours, &wire.Frame{M: &wire.Frame_Start{Start: &wire.ShimStart{
		Assignment: a, NodeJson: model, Executable: executable(t), SpoolDir: t.TempDir(), NodeName: a.GetNode(), LeaseMs: leaseMs,
		TaskRoot: m.taskRoot, TaskPath: m.taskPath}}}); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = cmd.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.exited, m.status = true, cmd.ProcessState.String()
		m.change.Broadcast()
	}()
	t.Cleanup(func() {
		_, _ = proc.KillByEnv("GANGWAY_ID="+a.GetId(), 5*time.Second)
		<-gone
		_ = os.RemoveAll(root + a.GetNodeDir())
		_ = os.RemoveAll(root + proc.SharedMemoryDir(a.GetNodeDir()))
		if err := proc.RemoveGroups(filepath.Base(a.GetNodeDir())); err != nil { // as the agent does
			t.Error(err)
		}
	})
	return m
}

// use makes conn the agent's connection.
func (m *member) use(conn net.Conn) {
	m.mu.Lock()
	m.conn = conn
	m.conns++
	m.mu.Unlock()
	go func() {
		for {
			f, err := link.ReadFrame(conn)
			if err != nil {
				return
			}
			if f.GetFrom() != nil {
				m.take(conn, f.GetFrom())
			}
			if f.GetTo().GetForget() != nil {
				m.heardLast(f.GetTo().GetId())
			}
		}
	}()
}

// reconnect is a new agent.
func (m *member) reconnect() {
	m.t.Helper()
	c, err := net.Dial("unix", m.root+filepath.Join(m.a.GetNodeDir(), agentSocket))
	if err != nil {
		m.t.Fatal(err)
	}
	m.mu.Lock()
	old := m.conn
	m.mu.Unlock()
	_ = old.Close()
	m.use(c)
}

// heardLast is the shim's last word, at which nothing of it is left.
func (m *member) heardLast(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.change.Broadcast()
	m.lastWord = true
	if id != m.a.GetId() {
		m.gap = fmt.Sprintf("the last word of %q", id)
	}
	if _, err := os.Lstat(m.root + m.a.GetNodeDir()); err == nil {
		m.gap = m.a.GetNodeDir() + " was there at the shim's last word"
	}
}

func (m *member) take(conn net.Conn, f *wire.FromShim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.change.Broadcast()
	if f.GetId() != m.a.GetId() || f.GetName().GetTaskUid() != "u" {
		m.gap = fmt.Sprintf("a message of %q", f.GetId())
	}
	switch v := f.GetM().(type) {
	case *wire.FromShim_Ready:
		m.ready = v.Ready
	case *wire.FromShim_Plan:
		m.plan = v.Plan
	case *wire.FromShim_Result:
		m.result = v.Result
	case *wire.FromShim_StdinCredit:
		m.credit = v.StdinCredit.GetUpto()
	case *wire.FromShim_Started:
		m.started[v.Started.GetRank()] = v.Started.GetPid()
	case *wire.FromShim_Block:
		if m.blocks.take(v.Block) {
			m.sendOn(conn, &wire.ToShim{M: &wire.ToShim_BlockAck{BlockAck: &wire.BlockAck{Seq: v.Block.GetSeq()}}})
		}
	case *wire.FromShim_Notice:
		m.notices = append(m.notices, v.Notice.GetText())
	case *wire.FromShim_Output:
		o := v.Output
		key := fmt.Sprintf("%d/%d", o.GetRank(), o.GetStream())
		data := o.GetData()
		switch {
		case o.GetOffset() > m.end:
			m.gap = fmt.Sprintf("output jumps from %d to %d", m.end, o.GetOffset())
		case o.GetOffset()+uint64(len(data)) <= m.end:
			data = nil // said again
		default:
			data = data[m.end-o.GetOffset():]
		}
		m.out[key] = append(m.out[key], data...)
		m.end += uint64(len(data))
		m.eofs[key] = m.eofs[key] || o.GetEof()
		if !m.noAck {
			m.sendOn(conn, &wire.ToShim{M: &wire.ToShim_OutputAck{OutputAck: &wire.OutputAck{Offset: m.end}}})
		}
	}
}

func (m *member) sendOn(conn net.Conn, msg *wire.ToShim) {
	msg.Id = m.a.GetId()
	_ = link.WriteFrame(conn, &wire.Frame{M: &wire.Frame_To{To: msg}})
}

func (m *member) send(msg *wire.ToShim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sendOn(m.conn, msg)
}

// until waits for cond, called with m.mu held.
func (m *member) until(what string, d time.Duration, cond func() bool) {
	m.t.Helper()
	late := false
	t := time.AfterFunc(d, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		late = true
		m.change.Broadcast()
	})
	defer t.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for !cond() {
		if late {
			m.t.Fatalf("%s: no %s within %v\nready %v\nresult %v\nnotices %q\nexited %v %s\nout %.2000q", m.a.GetId(), what, d, m.ready, m.result, m.notices, m.exited, m.status, m.out)
		}
		m.change.Wait()
	}
	if m.gap != "" {
		m.t.Fatal(m.gap)
	}
}

func (m *member) awaitReady() *wire.Ready {
	m.t.Helper()
	m.until("ready", 30*time.Second, func() bool { return m.ready != nil })
	return m.ready
}

func (m *member) launch(peers ...*wire.Peer) {
	m.t.Helper()
	if r := m.awaitReady(); r.GetFailure() != nil {
		m.t.Fatalf("not ready: %v", r.GetFailure())
	}
	m.send(&wire.ToShim{M: &wire.ToShim_Launch{Launch: &wire.Launch{Peers: peers}}})
}

func (m *member) awaitResult() *wire.Result {
	m.t.Helper()
	m.until("result", 60*time.Second, func() bool { return m.result != nil && m.end >= m.result.GetOutputEnd() })
	return m.result
}

// forget ends the shim and proves that it left nothing.
func (m *member) forget() {
	m.t.Helper()
	m.send(&wire.ToShim{M: &wire.ToShim_Forget{Forget: &wire.Forget{}}})
	m.awaitGone()
	// On a busy machine it may not be read in time; then the end of the process is
	// what an agent goes by.
	m.until("last word", 20*time.Second, func() bool { return m.lastWord || m.exited })
	m.nothingLeft()
}

func (m *member) awaitGone() {
	m.t.Helper()
	m.until("end of the shim", 20*time.Second, func() bool { return m.exited })
	if m.status != "exit status 0" {
		m.t.Errorf("the shim ended with %s", m.status)
	}
	if _, err := os.Lstat(m.root + m.a.GetNodeDir()); err == nil {
		m.t.Errorf("%s is still there", m.a.GetNodeDir())
	}
}

// nothingLeft looks for the attempt's processes, on all its nodes.
func (m *member) nothingLeft() {
	m.t.Helper()
	if left := proc.ByEnv("GANGWAY_ID=" + m.a.GetId()); len(left) > 0 {
		m.t.Errorf("processes are left: %v", left)
	}
}

func (m *member) stdout(rank int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.out[fmt.Sprintf("%d/0", rank)])
}

func (m *member) stderr(rank int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.out[fmt.Sprintf("%d/1", rank)])
}

// all is what the ranks and mpirun wrote.
func (m *member) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for i := -1; i < 64; i++ {
		b.Write(m.out[fmt.Sprintf("%d/0", i)])
		b.Write(m.out[fmt.Sprintf("%d/1", i)])
	}
	return b.String()
}

// run is a whole attempt on this machine.
func run(t *testing.T, a *wire.Assignment) (*member, *wire.Result) {
	t.Helper()
	return runOn(t, a, liveNode(t))
}

func runOn(t *testing.T, a *wire.Assignment, node topology.Node) (*member, *wire.Result) {
	t.Helper()
	m := startOn(t, a, 0, node)
	m.launch()
	r := m.awaitResult()
	m.forget()
	return m, r
}

// hello compiles an MPI program with the given compiler.
func hello(t testing.TB, mpicc string) string {
	t.Helper()
	return compile(t, mpicc, helloSource)
}

func compile(t testing.TB, mpicc, source string, flags ...string) string {
	t.Helper()
	if _, err := exec.LookPath(mpicc); err != nil {
		t.Skipf("%s is not installed", mpicc)
	}
	src := filepath.Join(t.TempDir(), "hello.c")
	exe := strings.TrimSuffix(src, ".c")
	if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(mpicc, append(flags, "-O1", "-o", exe, src)...)
	cmd.Env = append(os.Environ(), "I_MPI_ROOT="+filepath.Dir(filepath.Dir(mpicc)))
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", mpicc, err, out.String())
	}
	return exe
}

const helloSource = `
#define _GNU_SOURCE
#include <mpi.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
	int r, n, sum = 0;
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &r);
	MPI_Comm_size(MPI_COMM_WORLD, &n);
	MPI_Allreduce(&r, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	cpu_set_t set;
	sched_getaffinity(0, sizeof set, &set);
	printf("rank %d of %d sum %d cpus", r, n, sum);
	for (int i = 0; i < 64; i++) if (CPU_ISSET(i, &set)) printf(" %d", i);
	printf("\n");
	fflush(stdout);
	if (argc > 1 && atoi(argv[2]) == r) {
		if (!strcmp(argv[1], "abort")) MPI_Abort(MPI_COMM_WORLD, 7);
		if (!strcmp(argv[1], "exit")) exit(5);
		if (!strcmp(argv[1], "segv")) raise(SIGSEGV);
		if (!strcmp(argv[1], "kill")) raise(SIGKILL);
	}
	if (argc > 1) { MPI_Barrier(MPI_COMM_WORLD); sleep(60); }
	MPI_Finalize();
	return 0;
}
`
