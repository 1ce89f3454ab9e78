//go:build linux

package shim

import (
	"fmt"
	"strings"
	"testing"
)

func TestHostname(t *testing.T) {
	m, r := run(t, ranks(assignment(t, "hostname"), 3))
	if r.GetExitCode() != 0 || r.GetFailure() != nil || len(r.GetRanks()) != 3 {
		t.Fatalf("result %v", r)
	}
	for i := range 3 {
		if m.stdout(i) == "" {
			t.Errorf("rank %d said nothing", i)
		}
	}
	if m.plan.GetVia() != viaDirect {
		t.Errorf("hostname links no MPI, it started via %q", m.plan.GetVia())
	}
}

func TestHelloOneNode(t *testing.T) {
	for _, c := range []struct{ cc, mpi, ask, via string }{
		{"mpicc.mpich", "mpich", "auto", viaPMI}, {"mpicc.mpich", "mpich", "mpirun", viaMPIRun}, {"mpicc.openmpi", "openmpi", "auto", viaMPIRun},
	} {
		t.Run(c.mpi+" "+c.via, func(t *testing.T) {
			a := ranks(assignment(t, hello(t, c.cc)), 2)
			a.LaunchVia = c.ask
			m, r := run(t, a)
			if r.GetExitCode() != 0 || r.GetFailure() != nil || len(r.GetRanks()) != 2 {
				t.Fatalf("result %v\n%s", r, m.all())
			}
			if m.plan.GetMpi() != c.mpi || m.plan.GetVia() != c.via {
				t.Errorf("plan %v", m.plan)
			}
			for i := range 2 {
				if want := fmt.Sprintf("rank %d of 2 sum 1", i); !strings.Contains(m.stdout(i), want) {
					t.Errorf("rank %d: %q, want %q", i, m.stdout(i), want)
				}
				if got := strings.TrimSpace(m.stdout(i)[strings.Index(m.stdout(i), "cpus")+4:]); got != m.ready.GetRanks()[i].GetCpus() {
					t.Errorf("rank %d runs on %q, the plan has %q", i, got, m.ready.GetRanks()[i].GetCpus())
				}
			}
		})
	}
}
