//go:build linux

// Command labctl keeps a lab of namespace hosts for a shell: it brings one up,
// runs commands in its hosts, and ends it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"gangway/internal/lab"
)

const usage = `usage:
  labctl up N [--dir D] [--private-home]   N hosts n1…nN, and n0 for the launcher
  labctl exec [--dir D] HOST -- CMD…       run a command in a host; its exit status
  labctl bytes [--dir D]                   bytes received and sent by each host
  labctl cut|mend|destroy [--dir D] HOST
  labctl down [--dir D]
D is .cache/lab unless given; the hosts share it.`

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "labctl:", err)
	}
	os.Exit(status)
}

type request struct {
	dir     string
	private bool
	args    []string
	command []string
}

func parse(args []string) (request, error) {
	r := request{dir: ".cache/lab"}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--":
			r.command = args[i+1:]
			return r, nil
		case a == "--dir" && i+1 < len(args):
			i++
			r.dir = args[i]
		case strings.HasPrefix(a, "--dir="):
			r.dir = strings.TrimPrefix(a, "--dir=")
		case a == "--private-home":
			r.private = true
		case strings.HasPrefix(a, "-"):
			return r, fmt.Errorf("unknown flag %s\n%s", a, usage)
		default:
			r.args = append(r.args, a)
		}
	}
	return r, nil
}

func run(args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New(usage)
	}
	r, err := parse(args[1:])
	if err != nil {
		return 2, err
	}
	if args[0] == "up" {
		return up(r)
	}
	l, err := lab.Open(r.dir)
	if err != nil {
		return 1, err
	}
	switch args[0] {
	case "down":
		err = l.Close()
	case "bytes":
		err = counters(l)
	case "exec":
		return execIn(l, r)
	case "cut", "mend", "destroy":
		var i int
		if i, err = hostIndex(l, r); err == nil {
			err = map[string]func(int) error{"cut": l.Cut, "mend": l.Mend, "destroy": l.Destroy}[args[0]](i)
		}
	default:
		return 2, fmt.Errorf("unknown command %s\n%s", args[0], usage)
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

func up(r request) (int, error) {
	if len(r.args) != 1 {
		return 2, errors.New(usage)
	}
	n, err := strconv.Atoi(r.args[0])
	if err != nil || n < 1 || n > lab.MaxHosts {
		return 2, fmt.Errorf("number of hosts %q: want 1…%d", r.args[0], lab.MaxHosts)
	}
	if why := lab.Missing(); why != "" {
		return 1, fmt.Errorf("no lab of namespaces here: %s", why)
	}
	opts := []lab.Option{lab.Dir(r.dir), lab.Detached()}
	if r.private {
		opts = append(opts, lab.PrivateHome())
	}
	l, err := lab.Up(context.Background(), n, opts...)
	if err != nil {
		return 1, err
	}
	fmt.Printf("n0…n%d are up; files in %s\n", n, l.Dir())
	return 0, nil
}

func counters(l *lab.Lab) error {
	for i := range l.Len() + 1 {
		rx, tx, err := l.Bytes(i)
		if err != nil {
			return err
		}
		fmt.Println(l.Host(i).Name(), rx, tx)
	}
	return nil
}

func hostIndex(l *lab.Lab, r request) (int, error) {
	if len(r.args) != 1 {
		return 0, errors.New("want one host")
	}
	for i := range l.Len() + 1 {
		if l.Host(i).Name() == r.args[0] {
			return i, nil
		}
	}
	return 0, fmt.Errorf("no host %q: there are n0…n%d", r.args[0], l.Len())
}

func execIn(l *lab.Lab, r request) (int, error) {
	i, err := hostIndex(l, r)
	if err != nil || len(r.command) == 0 {
		return 2, errors.Join(err, errors.New(usage))
	}
	cmd := l.Host(i).Command(context.Background(), r.command[0], r.command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The shell's directory is there too, unless it is one of the host's own.
	if wd, err := os.Getwd(); err == nil {
		if _, err := os.Stat(l.Host(i).Root() + wd); err == nil {
			cmd.Dir = wd
		}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2)
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return 127, err
		}
		return 126, err
	}
	go func() {
		for s := range signals {
			// A terminal's Ctrl-C has reached the program already: both are in the
			// foreground group.
			if s != syscall.SIGINT {
				cmd.Process.Signal(s)
			}
		}
	}()
	err = cmd.Wait()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return ee.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}
