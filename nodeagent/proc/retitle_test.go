//go:build linux

package proc

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// retitled is a process that renames itself as its arguments say, tells how that
// went and waits for the end of its input.
func retitled(args []string) {
	t, err := OpenTitle()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer t.Close()
	for _, a := range args {
		if old, now, ok := strings.Cut(a, "→"); ok {
			fmt.Println(t.Replace(old, now))
		}
	}
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

func TestRetitle(t *testing.T) {
	cmd := exec.Command(os.Args[0], "MARK=....→MARK=12", "MARK=→x", "MARK=12→MARK=1234", "x→longer", "a word→a lie")
	cmd.Args = append(cmd.Args, "a word")
	cmd.Env = []string{"PROC_TEST_HELPER=retitle", "MARK=....", "LAST=1"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	sc := bufio.NewScanner(out)
	for i, ok := range []bool{true, false, false, false, true} {
		if !sc.Scan() {
			t.Fatalf("renaming %d: no answer", i)
		}
		if got := sc.Text() == "<nil>"; got != ok {
			t.Errorf("renaming %d: %s, want success %v", i, sc.Text(), ok)
		}
	}
	if !Alive(cmd.Process.Pid, "MARK=12") || !Alive(cmd.Process.Pid, "LAST=1") || Alive(cmd.Process.Pid, "MARK=....") {
		t.Error("it is not known by its new mark, or another has changed")
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
	if err != nil || !slices.Contains(strings.Split(string(args), "\x00"), "a lie") {
		t.Errorf("its arguments are %q, %v", args, err)
	}
}
