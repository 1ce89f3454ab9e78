package pmi

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What MPICH 5 and Intel MPI send for MPI_Comm_spawn_multiple, after mcmd=spawn.
const (
	mpichSpawn = "nprocs=2\nexecname=/p/a\ntotspawns=2\nspawnssofar=1\nargcnt=2\narg1=x y=z\narg2=\npreput_num=1\npreput_key_0=PARENT\npreput_val_0=tag#0$x$\n" +
		"info_num=1\ninfo_key_0=wdir\ninfo_val_0=/tmp\nendcmd\nmcmd=spawn\nnprocs=1\nexecname=b\ntotspawns=2\nspawnssofar=2\nargcnt=1\narg1=q\ninfo_num=0\nendcmd\n"
	intelSpawn = "nprocs=2\nexecname=/p/a\ntotspawns=2\nspawnssofar=1\narg1=x y=z\narg2=\nargcnt=2\npreput_num=1\npreput_key_0=PARENT\npreput_val_0=tag#0$x$\n" +
		"info_num=1\ninfo_key_0=wdir\ninfo_val_0=/tmp\nendcmd\nmcmd=spawn\nnprocs=1\nexecname=b\ntotspawns=2\nspawnssofar=2\narg1=q\nargcnt=1\npreput_num=1\n" +
		"preput_key_0=PARENT\npreput_val_0=tag#0$x$\ninfo_num=0\nendcmd\n"
)

func TestReadSpawn(t *testing.T) {
	want := SpawnRequest{
		Programs: []SpawnProgram{{2, "/p/a", []string{"x y=z", ""}, map[string]string{"wdir": "/tmp"}}, {1, "b", []string{"q"}, map[string]string{}}},
		Preput:   map[string]string{"PARENT": "tag#0$x$"},
	}
	for _, text := range []string{mpichSpawn, intelSpawn} {
		r := bufio.NewReaderSize(strings.NewReader(text+"cmd=next\n"), 64)
		req, refused, err := readSpawn(r)
		if err != nil || refused != nil {
			t.Fatal(refused, err)
		}
		if d := cmp.Diff(want, req); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]int{0, 0, 1}, req.Apps()); d != "" || req.Size() != 3 {
			t.Errorf("%d processes: %s", req.Size(), d)
		}
		if rest, _ := r.ReadString('\n'); rest != "cmd=next\n" {
			t.Errorf("left is %q", rest)
		}
	}
	one := "nprocs=1\nexecname=a\n"
	var long strings.Builder
	for i := range 9 {
		fmt.Fprintf(&long, "x%d=%s\n", i, strings.Repeat("x", maxSpawnLine-9))
	}
	for _, c := range []struct{ text, want string }{
		{"nprocs=1\nendcmd\n", "names no program"},
		{"execname=a\nendcmd\n", "nprocs="},
		{"execname=a\nnprocs=0\nendcmd\n", "nprocs=0"},
		{"execname=a\nnprocs=99999999999999999999\nendcmd\n", "nprocs=9"},
		{fmt.Sprintf("execname=a\nnprocs=%d\nendcmd\n", MaxSpawn+1), "nprocs="},
		{one + "argcnt=3\narg1=a\narg2=b\nendcmd\n", "arg3 of 3"},
		{one + "argcnt=-1\nendcmd\n", "argcnt"},
		{one + "argcnt=1\narg1=two\nlines\nendcmd\n", `no name=value at "lines"`},
		{one + one + "endcmd\n", "stands twice"},
		{one + "info_num=1\nendcmd\n", "info_key_0"},
		{one + "preput_num=1\npreput_key_0=PMI_x\npreput_val_0=y\nendcmd\n", "PMI_x"},
		{one + "preput_num=1\npreput_key_0=x\npreput_val_0=" + strings.Repeat("y", MaxValue+1) + "\nendcmd\n", "too long"},
		{one + "totspawns=1\nspawnssofar=2\nendcmd\n", "program 2 of 1"},
		{one + "argcnt=1\narg1=" + strings.Repeat("x", maxSpawnLine) + "\nendcmd\n", "longer than"},
		{one + long.String() + "endcmd\n", "longer than"},
		{"execname=a\nnprocs=1024\ntotspawns=2\nspawnssofar=1\nendcmd\nmcmd=spawn\nexecname=a\nnprocs=1\ntotspawns=2\nspawnssofar=2\nendcmd\n", "1025"},
	} {
		_, refused, err := readSpawn(bufio.NewReaderSize(strings.NewReader(c.text), 64))
		if err != nil || refused == nil || !strings.Contains(refused.Error(), c.want) {
			t.Errorf("%.60q: %v, %v; want %q", c.text, refused, err, c.want)
		}
	}
	if _, _, err := readSpawn(bufio.NewReader(strings.NewReader("nprocs=1"))); !errors.Is(err, errEndless) {
		t.Error(err)
	}
}

func FuzzReadSpawn(f *testing.F) {
	for _, s := range []string{mpichSpawn, intelSpawn, "endcmd\n", "totspawns=-5\nendcmd\n", "nprocs=1\nexecname=\xff\nargcnt=9\nendcmd\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		req, refused, err := readSpawn(bufio.NewReaderSize(strings.NewReader(text), 64))
		if err != nil || refused != nil {
			return
		}
		if n := req.Size(); n < 1 || n > MaxSpawn || len(req.Programs) > n {
			t.Errorf("%q asks for %d processes", text, n)
		}
		size := 0
		for _, p := range req.Programs {
			for _, a := range p.Args {
				size += len(a)
			}
		}
		if size > len(text) {
			t.Errorf("%q became %d bytes of arguments", text, size)
		}
	})
}

// TestSpawn holds what the server passes on, and what it answers.
func TestSpawn(t *testing.T) {
	var got []SpawnRequest
	var refusals []string
	spawned := server(t, Config{Size: 1, Ranks: []int{0}, KVS: "child", Apps: []int{4}, Universe: 8, Preput: map[string]string{"PARENT": "here"}})
	s := server(t, Config{Size: 2, Ranks: []int{0, 1}, Names: new(NameTable),
		Refused: func(rank int, why error) { refusals = append(refusals, fmt.Sprintf("%d: %v", rank, why)) },
		Spawn: func(rank int, r SpawnRequest) error {
			if got = append(got, r); r.Programs[0].Path == "bad" {
				return errors.New("bad: not = found")
			}
			return nil
		}})
	r := serve(t, s, 1)
	r.init()
	r.ask("mcmd=spawn\n"+strings.TrimSuffix(mpichSpawn, "\n"), "cmd=spawn_result rc=0")
	r.ask("mcmd=spawn\nnprocs=1\nexecname=bad\nendcmd", "cmd=spawn_result rc=-1 msg=bad:_not___found")
	r.ask("mcmd=spawn\nnprocs=1\nendcmd", "cmd=spawn_result rc=-1 msg=it_names_no_program")
	if len(got) != 2 || got[0].Size() != 3 {
		t.Errorf("requests %v", got)
	}
	if d := cmp.Diff([]string{"1: it names no program"}, refusals); d != "" {
		t.Error(d)
	}
	for _, c := range [][2]string{
		{"cmd=publish_name service=a name port=tag=1$x", "cmd=publish_result rc=0"},
		{"cmd=publish_name service=a name port=z", "cmd=publish_result rc=-1 msg=the_name_is_published_already"},
		{"cmd=lookup_name service=a name", "cmd=lookup_result rc=0 port=tag=1$x"},
		{"cmd=unpublish_name service=a name", "cmd=unpublish_result rc=0"},
		{"cmd=unpublish_name service=a name", "cmd=unpublish_result rc=-1 msg=no_such_name_is_published"},
		{"cmd=lookup_name service=a name", "cmd=lookup_result rc=-1 msg=no_such_name_is_published"},
		{"cmd=publish_name service= port=z", "cmd=publish_result rc=-1 msg=a_name_and_a_port_have_up_to_4096_bytes"},
		{"cmd=finalize", "cmd=finalize_ack rc=0"},
	} {
		r.ask(c[0], c[1])
	}
	k := serve(t, spawned, 0)
	k.init()
	k.ask("cmd=get_appnum", "cmd=appnum rc=0 appnum=4")
	k.ask("cmd=get_universe_size", "cmd=universe_size rc=0 size=8")
	k.ask("cmd=get kvsname=child key=PARENT", "cmd=get_result rc=0 msg=success value=here")
	k.ask("cmd=finalize", "cmd=finalize_ack rc=0")
	if _, err := New(Config{Size: 2, Ranks: []int{0, 1}, KVS: "k", Apps: []int{0}}); err == nil {
		t.Error("programs of too few ranks are taken")
	}
}
