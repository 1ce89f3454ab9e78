package mpi

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHowEnded(t *testing.T) {
	for _, c := range []struct {
		code, signal int
		want         string
		crashed      bool
	}{
		{0, 0, "ended well", false},
		{3, 0, "ended with status 3", false},
		{0, 11, "segmentation fault (signal 11)", true},
		{0, 7, "bus error (signal 7)", true},
		{0, 9, "killed (signal 9)", false},
		{0, 42, "signal 42", false},
		{139, 0, "ended with status 139, as after a segmentation fault (signal 11)", true},
		{137, 0, "ended with status 137", false},
		{255, 0, "ended with status 255", false},
	} {
		if got := HowEnded(c.code, c.signal); got != c.want || Crashed(c.code, c.signal) != c.crashed {
			t.Errorf("%d, %d: %q, crashed %t", c.code, c.signal, got, !c.crashed)
		}
	}
}

func TestAbortFinder(t *testing.T) {
	f := NewAbortFinder()
	for text, want := range map[string]Abort{
		"x\napplication called MPI_Abort(MPI_COMM_WORLD, 7) - process 3\n":                                                               {Rank: 3, Code: 7, Called: true, Message: "MPI_Abort(MPI_COMM_WORLD, 7)"},
		"Abort(7) on node 3 (rank 3 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 7) - process 3":                             {Rank: 3, Code: 7, Called: true, Message: "MPI_Abort(MPI_COMM_WORLD, 7)"},
		"Abort(806995855) on node 1 (rank 1 in comm 0): Fatal error in internal_Recv: Other MPI error, error stack:\nmore":               {Rank: 1, Code: 806995855, Message: "Fatal error in internal_Recv: Other MPI error, error stack:"},
		"----\nMPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\nwith errorcode 9.\n":                                      {Rank: 2, Code: 9, Called: true, Message: "MPI_Abort(MPI_COMM_WORLD, 9)"},
		"MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\n  Proc: [[1,1],2]\n  Errorcode: -1\n\nNOTE: invoking MPI_ABORT": {Rank: 2, Code: -1, Called: true, Message: "MPI_Abort(MPI_COMM_WORLD, -1)"},
	} {
		got, ok := f.Find(text)
		if d := cmp.Diff(want, got); !ok || d != "" {
			t.Errorf("%q: %t %s", text, ok, d)
		}
	}
	for _, text := range []string{"", "MPI_Abort", "Abort(x) on node 1: y", "MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_SELF"} {
		if a, ok := f.Find(text); ok {
			t.Errorf("%q: %+v", text, a)
		}
	}
}

func TestLostDaemon(t *testing.T) {
	for text, want := range map[string]string{
		"ORTE has lost communication with a remote daemon.\n\n  HNP daemon   : [[1,0],0] on node n1\n  Remote daemon: [[1,0],1] on node n2\n\nThis is":              "n2",
		"PRTE has lost communication with a remote daemon.\n\n  HNP daemon   : [prterun-n1-1@0,0] on node n1\n  Remote daemon: [prterun-n1-1@0,1] on node 10.0.0.2": "10.0.0.2",
		"lost communication with a remote daemon\nRemote daemon: x": "",
		"": "",
	} {
		if got := LostDaemon(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func FuzzAbortFinder(f *testing.F) {
	f.Add("application called MPI_Abort(MPI_COMM_WORLD, 7) - process 3")
	f.Add("Abort(806995855) on node 1 (rank 1 in comm 0): Fatal error in internal_Recv")
	f.Add("MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\nwith errorcode 9.")
	f.Add("Abort(1) on node 99999999999999: " + strings.Repeat("é", 300))
	find := NewAbortFinder()
	f.Fuzz(func(t *testing.T, text string) {
		if n := LostDaemon(text); len(n) > 255 {
			t.Fatal(n)
		}
		a, ok := find.Find(text)
		if ok && (len(a.Message) > 400 || strings.Contains(a.Message, "\n") || a.Rank < -1) {
			t.Fatalf("%+v", a)
		}
	})
}
