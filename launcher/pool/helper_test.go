package pool

import (
	"os/exec"
	"strconv"
)

func lookPath(name string) (string, error) { return exec.LookPath(name) }

func itoa(n int) string { return strconv.Itoa(n) }
