package mpi

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite testdata")

func fourNodes(ranks ...int) Layout {
	var l Layout
	for i, n := range ranks {
		a := fmt.Sprintf("10.0.0.%d", i+1)
		l.Nodes = append(l.Nodes, NodeSlot{Name: a, Hostname: fmt.Sprintf("n%d", i), Ranks: n, Interface: fmt.Sprintf("eth%d", i), Address: netip.MustParseAddr(a)})
	}
	return l
}

func facts(f Flavour, version, path string) Facts {
	return Facts{
		Launcher:    Launcher{Flavour: f, Version: versionOf(version), Path: path},
		RankWrapper: "/tmp/gangway-x/gangway-rank", Rsh: "/tmp/gangway-x/gangway-rsh", Dir: "/tmp/gangway-x",
		Subnet: netip.MustParsePrefix("10.0.0.1/24"),
	}
}

func draw(l Launch) string {
	var b strings.Builder
	list := func(name string, values []string) {
		fmt.Fprintf(&b, "%s:\n", name)
		for _, v := range values {
			fmt.Fprintf(&b, "  %s\n", v)
		}
	}
	list("argv", l.Argv)
	list("env", l.Env)
	list("unset", l.Unset)
	fmt.Fprintf(&b, "hostfile: %s\n", l.Hostfile)
	for _, f := range l.Files {
		fmt.Fprintf(&b, "file %s %o:\n%s", f.Path, f.Mode, f.Content)
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", file, diff)
	}
}

func TestBuildGolden(t *testing.T) {
	launchers := []struct {
		name          string
		flavour       Flavour
		version, path string
	}{
		{"mpich", MPICH, "4.0.2", "/usr/bin/mpiexec.mpich"},
		{"intel", Intel, "2021.18.1", "/opt/intel/bin/mpiexec.hydra"},
		{"openmpi4", OpenMPI, "4.1.4", "/usr/bin/mpirun.openmpi"},
		{"openmpi5", OpenMPI, "5.0.11", "/opt/openmpi/bin/mpirun"},
		{"msmpi", MSMPI, "10.1.12498.18", `C:\Program Files\Microsoft MPI\Bin\mpiexec.exe`},
		{"none", None, "", ""},
	}
	layouts := []struct {
		name   string
		layout Layout
	}{
		{"four", fourNodes(2, 2, 3, 1)},
		{"one", fourNodes(3)},
	}
	program := []string{"./hello", "-n", "a b", ""}
	for _, la := range launchers {
		for _, lo := range layouts {
			f := facts(la.flavour, la.version, la.path)
			if la.flavour == MSMPI {
				f.RankWrapper, f.Dir = `C:\gangway\gangway-rank.exe`, `C:\gangway\x`
			}
			got, err := Build(f, lo.layout, program)
			if err != nil {
				t.Errorf("%s, %s: %v", la.name, lo.name, err)
				continue
			}
			golden(t, la.name+"-"+lo.name, draw(got))
		}
	}
	f := facts(OpenMPI, "4.1.4", "/usr/bin/mpirun.openmpi")
	f.Root, f.Oversubscribed = true, true
	got, err := Build(f, fourNodes(2, 1), program)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "openmpi4-root-oversubscribed", draw(got))
}

func TestBuildPrimaryGolden(t *testing.T) {
	for name, l := range map[string]Layout{"primary-four": fourNodes(2, 2, 3, 1), "primary-one": fourNodes(3)} {
		f := facts("", "", "")
		f.Root = name == "primary-one"
		got, err := BuildPrimary(f, l)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, draw(got))
	}
	f := facts(OpenMPI, "4.1.4", "/usr/bin/mpirun")
	f.Env = []string{"OMPI_MCA_btl_tcp_if_exclude=lo,docker0"}
	got, err := BuildPrimary(f, fourNodes(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	if got.Hostfile != "/tmp/gangway-x/hostfile.openmpi" || !slices.Contains(got.Env, "GANGWAY_HOSTFILE=/tmp/gangway-x/hostfile.openmpi") {
		t.Errorf("the hostfile for Open MPI is %s", got.Hostfile)
	}
	if slices.Contains(got.Env, "OMPI_MCA_btl_tcp_if_include=10.0.0.0/24") {
		t.Errorf("the user's interfaces are overruled: %q", got.Env)
	}
}

func TestBuildRefuses(t *testing.T) {
	good := facts(MPICH, "4.0.2", "/usr/bin/mpiexec.mpich")
	change := func(f func(*Facts)) Facts { g := good; f(&g); return g }
	tests := []struct {
		name    string
		facts   Facts
		layout  Layout
		program []string
		want    string
	}{
		{"no nodes", good, Layout{}, []string{"a"}, "without nodes"},
		{"no ranks", good, fourNodes(1, 0), []string{"a"}, "10.0.0.2 of the gang has 0 ranks"},
		{"twice", good, Layout{Nodes: []NodeSlot{{Name: "a", Ranks: 1}, {Name: "a", Ranks: 1}}}, []string{"a"}, "stands twice"},
		{"IPv6", good, Layout{Nodes: []NodeSlot{{Name: "fe80::1", Ranks: 1}}}, []string{"a"}, "no hostfile can hold"},
		{"option", good, Layout{Nodes: []NodeSlot{{Name: "-x", Ranks: 1}}}, []string{"a"}, "for an option"},
		{"no program", good, fourNodes(1), nil, "no program"},
		{"colon", good, fourNodes(1), []string{"a", ":", "b"}, "into a script"},
		{"relative launcher", change(func(f *Facts) { f.Launcher.Path = "mpirun" }), fourNodes(1), []string{"a"}, "launcher"},
		{"relative wrapper", change(func(f *Facts) { f.RankWrapper = "rank" }), fourNodes(1), []string{"a"}, "rank wrapper"},
		{"blank in rsh", change(func(f *Facts) { f.Rsh = "/tmp/a b" }), fourNodes(1, 1), []string{"a"}, "remote shell"},
		{"dollar in dir", change(func(f *Facts) { f.Dir = "/tmp/$HOME" }), fourNodes(1), []string{"a"}, "gang directory"},
		{"flavour", change(func(f *Facts) { f.Launcher.Flavour = "lam" }), fourNodes(1), []string{"a"}, "lam"},
	}
	for _, tt := range tests {
		l, err := Build(tt.facts, tt.layout, tt.program)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want an error with %q", tt.name, l, err, tt.want)
		}
	}
	if _, err := Build(change(func(f *Facts) { f.Rsh = "" }), fourNodes(1), []string{"a"}); err != nil {
		t.Errorf("one node needs no remote shell: %v", err)
	}
}

// Whatever the layout, the hostfile holds exactly its ranks in its order, the
// program stands whole at the end, and the same values give the same launch.
func TestBuildProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := fourNodes(rapid.SliceOfN(rapid.IntRange(1, 300), 1, 40).Draw(t, "ranks")...)
		flavour := rapid.SampledFrom([]Flavour{MPICH, Intel, OpenMPI}).Draw(t, "flavour")
		f := facts(flavour, rapid.SampledFrom([]string{"4.1.4", "5.0.11"}).Draw(t, "version"), "/usr/bin/mpirun")
		program := append([]string{"prog"}, rapid.SliceOf(rapid.StringMatching(`[^:]*`)).Draw(t, "args")...)
		out, err := Build(f, l, program)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := Build(f, l, program)
		if diff := cmp.Diff(out, again); diff != "" {
			t.Fatal(diff)
		}
		tail := append([]string{"-n", fmt.Sprint(l.Ranks()), f.RankWrapper}, program...)
		if len(out.Argv) < len(tail) || !slices.Equal(out.Argv[len(out.Argv)-len(tail):], tail) {
			t.Fatalf("argv %q does not end with %q", out.Argv, tail)
		}
		lines := strings.Split(strings.TrimSuffix(out.Files[0].Content, "\n"), "\n")
		if len(lines) != len(l.Nodes) {
			t.Fatalf("%d lines for %d nodes", len(lines), len(l.Nodes))
		}
		for i, line := range lines {
			if !strings.HasPrefix(line, l.hostName(i)) || !strings.HasSuffix(line, fmt.Sprint(l.Nodes[i].Ranks)) {
				t.Fatalf("line %q for %+v", line, l.Nodes[i])
			}
		}
		if len(l.Nodes) == 1 && slices.Contains(out.Argv, f.Rsh) {
			t.Fatalf("a remote shell on one node: %q", out.Argv)
		}
	})
}

func TestEnviron(t *testing.T) {
	l := Launch{Env: []string{"A=new", "I_MPI_PIN=0"}, Unset: []string{"I_MPI_PIN_*", "B"}}
	got := l.Environ([]string{"A=old", "B=1", "BB=2", "I_MPI_PIN_DOMAIN=core", "I_MPI_PIN=1", "SLURM_JOB_ID=3", "PATH=/bin"})
	want := []string{"BB=2", "PATH=/bin", "A=new", "I_MPI_PIN=0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestScrub(t *testing.T) {
	gone := []string{
		"SLURM_JOB_ID=1", "SLURM_NTASKS=4", "PBS_NODEFILE=/x", "PBS_ENVIRONMENT=1", "LSB_JOBID=2", "LSB_HOSTS=a b", "PE_HOSTFILE=/y", "SGE_ROOT=/z",
		"PMI_RANK=0", "PMI_FD=7", "PMIX_RANK=0", "PMIX_SERVER_URI41=x", "OMPI_COMM_WORLD_RANK=0", "OMPI_MCA_plm_slurm_args=--external-launcher",
		"OMPI_MCA_plm=slurm", "OMPI_MCA_ess=x", "OMPI_MCA_orte_hnp_uri=x", "OMPI_MCA_ras=x", "OMPI_MCA_rmaps_base_mapping_policy=node",
		"OMPI_MCA_hwloc_base_binding_policy=core", "OMPI_MCA_pmix=^s1", "OMPI_MCA_shmem_RUNTIME_QUERY_hint=mmap", "OMPI_MCA_initial_wdir=/",
		"PRTE_MCA_plm_slurm_args=x", "HYDRA_BOOTSTRAP=slurm", "HYDRA_LAUNCHER_EXTRA_ARGS=--external-launcher", "HYDRA_HOST_FILE=/h", "HYDI_CONTROL_FD=5",
		"I_MPI_HYDRA_BOOTSTRAP=slurm", "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS=x", "I_MPI_PMI_LIBRARY=/lib/libpmi.so", "I_MPI_PERHOST=2", "MPI_LOCALRANKID=1",
		"CCP_NODES=2 a 1 b 1", "FLUX_JOB_ID=1",
	}
	stay := []string{
		"PATH=/bin", "HOME=/root", "I_MPI_ROOT=/opt/intel", "I_MPI_FABRICS=shm:ofi", "I_MPI_DEBUG=5", "I_MPI_PIN_DOMAIN=core", "UCX_TLS=tcp", "FI_PROVIDER=tcp",
		"OMPI_MCA_btl=tcp,self", "OMPI_MCA_btl_tcp_if_include=eth1", "OMPI_MCA_pml=ucx", "OMPI_MCA_coll_hcoll_enable=0", "OMPI_MCA_opal_warn_on_missing_libcuda=0",
		"MPIR_CVAR_CH4_NETMOD=ofi", "MPICH_PORT_RANGE=1:2", "MPIEXEC_PORT_RANGE=1:2", "OPAL_PREFIX=/opt/ompi", "PMIX_MCA_gds=hash", "OMPI_CC=clang",
		"SLURM_CONF=/etc/slurm.conf", "FLUX_URI=local:///x", "JOB_ID=mine", "GANGWAY_ID=abc", "OMP_NUM_THREADS=4", "novalue", "",
	}
	got := Scrub(append(slices.Clone(gone), stay...))
	if diff := cmp.Diff(stay, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(got, Scrub(got)); diff != "" {
		t.Errorf("scrubbing twice: %s", diff)
	}
}

func TestRankOf(t *testing.T) {
	tests := []struct {
		env               string
		rank, size, local int
		ok                bool
	}{
		{"PMI_RANK=3 PMI_SIZE=8 MPI_LOCALRANKID=1", 3, 8, 1, true},
		{"PMI_RANK=3 PMI_SIZE=8", 3, 8, -1, true},
		{"OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 PMIX_RANK=2", 2, 4, 0, true},
		{"PMI_RANK=9 PMI_SIZE=10 OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4", 2, 4, -1, true},
		{"PMI_RANK=8 PMI_SIZE=8", 0, 0, 0, false},
		{"PMI_RANK=x PMI_SIZE=8", 0, 0, 0, false},
		{"PMI_RANK=-1 PMI_SIZE=8", 0, 0, 0, false},
		{"PMIX_RANK=1", 0, 0, 0, false},
		{"PMI_SIZE=8", 0, 0, 0, false},
		{"", 0, 0, 0, false},
	}
	for _, tt := range tests {
		rank, size, local, ok := RankOf(strings.Fields(tt.env))
		if rank != tt.rank || size != tt.size || local != tt.local || ok != tt.ok {
			t.Errorf("RankOf(%s) = %d, %d, %d, %v", tt.env, rank, size, local, ok)
		}
	}
}
