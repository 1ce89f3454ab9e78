package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gangway/gpu"
)

// TestWithoutDriver: the real program starts without NVIDIA's library and says
// what is missing in a document.
func TestWithoutDriver(t *testing.T) {
	if _, err := os.Stat("/dev/nvidiactl"); err == nil {
		t.Skip("this machine has NVIDIA's driver")
	}
	exe := filepath.Join(t.TempDir(), gpu.HelperName)
	if out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(exe).Output()
	if err != nil {
		t.Fatalf("%v, output %q", err, out)
	}
	d, err := gpu.ReadDocument(out)
	if err != nil || d.Error == "" || len(d.GPUs) > 0 {
		t.Errorf("%+v, %v", d, err)
	}
}
