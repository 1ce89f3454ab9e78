package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gangway/mpi"
	"gangway/nodeagent/proc"
	"gangway/topology"
)

// Exit statuses of gangway's own, as the shell has them.
const (
	exitGangway       = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// RankName is the wrapper's name, RshName the remote shell's: the program
// behaves as one or the other by the name it is called by.
const (
	RankName = "gangway-rank"
	RshName  = "gangway-rsh"
)

// RankMain is the rank wrapper: mpirun starts `gangway-rank PROGRAM ARGS…` in
// the program's place. It tells its node's shim which rank it is, gets the
// rank's streams, binding and environment, starts the program with them and
// reports how it ended. args and env are os.Args and os.Environ(). It returns
// the exit status: the program's, 128+n if signal n ended it.
func RankMain(args []string, env []string) int {
	if len(args) == 2 && args[1] == environFlag {
		return printEnviron(env)
	}
	code, err := runRank(args, env)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", RankName, err)
	}
	return code
}

// environFlag makes the wrapper print its environment, entries ended by NUL,
// for the set-up script: not every env(1) can.
const environFlag = "--gangway-environ"

func printEnviron(env []string) int {
	var b bytes.Buffer
	for _, kv := range env {
		b.WriteString(kv)
		b.WriteByte(0)
	}
	if _, err := os.Stdout.Write(b.Bytes()); err != nil {
		return 1
	}
	return 0
}

// dialShim connects to the node's shim: its directory is that of the name by
// which this process was called, or in the environment.
func dialShim(argv0 string) (*net.UnixConn, error) {
	dir := filepath.Dir(argv0)
	if !filepath.IsAbs(argv0) {
		dir = os.Getenv("GANGWAY_DIR")
	}
	if dir == "" {
		return nil, errors.New("called outside of a gangway job: GANGWAY_DIR is not set")
	}
	path := filepath.Join(dir, rankSocket)
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("no shim answers on this node, the job is over or was never here: %w", err)
	}
	return c, nil
}

func runRank(args, env []string) (int, error) {
	if len(args) < 2 {
		return exitGangway, errors.New("called without a program")
	}
	rank, size, _, ok := mpi.RankOf(env)
	if !ok {
		return exitGangway, errors.New("not started as a rank by an MPI launcher: its environment names no rank")
	}
	conn, err := dialShim(args[0])
	if err != nil {
		return exitGangway, err
	}
	defer conn.Close()
	hello := record{nums: []int64{int64(rank), int64(size), int64(os.Getpid())}}
	if err := writeMsg(conn, kindRank, hello.encode()); err != nil {
		return exitGangway, err
	}
	buf := make([]byte, 64<<10)
	n, files, err := proc.RecvFiles(conn, buf, 3)
	if err != nil {
		return exitGangway, fmt.Errorf("the shim ended the conversation: %w", err)
	}
	kind, body, err := readMsg(io.MultiReader(bytes.NewReader(buf[:n]), conn))
	if err != nil {
		return exitGangway, fmt.Errorf("the shim ended the conversation: %w", err)
	}
	if kind == kindRefused {
		r, err := decodeRecord(body, 1, 1)
		if err != nil {
			return exitGangway, err
		}
		return int(r.nums[0]), errors.New(r.strs[0])
	}
	place, err := decodeRecord(body, 0, 3)
	if err != nil || kind != kindPlace || len(files) != 3 {
		return exitGangway, fmt.Errorf("the shim answered %q with %d files", kind, len(files))
	}
	cpus, err := topology.ParseCPUSet(place.strs[2])
	if err != nil {
		return exitGangway, err
	}
	// Signals must not end the wrapper before the program. The last two are
	// Linux's SIGUSR1 and SIGUSR2, whose names other systems lack.
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.Signal(10), syscall.Signal(12))
	var mems []int
	for _, n := range place.nums {
		mems = append(mems, int(n))
	}
	p, err := proc.Start(proc.Cmd{
		Path: place.strs[0], Args: args[1:], Dir: place.strs[1], CPUs: cpus, MemNodes: mems,
		Env:   rankEnv(env, place.strs[3:]),
		Stdin: files[0], Stdout: files[1], Stderr: files[2],
		NewGroup: true, KillWithParent: true,
	})
	for _, f := range files {
		_ = f.Close()
	}
	if err != nil {
		code := startCode(err)
		_ = writeMsg(conn, kindFailed, record{nums: []int64{int64(code)}, strs: []string{err.Error()}}.encode())
		return code, nil // the shim says it
	}
	started := record{nums: []int64{int64(p.Pid())}}
	if err := p.MemPolicy(); err != nil {
		started.strs = []string{err.Error()}
	}
	if err := writeMsg(conn, kindStarted, started.encode()); err != nil {
		killProgram(p)
		return exitGangway, err
	}
	go func() {
		for s := range sigs {
			if n, ok := s.(syscall.Signal); ok {
				_ = p.Signal(int(n))
			}
		}
	}()
	ended, hungUp := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(hungUp)
		// The shim says nothing more: what comes is its end. Without it
		// nobody holds the program to its limits.
		_, _ = conn.Read(buf[:1])
		select {
		case <-ended:
		default:
			killProgram(p)
		}
	}()
	st, err := p.Wait()
	close(ended)
	if err != nil {
		return exitGangway, err
	}
	_ = writeMsg(conn, kindExited, record{nums: []int64{int64(st.ExitCode), int64(st.Signal),
		int64(st.MaxRSS), st.User.Microseconds(), st.System.Microseconds()}}.encode())
	if st.ExitCode != 0 || st.Signal != 0 {
		// mpirun answers a failure by killing the other ranks. How the gang
		// ends is the shim's decision: it lets go when it is made.
		<-hungUp
	}
	if st.Signal != 0 {
		return 128 + st.Signal, nil
	}
	return st.ExitCode, nil
}

func killProgram(p *proc.Process) {
	_, _ = proc.KillTree(p.Pid(), 2*time.Second)
}

// startCode is the exit status for a program that did not start.
func startCode(err error) int {
	switch {
	case errors.Is(err, proc.ErrNotFound):
		return exitNotFound
	case errors.Is(err, proc.ErrNotExecutable):
		return exitNotExecutable
	}
	return exitGangway
}

// launcherVars are the prefixes of what an MPI launcher tells its rank by the
// environment.
var launcherVars = []string{"PMI", "OMPI_", "OPAL_", "PRTE_", "MPI_LOCAL", "HYDI_", "I_MPI_", "MPICH_", "MPIEXEC_", "MPIR_"}

// rankEnv is the rank's environment: the task's, and of the wrapper's own what
// the MPI launcher put there for this rank.
func rankEnv(own, task []string) []string {
	out := make([]string, 0, len(task)+32)
	set := map[string]bool{}
	for _, kv := range own {
		name, _, _ := strings.Cut(kv, "=")
		for _, p := range launcherVars {
			if strings.HasPrefix(name, p) {
				out = append(out, kv)
				set[name] = true
				break
			}
		}
	}
	for _, kv := range task {
		if name, _, _ := strings.Cut(kv, "="); !set[name] {
			out = append(out, kv)
		}
	}
	return out
}
