package mpi_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"gangway/mpi"
)

// dealt is a layout of hosts a, b and c with these counts, dealt in this order.
func dealt(counts []int, order ...int) mpi.Layout {
	l := mpi.Layout{Order: order}
	for i, n := range counts {
		name := string(rune('a' + i))
		l.Nodes = append(l.Nodes, mpi.NodeSlot{Name: name, Hostname: name, Ranks: n, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})})
	}
	return l
}

func TestOrders(t *testing.T) {
	even, uneven := dealt([]int{2, 2}, 0, 1, 0, 1), dealt([]int{3, 1, 2}, 0, 1, 2, 0, 2, 0)
	block := dealt([]int{2, 2}, 0, 0, 1, 1)
	last := dealt([]int{1, 1, 3}, 0, 1, 2, 2, 2)
	for _, c := range []struct {
		name     string
		flavour  mpi.Flavour
		major    int
		layout   mpi.Layout
		args     string // that the command line has
		hostfile string
	}{
		{"mpich in turn", mpi.MPICH, 4, even, "-ppn 1", "a:2 b:2"},
		{"mpich uneven", mpi.MPICH, 4, uneven, "", "a:1 b:1 c:1 a:1 c:1 a:1"},
		{"mpich block", mpi.MPICH, 4, block, "", "a:2 b:2"},
		{"intel", mpi.Intel, 2021, even, "", "a:1 b:1 a:1 b:1"},
		{"intel, ranks that follow each other", mpi.Intel, 2021, last, "", "a:1 b:1 c:3"},
		{"openmpi 4", mpi.OpenMPI, 4, uneven, "--map-by node ", "a slots=3 b slots=1 c slots=2"},
		{"openmpi 4, another order", mpi.OpenMPI, 4, dealt([]int{2, 1}, 1, 0, 0), "--map-by seq ", "b a a"},
		{"openmpi 5", mpi.OpenMPI, 5, uneven, "--map-by seq ", "a b c a c a"},
		{"openmpi block", mpi.OpenMPI, 5, block, "--map-by slot ", "a slots=2 b slots=2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := mpi.Facts{Launcher: mpi.Launcher{Flavour: c.flavour, Version: mpi.Version{Major: c.major}, Path: "/bin/mpirun"},
				RankWrapper: "/d/rank", Rsh: "/d/rsh", Dir: "/d"}
			out, err := mpi.Build(f, c.layout, []string{"true"})
			if err != nil {
				t.Fatal(err)
			}
			argv := strings.Join(out.Argv, " ")
			if !strings.Contains(argv, c.args) || c.args == "" && slices.Contains(out.Argv, "-ppn") {
				t.Errorf("%s lacks %q", argv, c.args)
			}
			got := strings.ReplaceAll(strings.TrimSuffix(out.Files[0].Content, "\n"), "\n", " ")
			if got != c.hostfile {
				t.Errorf("hostfile %q, want %q", got, c.hostfile)
			}
		})
	}
}

func TestOrdersThatDoNotFit(t *testing.T) {
	for _, c := range []struct {
		flavour mpi.Flavour
		layout  mpi.Layout
		want    string
	}{
		{mpi.MPICH, dealt([]int{2, 2}, 0, 1, 0, 0), "rank 3 of the gang is on node 0"},
		{mpi.MPICH, dealt([]int{2, 2}, 0, 1, 2), "rank 2 of the gang is on node 2"},
		{mpi.MPICH, dealt([]int{2, 2}, 0, 1), "2 of the gang's 4 ranks"},
		{mpi.MSMPI, dealt([]int{2, 2}, 0, 1, 0, 1), "leave the distribution at block"},
	} {
		f := mpi.Facts{Launcher: mpi.Launcher{Flavour: c.flavour, Path: "/bin/mpirun"}, RankWrapper: "/d/rank", Rsh: "/d/rsh", Dir: "/d"}
		if _, err := mpi.Build(f, c.layout, []string{"true"}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %q", c.flavour, err, c.want)
		}
	}
}
