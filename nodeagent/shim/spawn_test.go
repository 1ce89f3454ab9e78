//go:build linux

package shim

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gangway/internal/lab"
	"gangway/nodeagent/wire"
)

// talk is what lets a script speak PMI: ask sends lines, and a has the answer.
const talk = `
ask() { printf '%s\n' "$@" >&$PMI_FD; read -r -u $PMI_FD a; }
init() { ask 'cmd=init pmi_version=1 pmi_subversion=1'; }
spawn() { ask mcmd=spawn nprocs=$1 execname=bash argcnt=2 arg1=-c "arg2=$talk$2" endcmd; echo "$a"; }
`

// talker is a script with talk, and talk on one line in $talk for what it spawns.
func talker(script string) []string {
	one := strings.ReplaceAll(strings.TrimSpace(talk), "\n", ";") + ";"
	one = strings.ReplaceAll(one, `spawn() { ask mcmd=spawn nprocs=$1 execname=bash argcnt=2 arg1=-c "arg2=$talk$2" endcmd; echo "$a"; };`, "")
	return []string{"bash", "-c", "talk=$1" + talk + "init\n" + script, "bash", one}
}

// TestSpawnEnds looks at how what a rank spawns, and the gang with it, comes to its
// end.
func TestSpawnEnds(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip(err)
	}
	for _, c := range []struct {
		name, script string
		code, signal int32
		says         string // the failure
		how          string // the autopsy
		death        wire.Death
		out, notice  string
	}{
		{name: "outlives", script: "spawn 2 'sleep 0.3; echo child $PMI_RANK of $PMI_SIZE $PMI_SPAWNED $GANGWAY_RANK; exec >&-'; ask cmd=finalize; echo over",
			out: "child 0 of 2 1 0\nchild 1 of 2 1 0\ncmd=spawn_result rc=0\nover\n"},
		{name: "fails", script: "spawn 2 'exit $((PMI_RANK*3))'; sleep 60", code: 3, says: "rank 0 on here: process 1 of 2 that it spawned (/bin/bash) ended with status 3",
			how: "process 1 of 2 that it spawned (/bin/bash) ended with status 3", death: wire.Death_DEATH_EXIT},
		{name: "fails later", script: "spawn 1 'sleep 0.3; exit 4'; ask cmd=finalize; exit 0", code: 4, says: "ended with status 4", how: "ended with status 4", death: wire.Death_DEATH_EXIT},
		{name: "killed", script: "spawn 1 'kill -9 $$'; sleep 60", signal: 9, says: "was ended by signal 9", how: "process 0 of 1", death: wire.Death_DEATH_KILLED},
		{name: "aborts", script: "spawn 1 'init; ask \"cmd=abort exitcode=7\"; sleep 60'; sleep 60", code: 7, says: "rank 0 on here called MPI_Abort with 7: in process 0 of those that it spawned",
			how: "called MPI_Abort with 7", death: wire.Death_DEATH_ABORT},
		{name: "leaves", script: "spawn 2 'init; [ $PMI_RANK = 0 ] || sleep 60'; sleep 60", code: 1, says: "without MPI_Finalize", how: "process 0 of 2", death: wire.Death_DEATH_EXIT},
		{name: "unknown", script: "ask mcmd=spawn nprocs=1 execname=/nowhere/x endcmd; echo $a; ask cmd=finalize", out: "rc=-1", notice: "rank 0 on here: MPI_Comm_spawn was refused: /nowhere/x: not found"},
		{name: "elsewhere", script: "ask mcmd=spawn nprocs=1 execname=sh info_num=1 info_key_0=host info_val_0=n7 endcmd; echo $a; ask cmd=finalize", out: "rc=-1", notice: "stay on the node"},
		{name: "too many", script: "ask mcmd=spawn nprocs=5000 execname=sh endcmd; echo $a; ask cmd=finalize", out: "rc=-1", notice: "1 to 1024 processes"},
		{name: "where", script: "ask mcmd=spawn nprocs=1 execname=pwd info_num=3 info_key_0=wdir info_val_0=/usr info_key_1=path info_val_1=/bin info_key_2=host info_val_2=localhost:4 endcmd; ask cmd=finalize",
			out: "/usr\n"},
		{name: "again", script: `ask mcmd=spawn nprocs=1 execname=bash argcnt=2 arg1=-c 'arg2=printf "cmd=init pmi_version=1 pmi_subversion=1\nmcmd=spawn\nnprocs=1\nexecname=bash\nargcnt=2\narg1=-c\narg2=echo grandchild\nendcmd\n" >&20; read -u 20 a; read -u 20 a; echo $a; printf "cmd=finalize\n" >&20; read -u 20 a' endcmd; ask cmd=finalize`,
			out: "grandchild\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := assignment(t, talker(c.script)...)
			a.Mpi, a.LaunchVia, a.Env = "mpich", "pmi", []string{"PATH=/bin:/usr/bin"}
			m, r := run(t, a)
			if r.GetExitCode() != c.code || r.GetSignal() != c.signal || !strings.Contains(r.GetFailure().GetMessage(), c.says) || (c.says == "") != (r.GetFailure() == nil) {
				t.Fatalf("result %v\n%s", r, m.all())
			}
			if x := r.GetAutopsy(); x.GetDeath() != c.death || !strings.Contains(x.GetHow(), c.how) || c.says != "" && (x.GetRank() != 0 || r.GetFirstRank() != 0) {
				t.Errorf("autopsy %v", x)
			}
			if out := sortedLines(m.stdout(0)); !strings.Contains(out, c.out) {
				t.Errorf("output %q\n%s", out, m.stderr(0))
			}
			if !strings.Contains(strings.Join(m.notices, "\n"), c.notice) {
				t.Errorf("notices %q", m.notices)
			}
		})
	}
}

// A job that is cancelled takes along what its ranks have spawned, also that of a
// rank that is over.
func TestSpawnCancelled(t *testing.T) {
	a := assignment(t, talker("spawn 2 'echo up; exec sleep 1000'; ask cmd=finalize; exit 0")...)
	a.Mpi, a.LaunchVia, a.Env = "mpich", "pmi", []string{"PATH=/bin:/usr/bin"}
	m := startMember(t, a, 0)
	m.launch()
	m.until("children", 30e9, func() bool { return strings.Count(string(m.out["0/0"]), "up") == 2 })
	m.send(&wire.ToShim{M: &wire.ToShim_End{End: &wire.End{Reason: "because"}}})
	if r := m.awaitResult(); r.GetFailure().GetCode() != wire.FailureCode_FAILURE_CANCELLED {
		t.Errorf("result %v", r)
	}
	m.forget()
}

// TestPublishedNames lets ranks of two hosts tell each other names.
func TestPublishedNames(t *testing.T) {
	l := lab.New(t, 2)
	c := newCrew(t, l, []uint32{1, 1}, func(a *wire.Assignment) {
		a.Command = talker(`
if [ $PMI_RANK = 1 ]; then
	ask 'cmd=publish_name service=me port=here'; echo "$a"
	ask 'cmd=publish_name service=me port=there'; echo "$a"
fi
ask cmd=barrier_in
ask 'cmd=lookup_name service=me'; echo "$a"
ask cmd=barrier_in
[ $PMI_RANK = 0 ] && { ask 'cmd=unpublish_name service=me'; echo "$a"; }
ask cmd=barrier_in
ask 'cmd=lookup_name service=me'; echo "$a"
spawn 1 'echo child'
ask cmd=finalize`)
		a.Mpi, a.LaunchVia, a.Env = "mpich", "pmi", []string{"PATH=/bin:/usr/bin"}
	})
	c.launch()
	r := c.ms[0].awaitResult()
	if r.GetFailure() != nil {
		t.Fatal(r)
	}
	const found, none = "cmd=lookup_result rc=0 port=here\n", "cmd=lookup_result rc=-1 msg=no_such_name_is_published\n"
	const rest = none + "cmd=spawn_result rc=0\nchild\n"
	for i, want := range []string{
		found + "cmd=unpublish_result rc=0\n" + rest,
		"cmd=publish_result rc=0\ncmd=publish_result rc=-1 msg=the_name_is_published_already\n" + found + rest,
	} {
		c.ms[i].until("output", 30e9, func() bool { return c.ms[i].end >= c.ms[i].result.GetOutputEnd() })
		out := c.ms[i].stdout(i)
		// the child's line may come before the answer's
		out = strings.Replace(out, "child\ncmd=spawn_result rc=0\n", "cmd=spawn_result rc=0\nchild\n", 1)
		if out != want {
			t.Errorf("rank %d: %q, want %q\n%s", i, out, want, c.ms[i].stderr(i))
		}
	}
	c.forget()
}

// TestSpawnMPI spawns by the real libraries.
func TestSpawnMPI(t *testing.T) {
	for _, f := range pmiCompilers {
		if f.name == "mpich 4" {
			continue // the distribution's, over UCX, can't open a port
		}
		t.Run(f.name, func(t *testing.T) {
			exe := compile(t, f.cc, spawnSource)
			a := ranks(assignment(t, exe), 2)
			a.Env, a.Workdir = pmiEnv(f.cc), filepath.Dir(exe)
			m, r := run(t, a)
			if r.GetFailure() != nil {
				t.Fatalf("%v\n%s", r, m.all())
			}
			for rank, want := range []string{"child 0 of 3 app 0 [x y] sum 10\nchild 1 of 3 app 0 [x y] sum 10\nchild 2 of 3 app 1 [z] sum 10\n", ""} {
				if got := sortedLines(m.stdout(rank)); got != want {
					t.Errorf("rank %d: %q, want %q", rank, got, want)
				}
			}
		})
	}
}

const spawnSource = `
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
	MPI_Comm parent, inter, all;
	int r, n, sum, flag, *app, codes[3], np[2] = {2, 1};
	char *one[] = {"x y", NULL}, *two[] = {"z", NULL}, **args[] = {one, two}, *cmds[] = {argv[0], argv[0]};
	MPI_Info info[] = {MPI_INFO_NULL, MPI_INFO_NULL};
	MPI_Init(&argc, &argv);
	MPI_Comm_get_parent(&parent);
	if (parent == MPI_COMM_NULL)
		MPI_Comm_spawn_multiple(2, cmds, args, np, info, 0, MPI_COMM_WORLD, &inter, codes);
	else
		inter = parent;
	MPI_Intercomm_merge(inter, parent != MPI_COMM_NULL, &all);
	MPI_Comm_rank(all, &r);
	MPI_Allreduce(&r, &sum, 1, MPI_INT, MPI_SUM, all);
	if (parent != MPI_COMM_NULL) {
		MPI_Comm_rank(MPI_COMM_WORLD, &r);
		MPI_Comm_size(MPI_COMM_WORLD, &n);
		MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_APPNUM, &app, &flag);
		printf("child %d of %d app %d [%s] sum %d\n", r, n, flag ? *app : -1, argv[1], sum);
		fflush(stdout);
	}
	MPI_Comm_free(&all);
	MPI_Comm_disconnect(&inter);
	MPI_Finalize();
	return 0;
}
`

func sortedLines(s string) string {
	lines := strings.SplitAfter(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}
