package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSetupEnvironmentAndDirectory(t *testing.T) {
	b := local(t)
	dir := t.TempDir()
	setup := filepath.Join(dir, "setup.sh")
	if err := os.WriteFile(setup, []byte("FROM_SETUP='a  b'; export FROM_SETUP\nGREETING=setup; export GREETING\necho noise\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := b.want(0, "run", "--setup", setup, "-D", dir, "-x", "GREETING=user", "--", "sh", "-c", `echo "$FROM_SETUP|$GREETING|$(pwd)"`)
	if want := "a  b|user|" + dir + "\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if err := os.WriteFile(setup, []byte("echo broken module >&2\nexit 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs := b.want(125, "run", "--setup", setup, "--", "true")
	if !strings.Contains(errs, "broken module") || !strings.Contains(errs, "setup.sh") {
		t.Errorf("the failing set-up script is not explained: %s", errs)
	}
}

// A home that can't be written or locked, as some network file systems, is of
// no concern: nothing is kept there by a local run.
func TestHomeIsNotNeeded(t *testing.T) {
	b := local(t)
	for _, home := range []string{"/proc/self", "/nonexistent"} {
		p := b.start(nil, []string{"HOME=" + home}, "run", "--", "echo", "hello")
		if out := p.out.wait(p); out != "hello\n" || p.status() != 0 {
			t.Errorf("HOME=%s: status %d, %q, %s", home, p.status(), out, p.err)
		}
	}
}

func TestGPUsThatAreNotThere(t *testing.T) {
	b := local(t)
	_, errs := b.want(125, "run", "--gpus-per-rank", "1", "--", "true")
	if !strings.Contains(errs, "GPU") {
		t.Errorf("the missing GPU is not named: %s", errs)
	}
}

func TestHostfile(t *testing.T) {
	// The lab's hosts see this directory; the binary's is made with the first.
	gangwayBinary(t)
	file := filepath.Join(buildDir, "hostfile")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("malformed", func(t *testing.T) {
		b := local(t)
		write("n1 slots=2\nn2 slots=many\n")
		_, errs := b.want(2, "run", "--hostfile", file, "--", "true")
		if !strings.Contains(errs, file+":2:") {
			t.Errorf("file and line are not named: %s", errs)
		}
		write("# nobody\n")
		if _, errs := b.want(2, "run", "--hostfile", file, "--", "true"); !strings.Contains(errs, "no host") {
			t.Errorf("%s", errs)
		}
	})
	t.Run("uneven", func(t *testing.T) {
		prog := hello(t, "mpicc.mpich")
		b := hosts(t, 3)
		write("n2 slots=2   # first, so rank 0 is here\nn1:1\nn3 slots=2\n")
		out := b.mpi(nil, "run", "--hostfile", file, "-x", "UCX_TLS=tcp,self", "-x", "UCX_NET_DEVICES=eth0", "--", prog)
		var got []string
		for r, w := range helloLines(t, out, 5) {
			host, _, _ := strings.Cut(w, " ")
			got = append(got, string(rune('0'+r))+host)
		}
		slices.Sort(got)
		if want := "0n2 1n2 2n1 3n3 4n3"; strings.Join(got, " ") != want {
			t.Errorf("ranks are at %q, want %q", got, want)
		}
	})
}

// A reader that goes away ends the job, as it ends any writer to a pipe.
func TestClosedOutput(t *testing.T) {
	b := local(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := b.startTo(w, "run", "--mpi", "none", "--", "yes")
	_ = w.Close()
	if _, err := r.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if got := p.status(); got != 128+13 {
		t.Fatalf("status %d, want 141; %s", got, p.err)
	}
}

// A reader that is stuck does not keep a cancelled job alive.
func TestStuckOutput(t *testing.T) {
	b := local(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := b.startTo(w, "run", "--mpi", "none", "--", "yes")
	_ = w.Close()
	if _, err := r.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	_ = p.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for its reader")
	}
	if got := p.status(); got != 130 {
		t.Errorf("status %d, want 130; %s", got, p.err)
	}
	b.nothingLeft(5 * time.Second)
}

// Runs that come and go on one node don't get into each other's agent.
func TestManyRunsAtOnce(t *testing.T) {
	b := local(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bad []string
	for range 2 {
		wg.Go(func() {
			for range 15 {
				c := exec.Command(b.bin, "run", "--tmpdir", b.base, "--mpi", "none", "--", "true")
				if out, err := c.CombinedOutput(); err != nil {
					mu.Lock()
					bad = append(bad, err.Error()+": "+string(out))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(bad) > 0 {
		t.Errorf("%d of 30 runs failed:\n%s", len(bad), strings.Join(bad, "\n"))
	}
}
