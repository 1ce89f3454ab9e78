package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// Title is the arguments and the environment that the kernel shows of this process
// in /proc/PID/cmdline and environ: what a process was started with, by which
// others know it (ByEnv, Alive). os.Args, os.Environ and what is inherited are not
// part of it. It belongs to one goroutine.
type Title struct {
	mem  *os.File
	from int64  // where it begins
	text []byte // entries, each of which ends with a NUL
}

// OpenTitle fails where the kernel does not let a process open its own memory by
// /proc/self/mem.
func OpenTitle() (*Title, error) {
	from, to, err := titleRange()
	if err != nil {
		return nil, fmt.Errorf("renaming this process: %w", err)
	}
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("renaming this process: %w", err)
	}
	t := &Title{mem: mem, from: from, text: make([]byte, to-from)}
	if _, err := mem.ReadAt(t.text, from); err != nil {
		_ = mem.Close()
		return nil, fmt.Errorf("renaming this process: %w", err)
	}
	return t, nil
}

// Close ends the use of t; what was replaced stays.
func (t *Title) Close() error { return t.mem.Close() }

// Replace puts now, padded with NULs, in the place of the entry old. now must not
// be longer than old. It fails when old is not there, and where the kernel does not
// let a process write its own memory.
func (t *Title) Replace(old, now string) error {
	if old == "" || len(now) > len(old) {
		return fmt.Errorf("renaming this process: %q has no room for %q", old, now)
	}
	// Whole entries only.
	at := bytes.Index(append([]byte{0}, t.text...), []byte("\x00"+old+"\x00"))
	if at < 0 {
		return fmt.Errorf("renaming this process: it was not started with %q", old)
	}
	b := append([]byte(now), make([]byte, len(old)-len(now))...)
	if _, err := t.mem.WriteAt(b, t.from+int64(at)); err != nil {
		return fmt.Errorf("renaming this process: %w", err)
	}
	copy(t.text[at:], b)
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
