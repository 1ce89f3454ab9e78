package store_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/store"
)

// roleEnv makes the test binary play another process: its value is the role and
// the data directory.
const roleEnv = "GANGWAY_STORE_TEST_ROLE"

func TestMain(m *testing.M) {
	role, dir, ok := strings.Cut(os.Getenv(roleEnv), ":")
	if !ok {
		os.Exit(m.Run())
	}
	if err := play(role, dir); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// play opens the data and says "ready"; as a writer, it then commits batches
// without end and prints the number of each once it is committed.
func play(role, dir string) error {
	s, err := store.Open(dir, store.Options{Version: "1.2.3"})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if role == "holder" {
		_, err := os.Stdin.Read(make([]byte, 1)) // until the parent closes it
		return errors.Join(err, s.Close())
	}
	rows, err := s.Scan("batch", "", store.MaxScan)
	if err != nil {
		return err
	}
	for n := uint64(len(rows)); ; n++ {
		if err := s.Commit(batch(n)); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// batch is a commit of 1 to 50 rows and one that counts them; it deletes those
// of the batch eight before.
func batch(n uint64) []job.Row {
	size := int(n*7%50) + 1
	rows := []job.Row{{Table: "batch", Key: job.NumberKey(n), Value: []byte(strconv.Itoa(size))}}
	for i := range size {
		rows = append(rows, job.Row{Table: "row", Key: job.PartKey(job.NumberKey(n), i), Value: []byte(strings.Repeat("x", 300))})
	}
	if n >= 8 {
		for _, r := range batchRows(n - 8) {
			rows = append(rows, job.Row{Table: r.Table, Key: r.Key})
		}
	}
	return rows
}

func batchRows(n uint64) (keys []job.Row) {
	for i := range int(n*7%50) + 1 {
		keys = append(keys, job.Row{Table: "row", Key: job.PartKey(job.NumberKey(n), i)})
	}
	return keys
}

func child(t *testing.T, role, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), roleEnv+"="+role+":"+dir)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewScanner(out)
}

// TestKilledAtAnyMoment: what was committed before a kill is there after it,
// and of no batch is there a part.
func TestKilledAtAnyMoment(t *testing.T) {
	const rounds, seed = 25, 3
	dir := newDir(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	last := -1
	for round := range rounds {
		c, lines := child(t, "writer", dir)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || lines.Text() != "ready" {
			_ = c.Wait() // its last words tell
			t.Fatalf("round %d: %q", round, lines.Text())
		}
		timer := time.AfterFunc(time.Duration(rng.IntN(60_000))*time.Microsecond, func() { _ = c.Process.Kill() })
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Fatalf("round %d: %s", round, lines.Text())
			}
			last = n
		}
		timer.Stop()
		_ = c.Wait() // killed

		s := openDir(t, dir)
		rows, err := s.Load()
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{}
		batches := 0
		for _, r := range rows {
			if r.Table == "batch" {
				if r.Key != job.NumberKey(uint64(batches)) {
					t.Fatalf("round %d: batch %d is missing", round, batches)
				}
				batches++
			}
		}
		if batches < last+1 || batches > last+2 {
			t.Fatalf("round %d: %d batches are there, %d had returned", round, batches, last+1)
		}
		for n := max(0, batches-8); n < batches; n++ {
			for _, r := range batchRows(uint64(n)) {
				want[r.Key] = true
			}
		}
		for _, r := range rows {
			if r.Table == "row" {
				if !want[r.Key] {
					t.Fatalf("round %d: row %s should have gone with its batch", round, r.Key)
				}
				delete(want, r.Key)
			}
		}
		if len(want) > 0 {
			t.Fatalf("round %d: %d rows of the last batches are missing", round, len(want))
		}
		last = batches - 1
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d batches", rounds, last+1)
}

func TestSecondLauncherIsRefused(t *testing.T) {
	dir := newDir(t)
	c, lines := child(t, "holder", dir)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }() // in case the test ends early
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatal(lines.Text())
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	refused := func(pid int) {
		t.Helper()
		_, err := store.Open(dir, store.Options{})
		want := fmt.Sprintf("another launcher (pid %d on host %s) uses %s", pid, host, dir)
		if !errors.Is(err, store.ErrInUse) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	refused(c.Process.Pid)
	refused(c.Process.Pid) // a refusal takes nothing from the holder
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // killed
	_ = in.Close()
	openDir(t, dir)
	refused(os.Getpid()) // in the same process too
}
