package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// Retitle replaces old by now, padded with NULs, in the arguments and the
// environment that the kernel shows of this process in /proc/PID/cmdline and
// environ: what a process was started with, by which others know it (ByEnv,
// Alive). os.Args, os.Environ and what is inherited stay as they are. now must
// not be longer than old. It fails where the kernel does not let a process
// write its own memory by /proc/self/mem, and when old is not there.
func Retitle(old, now string) error {
	if old == "" || len(now) > len(old) {
		return fmt.Errorf("renaming this process: %q has no room for %q", old, now)
	}
	from, to, err := titleRange()
	if err != nil {
		return fmt.Errorf("renaming this process: %w", err)
	}
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("renaming this process: %w", err)
	}
	defer mem.Close()
	b := make([]byte, to-from)
	if _, err := mem.ReadAt(b, from); err != nil {
		return fmt.Errorf("renaming this process: %w", err)
	}
	// Whole entries only, each of which ends with a NUL.
	at := bytes.Index(append([]byte{0}, b...), []byte("\x00"+old+"\x00"))
	if at < 0 {
		return fmt.Errorf("renaming this process: it was not started with %q", old)
	}
	copy(b[at:], append([]byte(now), make([]byte, len(old)-len(now))...))
	if _, err := mem.WriteAt(b[at:at+len(old)], from+int64(at)); err != nil {
		return fmt.Errorf("renaming this process: %w", err)
	}
	return nil
}

// titleLimit bounds arguments and environment together, as the kernel does.
const titleLimit = 8 << 20

// titleRange is where this process's arguments begin and its environment ends:
// fields 48 (arg_start) and 51 (env_end) of /proc/self/stat, proc(5); the kernel
// puts one after the other.
func titleRange() (from, to int64, err error) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 49 {
		return 0, 0, errors.New("/proc/self/stat is too short")
	}
	from, err1 := strconv.ParseInt(string(f[45]), 10, 64)
	to, err2 := strconv.ParseInt(string(f[48]), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, err
	}
	if from <= 0 || to <= from || to-from > titleLimit {
		return 0, 0, fmt.Errorf("/proc/self/stat has arguments and environment from %d to %d", from, to)
	}
	return from, to, nil
}
