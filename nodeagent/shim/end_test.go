//go:build linux

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// TestVerdict holds that the exit status is the failing rank's, by whatever it
// ended, and that nothing outlives it.
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name         string
		how          string
		code, signal int32
	}{
		{"abort", "abort", 7, 0},
		{"exit", "exit", 5, 0},
		{"segv", "segv", 0, int32(syscall.SIGSEGV)},
		{"kill", "kill", 0, int32(syscall.SIGKILL)},
	} {
		for _, f := range []struct{ cc, via string }{{"mpicc.mpich", "pmi"}, {"mpicc.mpich", "mpirun"}, {"mpicc.openmpi", "mpirun"}} {
			t.Run(c.name+"/"+strings.TrimPrefix(f.cc, "mpicc.")+" "+f.via, func(t *testing.T) {
				exe := hello(t, f.cc)
				begin := time.Now()
				a := ranks(assignment(t, exe, c.how, "1"), 3)
				a.LaunchVia = f.via
				m, r := run(t, a)
				if r.GetExitCode() != c.code || r.GetSignal() != c.signal {
					t.Errorf("exit %d signal %d, want %d %d\n%v\n%s", r.GetExitCode(), r.GetSignal(), c.code, c.signal, r, m.all())
				}
				if (c.how != "abort" || f.via == "pmi") && r.GetFirstRank() != 1 {
					t.Errorf("rank %d failed first, it was 1: %v", r.GetFirstRank(), r)
				}
				if r.GetFailure().GetCode() != wire.FailureCode_FAILURE_RANK {
					t.Errorf("failure %v", r.GetFailure())
				}
				if d := time.Since(begin); d > 10*time.Second {
					t.Errorf("it took %v", d)
				}
			})
		}
	}
}

func TestDirectVerdict(t *testing.T) {
	a := ranks(assignment(t, "/bin/sh", "-c", "echo last words $GANGWAY_RANK >&2; if [ $GANGWAY_RANK = 2 ]; then exit 9; fi; sleep 60 & sleep 60"), 3)
	a.Mpi = "none"
	_, r := run(t, a)
	if r.GetExitCode() != 9 || r.GetFirstRank() != 2 || len(r.GetRanks()) != 3 {
		t.Fatalf("result %v", r)
	}
	for _, e := range r.GetRanks() {
		if by := e.GetRank() != 2; e.GetKilledByGangway() != by {
			t.Errorf("rank %d killed by gangway: %v", e.GetRank(), !by)
		}
	}
	if !strings.Contains(r.GetRanks()[2].GetLastStderr(), "last words 2") {
		t.Errorf("last words %q", r.GetRanks()[2].GetLastStderr())
	}
}

func TestPrepareFailures(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	noX := write("nox", "#!/bin/sh\n", 0o644)
	noLine := write("noline", "echo hello\n", 0o755)
	badInterp := write("interp", "#!/no/such/sh\n", 0o755)
	for _, c := range []struct {
		name string
		set  func(a *wire.Assignment)
		code wire.FailureCode
		says string
	}{
		{"missing", func(a *wire.Assignment) { a.Command = []string{"/no/such/program"} }, wire.FailureCode_FAILURE_NOT_FOUND, "/no/such/program"},
		{"not on PATH", func(a *wire.Assignment) { a.Command = []string{"no-such-program"} }, wire.FailureCode_FAILURE_NOT_FOUND, "no-such-program"},
		{"no x bit", func(a *wire.Assignment) { a.Command = []string{noX} }, wire.FailureCode_FAILURE_NOT_EXECUTABLE, "nox"},
		{"no first line", func(a *wire.Assignment) { a.Command = []string{noLine} }, wire.FailureCode_FAILURE_NOT_EXECUTABLE, "noline"},
		{"interpreter", func(a *wire.Assignment) { a.Command = []string{badInterp} }, wire.FailureCode_FAILURE_NOT_FOUND, "interp"},
		{"directory", func(a *wire.Assignment) { a.Command = []string{dir} }, wire.FailureCode_FAILURE_NOT_EXECUTABLE, dir},
		{"workdir", func(a *wire.Assignment) { a.Workdir = "/no/such/dir" }, wire.FailureCode_FAILURE_WORKDIR, "/no/such/dir"},
		{"binding", func(a *wire.Assignment) { a.Oversubscribe, a.NodeRanks, a.TotalRanks = false, 4096, 4096 }, wire.FailureCode_FAILURE_BINDING, "4096"},
		{"setup", func(a *wire.Assignment) {
			a.SetupName, a.SetupScript = "env.sh", []byte("echo no such module >&2; exit 3")
		}, wire.FailureCode_FAILURE_SETUP, "no such module"},
		{"setup's syntax", func(a *wire.Assignment) { a.SetupName, a.SetupScript = "env.sh", []byte("if then\n") }, wire.FailureCode_FAILURE_SETUP, "env.sh"},
		{"setup hangs", func(a *wire.Assignment) { a.LaunchDeadlineMs, a.SetupScript = 200, []byte("sleep 600") }, wire.FailureCode_FAILURE_SETUP, "200ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := assignment(t, "hostname")
			c.set(a)
			m := startMember(t, a, 0)
			f := m.awaitReady().GetFailure()
			if f.GetCode() != c.code || !strings.Contains(f.GetMessage(), c.says) || f.GetNode() != "here" {
				t.Errorf("failure %v, want %v naming %q", f, c.code, c.says)
			}
			t.Logf("%s: %s", f.GetMessage(), f.GetHint())
			m.awaitResult()
			m.forget()
		})
	}
}

func TestMismatch(t *testing.T) {
	a := assignment(t, hello(t, "mpicc.mpich"))
	hello(t, "mpicc.openmpi") // both must be here
	a.Mpi = "openmpi"
	m := startMember(t, a, 0)
	f := m.awaitReady().GetFailure()
	if f.GetCode() != wire.FailureCode_FAILURE_MPI_MISMATCH || !strings.Contains(f.GetMessage(), "MPICH") || !strings.Contains(f.GetMessage(), "Open MPI") {
		t.Errorf("failure %v, want one that names both", f)
	}
	m.awaitResult()
	m.forget()
}

// TestMPIOfAnArgument holds that a program which another one starts gets its
// own MPI, or a warning.
func TestMPIOfAnArgument(t *testing.T) {
	for _, c := range []struct{ cc, mpi string }{{"mpicc.mpich", "mpich"}, {"mpicc.openmpi", "openmpi"}} {
		t.Run(c.mpi, func(t *testing.T) {
			a := ranks(assignment(t, "env", "A=B", hello(t, c.cc)), 2)
			a.Preflight = "off" // this machine's own findings are no matter here
			m, r := run(t, a)
			if r.GetExitCode() != 0 || m.plan.GetMpi() != c.mpi {
				t.Fatalf("result %v, plan %v", r, m.plan)
			}
			if !strings.Contains(m.stdout(1), "rank 1 of 2 sum 1") {
				t.Errorf("rank 1: %q", m.stdout(1))
			}
			if len(m.notices) > 0 {
				t.Errorf("notices %q", m.notices)
			}
		})
	}
	t.Run("mismatch", func(t *testing.T) {
		a := assignment(t, "env", hello(t, "mpicc.mpich"))
		hello(t, "mpicc.openmpi") // both must be here
		a.Mpi, a.PlanOnly = "openmpi", true
		m, _ := run(t, a)
		if n := strings.Join(m.notices, "\n"); !strings.Contains(n, "MPICH") || !strings.Contains(n, "Open MPI") {
			t.Errorf("notices %q, want one that names both", m.notices)
		}
	})
}

// TestSharedMemoryIsRemoved holds that what a library leaves in shared memory
// when it is killed goes with the job.
func TestSharedMemoryIsRemoved(t *testing.T) {
	a := assignment(t, "/bin/sh", "-c", `for d in $OMPI_MCA_btl_vader_backing_directory $OMPI_MCA_btl_sm_backing_directory $OMPI_MCA_osc_sm_backing_directory; do echo $d; touch $d/left; done; echo $UCX_POSIX_DIR; kill -9 $$`)
	a.Mpi, a.EnvBase = "none", append(os.Environ(), "UCX_POSIX_DIR=/mine")
	dir := proc.SharedMemoryDir(a.NodeDir)
	m, _ := run(t, a)
	if want := strings.Repeat(dir+"\n", 3) + "/mine\n"; m.stdout(0) != want {
		t.Errorf("got %q, want %q", m.stdout(0), want)
	}
	m.until("end of the shim", 10*time.Second, func() bool { return m.exited })
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v, want it gone", dir, err)
	}
}

func TestSetup(t *testing.T) {
	a := assignment(t, "/bin/sh", "-c", `echo "$A|$B|$C|$D"; pwd; echo $TMPDIR`)
	a.SetupScript = []byte("echo noise; echo more >&2\nexport A='x\ny'\nB=hidden\nexport C=script\n sleep 300 &\n")
	a.Env = []string{"C=user", "D=4"}
	a.Mpi = "none"
	a.Workdir = t.TempDir()
	m, _ := run(t, a)
	if want := "x\ny||user|4\n" + a.Workdir + "\n" + a.NodeDir + "/tmp\n"; m.stdout(0) != want {
		t.Errorf("got %q, want %q", m.stdout(0), want)
	}
}

// TestTimeLimit holds that programs get a SIGTERM and time, and no more.
func TestTimeLimit(t *testing.T) {
	for _, c := range []struct{ name, trap, want string }{
		{"obeys", `trap "echo bye; exit 0" TERM`, "bye\n"},
		{"ignores", `trap "" TERM`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := ranks(assignment(t, "/bin/sh", "-c", c.trap+"; while :; do sleep 0.05; done"), 2)
			a.Mpi, a.TimeLimitMs, a.KillGraceMs = "none", 1500, 300
			m, r := run(t, a)
			if r.GetFailure().GetCode() != wire.FailureCode_FAILURE_TIME_LIMIT {
				t.Errorf("result %v", r)
			}
			if m.stdout(1) != c.want {
				t.Errorf("said %q, want %q", m.stdout(1), c.want)
			}
		})
	}
}

// TestSoftSignal: programs are warned of the end of their time, once and by the
// signal that their task names; a script's children are not.
func TestSoftSignal(t *testing.T) {
	for _, launch := range []wire.LaunchMode{wire.LaunchMode_LAUNCH_RANKS, wire.LaunchMode_LAUNCH_PRIMARY} {
		a := assignment(t, "/bin/sh", "-c", `trap "echo soon" USR1; trap "echo bye; exit 0" TERM; while :; do sleep 0.05; done`)
		if launch == wire.LaunchMode_LAUNCH_RANKS {
			a = ranks(a, 2)
		}
		a.Mpi, a.Launch, a.TimeLimitMs, a.KillGraceMs = "none", launch, 2000, 3000
		a.SoftSignal, a.SoftBeforeMs = 10, 1000
		m, r := run(t, a)
		if r.GetFailure().GetCode() != wire.FailureCode_FAILURE_TIME_LIMIT {
			t.Errorf("%v: result %v", launch, r)
		}
		rank := 0
		if launch == wire.LaunchMode_LAUNCH_PRIMARY {
			rank = -1 // its output is no rank's
		}
		if said := m.stdout(rank); said != "soon\nbye\n" {
			t.Errorf("%v: said %q", launch, said)
		}
	}
}

// TestGraceUnderMPIRun holds that a rank which obeys does not cost the others
// their grace: mpirun must not see it.
func TestGraceUnderMPIRun(t *testing.T) {
	for _, mpi := range []string{"mpich", "openmpi"} {
		t.Run(mpi, func(t *testing.T) {
			hello(t, "mpicc."+mpi)
			a := ranks(assignment(t, "/bin/sh", "-c",
				`if [ $GANGWAY_RANK = 0 ]; then trap "exit 1" TERM; else trap "sleep 0.6; echo saved; exit 0" TERM; fi; echo up; while :; do sleep 0.05; done`), 2)
			a.Mpi, a.LaunchVia, a.KillGraceMs = mpi, "mpirun", 5000
			m := startMember(t, a, 0)
			m.launch()
			m.until("ranks", 20*time.Second, func() bool { return len(m.out["0/0"]) > 0 && len(m.out["1/0"]) > 0 })
			m.send(&wire.ToShim{M: &wire.ToShim_End{End: &wire.End{Reason: "because"}}})
			r := m.awaitResult()
			if r.GetFailure().GetCode() != wire.FailureCode_FAILURE_CANCELLED || !strings.Contains(m.stdout(1), "saved") {
				t.Errorf("result %v, rank 1 said %q", r, m.stdout(1))
			}
			m.forget()
		})
	}
}

func sleeper(t *testing.T, mpi string) *wire.Assignment {
	a := ranks(assignment(t, "/bin/sh", "-c", "sleep 600 & echo up; sleep 600"), 2)
	a.Mpi = mpi
	return a
}

func (m *member) awaitUp(n int) {
	m.t.Helper()
	m.until("ranks", 30*time.Second, func() bool {
		for i := range n {
			if len(m.out[fmt.Sprintf("%d/0", i)]) == 0 {
				return false
			}
		}
		return true
	})
}

func TestKilledShim(t *testing.T) {
	for _, c := range [][2]string{{"none", ""}, {"mpich", "pmi"}, {"mpich", "mpirun"}, {"openmpi", ""}} {
		mpi := c[0]
		t.Run(mpi+c[1], func(t *testing.T) {
			if mpi != "none" {
				hello(t, "mpicc."+mpi)
			}
			a := sleeper(t, mpi)
			a.LaunchVia = c[1]
			m := startMember(t, a, 0)
			m.launch()
			m.awaitUp(2)
			if err := m.p.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.until("death", 5*time.Second, func() bool { return m.exited })
			// The ranks die without anybody's help; what they started is the
			// agent's to sweep.
			for _, rank := range []uint32{0, 1} {
				pid := m.started[rank]
				awaitNoProcess(t, int(pid), 3*time.Second)
			}
		})
	}
}

func awaitNoProcess(t *testing.T, pid int, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Errorf("process %d lives on: %s", pid, b)
			return
		}
	}
}

// TestKilledParts kills what stands between the shim and a rank.
func TestKilledParts(t *testing.T) {
	for _, mpi := range []string{"mpich", "openmpi"} {
		for _, what := range []string{"program", "wrapper", "mpirun"} {
			t.Run(mpi+"/"+what, func(t *testing.T) {
				hello(t, "mpicc."+mpi)
				a := sleeper(t, mpi)
				a.LaunchVia = "mpirun"
				m := startMember(t, a, 0)
				m.launch()
				m.awaitUp(2)
				pid := int(m.started[1])
				switch what {
				case "wrapper":
					pid = parentOf(t, pid)
				case "mpirun":
					pid = int(m.started[mpirunRank])
				}
				begin := time.Now()
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				r := m.awaitResult()
				if d := time.Since(begin); d > 2*time.Second {
					t.Errorf("the end took %v", d)
				}
				if r.GetFailure() == nil || r.GetSignal() != int32(syscall.SIGKILL) {
					t.Errorf("result %v", r)
				}
				t.Log(r.GetFailure().GetMessage())
				m.forget()
			})
		}
	}
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	p, err := strconv.Atoi(f[1])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLease(t *testing.T) {
	a := sleeper(t, "none")
	a.Session, a.Leased = true, true
	m := startMember(t, a, 1500)
	m.launch()
	m.awaitUp(2)
	for range 3 {
		m.send(&wire.ToShim{M: &wire.ToShim_Lease{Lease: &wire.Lease{Ms: 1000}}})
	}
	begin := time.Now()
	m.noAck = true
	m.awaitGone() // without a word of the launcher
	m.nothingLeft()
	if d := time.Since(begin); d < 900*time.Millisecond || d > 5*time.Second {
		t.Errorf("gone after %v, the lease was 1 s", d)
	}
}

func TestEndAndForgetAtOnce(t *testing.T) {
	a := sleeper(t, "none")
	m := startMember(t, a, 0)
	m.launch()
	m.awaitUp(2)
	m.send(&wire.ToShim{M: &wire.ToShim_End{End: &wire.End{Reason: "no longer wanted", Now: true}}})
	m.send(&wire.ToShim{M: &wire.ToShim_Forget{Forget: &wire.Forget{}}})
	m.awaitGone()
	m.nothingLeft()
}

func TestSignals(t *testing.T) {
	a := ranks(assignment(t, "/bin/sh", "-c", `trap "echo usr1; exit 0" USR1; echo up; while :; do sleep 0.05; done`), 2)
	a.Mpi = "none"
	m := startMember(t, a, 0)
	m.launch()
	m.awaitUp(2)
	m.send(&wire.ToShim{M: &wire.ToShim_Signal{Signal: &wire.Signal{Number: int32(syscall.SIGUSR1)}}})
	r := m.awaitResult()
	if r.GetExitCode() != 0 || m.stdout(1) != "up\nusr1\n" {
		t.Errorf("result %v, said %q", r, m.stdout(1))
	}
	m.forget()
}

func TestPlanOnly(t *testing.T) {
	a := ranks(assignment(t, hello(t, "mpicc.mpich")), 2)
	a.PlanOnly = true
	m, r := run(t, a)
	if r.GetExitCode() != 0 || m.plan.GetHostfile() != "localhost:2\n" || len(m.started) > 0 {
		t.Errorf("result %v plan %v started %v", r, m.plan, m.started)
	}
}

func TestMemory(t *testing.T) {
	for _, mpi := range []string{"none", "mpich"} {
		t.Run(mpi, func(t *testing.T) {
			if mpi != "none" {
				hello(t, "mpicc."+mpi)
			}
			// tail keeps a line of 400 MB.
			a := assignment(t, "/bin/sh", "-c", "head -c 400000000 /dev/zero | tail -n 1 | wc -c; test -z x")
			a.Mpi, a.MemoryBytes = mpi, 64<<20
			m, r := run(t, a)
			for _, n := range m.notices {
				if strings.Contains(n, proc.ErrNoMemoryLimit.Error()) {
					t.Skip(n)
				}
			}
			if r.GetFailure().GetCode() != wire.FailureCode_FAILURE_MEMORY {
				t.Errorf("result %v\n%q", r, m.notices)
			}
		})
	}
}
