package mpi_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gangway/mpi"
)

// launchers returns the MPI launchers of this machine, one each: those on PATH
// under the names that Debian gives them, and those in the directories of
// GANGWAY_TEST_MPI (separated like PATH), where relocated ones can be.
func launchers(t *testing.T) []mpi.Launcher {
	var found []mpi.Launcher
	add := func(path string) {
		if path == "" {
			return
		}
		out, _ := exec.Command(path, "--version").CombinedOutput()
		flavour, version, err := mpi.ParseVersion(string(out))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		found = append(found, mpi.Launcher{Flavour: flavour, Version: version, Path: path})
	}
	for _, name := range []string{"mpiexec.mpich", "mpirun.openmpi"} {
		if path, err := exec.LookPath(name); err == nil {
			add(path)
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("GANGWAY_TEST_MPI")) {
		for _, name := range []string{"mpiexec.hydra", "mpirun"} {
			if path := filepath.Join(dir, name); isProgram(path) {
				add(path)
				break
			}
		}
	}
	if len(found) == 0 {
		t.Skip("no MPI launcher on this machine: apt-get install mpich openmpi-bin")
	}
	return found
}

func isProgram(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

const wrapper = `#!/bin/sh
r=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}
env > "$(dirname "$0")/env.$r"
exec "$@"
`

// The table against the launchers themselves, on one host: every rank starts
// through the wrapper with its arguments whole, and RankOf finds its place in
// what the launcher left it.
func TestRealLaunchers(t *testing.T) {
	for _, l := range launchers(t) {
		t.Run(fmt.Sprintf("%s-%s", l.Flavour, l.Version), func(t *testing.T) {
			const ranks = 3
			layout := mpi.Layout{Nodes: []mpi.NodeSlot{{Name: "127.0.0.1", Hostname: "localhost", Ranks: ranks}}}
			f := gang(t, l)
			launch, err := mpi.Build(f, layout, []string{"/bin/sh", "-c", `echo "$1|$2"`, "sh", "a b", "$HOME;*"})
			if err != nil {
				t.Fatal(err)
			}
			out := run(t, f, launch, launch.Argv)
			want := strings.Repeat("a b|$HOME;*\n", ranks)
			if out != want {
				t.Errorf("%q printed %q, want %q", launch.Argv, out, want)
			}
			var seen []int
			for r := range ranks {
				b, err := os.ReadFile(filepath.Join(f.Dir, fmt.Sprintf("env.%d", r)))
				if err != nil {
					t.Fatal(err)
				}
				rank, size, local, ok := mpi.RankOf(strings.Split(string(b), "\n"))
				if !ok || size != ranks || local != rank {
					t.Errorf("RankOf = %d, %d, %d, %v", rank, size, local, ok)
				}
				seen = append(seen, rank)
			}
			slices.Sort(seen)
			if !slices.Equal(seen, []int{0, 1, 2}) {
				t.Errorf("ranks %v", seen)
			}
		})
	}
}

// A script's own mpirun takes the allocation from the environment alone: all
// of it, or the part that it asks for.
func TestRealPrimary(t *testing.T) {
	for _, l := range launchers(t) {
		t.Run(fmt.Sprintf("%s-%s", l.Flavour, l.Version), func(t *testing.T) {
			layout := mpi.Layout{Nodes: []mpi.NodeSlot{{Name: "127.0.0.1", Hostname: "localhost", Ranks: 3}}}
			f := gang(t, l)
			launch, err := mpi.BuildPrimary(f, layout)
			if err != nil {
				t.Fatal(err)
			}
			script := l.Path + ` echo rank; ` + l.Path + ` -np 2 echo rank; echo $GANGWAY_NRANKS $(wc -l < $GANGWAY_NODEFILE)`
			out := run(t, f, launch, []string{"/bin/sh", "-c", script})
			if want := strings.Repeat("rank\n", 5) + "3 3\n"; out != want {
				t.Errorf("the script printed %q, want %q", out, want)
			}
		})
	}
}

func gang(t *testing.T, l mpi.Launcher) mpi.Facts {
	// Not t.TempDir: Open MPI's sockets below it need a short path.
	dir, err := os.MkdirTemp("", "mpi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := mpi.Facts{Launcher: l, Dir: dir, RankWrapper: filepath.Join(dir, "rank"), Rsh: "/bin/false", Root: os.Geteuid() == 0, Oversubscribed: true}
	if err := os.WriteFile(f.RankWrapper, []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

func run(t *testing.T, f mpi.Facts, launch mpi.Launch, argv []string) string {
	t.Helper()
	for _, file := range launch.Files {
		if err := os.WriteFile(file.Path, []byte(file.Content), os.FileMode(file.Mode)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(launch.Environ(os.Environ()), "TMPDIR="+f.Dir)
	cmd.Dir = f.Dir
	cmd.WaitDelay = 5 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, stderr.String())
	}
	return string(out)
}
