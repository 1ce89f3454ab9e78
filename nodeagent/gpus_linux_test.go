package nodeagent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"gangway/internal/gpufake"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/topology"
	"gangway/topology/probe"
)

// makeHello is the first message of an agent on this machine.
func makeHello(version string) (*wire.Hello, error) {
	n, err := probe.Live()
	if err != nil {
		return nil, err
	}
	return HelloOf(n, version)
}

func fakeGPUs(n int) (out []topology.GPU) {
	for i := range n {
		out = append(out, topology.GPU{Index: i, Name: "NVIDIA H200", UUID: fmt.Sprintf("GPU-%d", i), PCI: fmt.Sprintf("0000:%02x:00.0", 0x19+i), Driver: "550"})
	}
	return out
}

// source finds programs in dir only, on a node with NVIDIA's driver.
func source(dir string) GPUSource {
	return GPUSource{Dev: fstest.MapFS{"nvidiactl": {}}, Sys: fstest.MapFS{}, Patience: 20 * time.Second, Recheck: -1,
		Find: func(p string) string {
			if _, err := os.Stat(filepath.Join(dir, p)); err != nil {
				return ""
			}
			return filepath.Join(dir, p)
		}}
}

func nodeOf(t *testing.T, b []byte) topology.Node {
	t.Helper()
	var n topology.Node
	if err := json.Unmarshal(b, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestGPUsOfTheNode: the first message has them; a later look tells of a loss.
func TestGPUsOfTheNode(t *testing.T) {
	base, dir := tempBase(t), t.TempDir()
	gpufake.Machine{GPUs: fakeGPUs(2)}.Install(t, dir)
	cfg := agentConfig(base)
	cfg.GPUs = source(dir)
	cfg.GPUs.Recheck = 50 * time.Millisecond
	startTestAgent(t, cfg)
	l, _ := dial(t, base, "c", 1)
	if got := nodeOf(t, l.hello.GetNodeJson()).GPUSlotIDs(); !slices.Equal(got, []uint32{0, 1}) {
		t.Fatalf("GPUs %v", got)
	}
	gpufake.Machine{GPUs: fakeGPUs(1)}.Install(t, dir)
	m := l.wait("an update", func(m *wire.AgentMessage) bool { return m.GetNodeUpdate() != nil })
	n := nodeOf(t, m.GetNodeUpdate().GetNodeJson())
	if got := n.GPUSlotIDs(); !slices.Equal(got, []uint32{0}) {
		t.Errorf("GPUs %v", got)
	}
	if all := strings.Join(n.Warnings, "\n"); !strings.Contains(all, "GPU 1 0000:1a:00.0") {
		t.Errorf("the lost GPU is not named: %q", all)
	}
	// Then the driver fails altogether: nobody is to be given its GPUs.
	gpufake.Script(t, dir, "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9\n")
	m = l.wait("an update without GPUs to give", func(m *wire.AgentMessage) bool {
		u := m.GetNodeUpdate()
		return u != nil && len(nodeOf(t, u.GetNodeJson()).GPUSlotIDs()) == 0
	})
	n = nodeOf(t, m.GetNodeUpdate().GetNodeJson())
	if len(n.GPUs) != 1 || len(n.GPUSlotIDs()) != 0 || !strings.Contains(n.GPUs[0].Health.Problem, "does not answer") {
		t.Errorf("%+v", n.GPUs)
	}
}

// TestGPUClaims: two launchers do not get the same GPU.
func TestGPUClaims(t *testing.T) {
	base := tempBase(t)
	startTestAgent(t, agentConfig(base))
	one, _ := dial(t, base, "one", 1)
	first := one.assignment("first", "stay", "0")
	first.Gpus = []uint32{0, 65536}
	one.set(first)
	one.ready("first")
	two, inv := dial(t, base, "two", 1)
	if f := inv.GetForeign(); len(f) != 1 || !slices.Equal(f[0].GetGpus(), first.Gpus) {
		t.Errorf("foreign claims %v", f)
	}
	second := two.assignment("second", "stay", "1")
	second.Gpus = []uint32{65536}
	two.set(second)
	m := two.wait("a refusal", func(m *wire.AgentMessage) bool { return m.GetError() != nil })
	if e := m.GetError(); e.GetCode() != wire.ErrorCode_ERROR_CLAIMED || !strings.Contains(e.GetMessage(), "GPU 65536 is held by") {
		t.Errorf("%v", e)
	}
}

const hangs = `sleep 300 & echo $! $$ > "$(dirname "$0")/pids.new"; mv "$(dirname "$0")/pids.new" "$(dirname "$0")/pids"; trap "" TERM INT; wait
`

// TestHangingDriver: a program that never answers, with a child, is killed and
// reported; the probe goes on.
func TestHangingDriver(t *testing.T) {
	for _, program := range []string{"gangway-nvml", "nvidia-smi"} {
		dir := t.TempDir()
		gpufake.Machine{GPUs: fakeGPUs(1)}.Install(t, dir)
		gpufake.Script(t, dir, program, hangs)
		src := source(dir)
		src.Patience = 300 * time.Millisecond
		var n topology.Node
		began := time.Now()
		ProbeGPUs(context.Background(), &n, src, "")
		if d := time.Since(began); d > 6*time.Second {
			t.Errorf("%s: took %v", program, d)
		}
		if all := strings.Join(n.Warnings, "\n"); !strings.Contains(all, program) || !strings.Contains(all, "no answer within 300ms, so it was killed") {
			t.Errorf("%s: warnings %q", program, all)
		}
		if want := map[string]int{"gangway-nvml": 1}[program]; len(n.GPUs) != want {
			t.Errorf("%s: GPUs %+v", program, n.GPUs)
		}
		deadAll(t, dir)
	}
}

func deadAll(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "pids"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(b)) {
		pid, _ := strconv.Atoi(f)
		// A killed child of a killed parent may be a zombie until init or this process reaps it.
		if st, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && syscall.Kill(pid, 0) == nil &&
			!bytes.Contains(st, []byte(") Z ")) && !bytes.Contains(st, []byte(") X ")) {
			t.Errorf("process %d is left: %s", pid, st)
		}
	}
}

// TestAgentWithHangingDriver: the session opens without GPUs when the driver
// takes too long, work starts, and the GPUs follow.
func TestAgentWithHangingDriver(t *testing.T) {
	base, dir := tempBase(t), t.TempDir()
	gpufake.Machine{GPUs: fakeGPUs(2)}.Install(t, dir)
	gpufake.Script(t, dir, "gangway-nvml", hangs)
	cfg := agentConfig(base)
	cfg.GPUs = source(dir)
	cfg.GPUs.Patience = gpuGreeting + 3*time.Second
	startTestAgent(t, cfg)
	l, _ := dial(t, base, "c", 1)
	n := nodeOf(t, l.hello.GetNodeJson())
	if len(n.GPUs) != 0 || !strings.Contains(strings.Join(n.Warnings, "\n"), "not answered yet") {
		t.Fatalf("%+v %q", n.GPUs, n.Warnings)
	}
	l.set(l.assignment("work", "stay", "0"))
	l.ready("work")
	m := l.wait("an update", func(m *wire.AgentMessage) bool { return m.GetNodeUpdate() != nil })
	n = nodeOf(t, m.GetNodeUpdate().GetNodeJson())
	if got := n.GPUSlotIDs(); !slices.Equal(got, []uint32{0, 1}) || !strings.Contains(strings.Join(n.Warnings, "\n"), "gangway-nvml: no answer") {
		t.Errorf("%v %q", got, n.Warnings)
	}
	deadAll(t, dir)
}

// TestOutput: limits and what is left behind.
func TestGPUProgramOutput(t *testing.T) {
	dir := t.TempDir()
	run := func(text string, limit int64) (string, error) {
		gpufake.Script(t, dir, "p", text)
		out, _, err := proc.Output(context.Background(), proc.Start, proc.Cmd{Path: filepath.Join(dir, "p"), Env: os.Environ()}, limit)
		return string(out), err
	}
	if out, err := run("echo hello; exit 3\n", 100); out != "hello\n" || err == nil || err.Error() != "exit status 3" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run("yes\n", 1000); len(out) != 1000 || err == nil || !strings.Contains(err.Error(), "more than 1000 bytes") {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	began := time.Now()
	if out, err := run("sleep 300 & echo x\n", 100); out != "x\n" || err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("%q, %v after %v", out, err, time.Since(began))
	}
}
