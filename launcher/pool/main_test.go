package pool

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes the test binary the program that is copied to the nodes too: as
// `bridge` it greets and then echoes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "bridge" {
		os.Exit(fakeBridge(os.Args[2:]))
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func fakeBridge(args []string) int {
	if len(args) > 0 && args[0] == "fail" {
		fmt.Fprintln(os.Stderr, "no agent here")
		return 3
	}
	exe, _ := os.Executable()
	fmt.Printf("hello %s %q %s\n", exe, args, os.Getenv("GANGWAY_TEST"))
	if os.Getenv("GANGWAY_TEST") == "stay" { // does not end with its input
		time.Sleep(time.Minute)
	}
	io.Copy(os.Stdout, os.Stdin)
	return 0
}
