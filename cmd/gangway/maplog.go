package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gangway/launcher/job"
)

// mapEnd is how one element ended.
type mapEnd struct {
	index    uint64 // in the array, from 1
	attempt  uint32
	node     string
	code     int
	signal   int
	reason   *job.Reason // why, where it was not the program's own end
	ran      bool        // else it was never started, and the rest is 0
	start    int64       // unix microseconds
	wall     uint64      // microseconds
	cpu      uint64      // microseconds
	rss      uint64      // KiB
	received uint64      // bytes of output
}

func (e *mapEnd) failed() bool { return e.code != 0 || e.signal != 0 || e.reason != nil }

// joblogHead are GNU Parallel's columns.
const joblogHead = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"

// joblog writes GNU Parallel's log: a line for each element, as it ends.
type joblog struct {
	f *os.File
	w *bufio.Writer
}

// openJoblog makes the file, or goes on in one that is there.
func openJoblog(path string, goOn bool) (*joblog, error) {
	flags := os.O_CREATE | os.O_WRONLY
	if goOn {
		flags |= os.O_APPEND
	} else {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o666)
	if err != nil {
		return nil, usagef("", "--joblog: %v", err)
	}
	l := &joblog{f: f, w: bufio.NewWriter(f)}
	fi, err := f.Stat()
	if err == nil && fi.Size() == 0 {
		_, err = l.w.WriteString(joblogHead)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("--joblog: %w", err)
	}
	return l, nil
}

func (l *joblog) add(number, host, command string, e *mapEnd) error {
	code := e.code
	if e.reason != nil && code == 0 && e.signal == 0 {
		code = -1
	}
	_, err := fmt.Fprintf(l.w, "%s\t%s\t%.3f\t%10.3f\t0\t%d\t%d\t%d\t%s\n", number, host, float64(e.start)/1e6, float64(e.wall)/1e6,
		e.received, code, e.signal, strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(command))
	return err
}

func (l *joblog) flush() error { return l.w.Flush() }

func (l *joblog) close() error { return errors.Join(l.w.Flush(), l.f.Close()) }

// readJoblog returns the numbers of the log's elements, and which of them have
// failed. A last line without its end is of one that was being written.
func readJoblog(r io.Reader, name string) (map[uint64]bool, error) {
	out := map[uint64]bool{}
	br := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, err := logLine(br)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if n == 1 && strings.HasPrefix(line, "Seq\t") {
			continue
		}
		f := strings.SplitN(line, "\t", 9)
		bad := func(what string) error {
			return usagef("give the file that --joblog wrote, or leave --resume out", "%s, line %d: %s", name, n, what)
		}
		if len(f) < 8 {
			return nil, bad(fmt.Sprintf("has %d columns, where a job log has 9", len(f)))
		}
		number, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil || number == 0 {
			return nil, bad(fmt.Sprintf("%.40q is not a command's number", f[0]))
		}
		code, err1 := strconv.Atoi(f[6])
		sig, err2 := strconv.Atoi(f[7])
		if err1 != nil || err2 != nil {
			return nil, bad("has no exit value and signal")
		}
		out[number] = code != 0 || sig != 0
	}
}

// logLine reads a whole line of which it keeps the beginning: the command behind
// the numbers may be of any length.
func logLine(r *bufio.Reader) (string, error) {
	var head []byte
	for {
		part, err := r.ReadSlice('\n')
		head = append(head, part[:min(len(part), 512-min(len(head), 512))]...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return "", err // also of a last line that has no end
		}
		return strings.TrimSuffix(string(head), "\n"), nil
	}
}

// mend ends a last line that was cut off, so that the next is its own.
func mend(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return err
	}
	// Back to the last line's end: what is behind it tells nothing.
	end := fi.Size()
	b := make([]byte, 4096)
	for end > 0 {
		n := min(end, int64(len(b)))
		if _, err := f.ReadAt(b[:n], end-n); err != nil {
			return err
		}
		if i := bytes.LastIndexByte(b[:n], '\n'); i >= 0 {
			end = end - n + int64(i) + 1
			break
		}
		end -= n
	}
	if end == fi.Size() {
		return nil
	}
	return f.Truncate(end)
}

// resultName is a value as the name of a folder, as GNU Parallel has it. No name
// leads out of the folder that it is in.
func resultName(v string) string {
	v = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "/", `\_`).Replace(v)
	switch v {
	case "":
		return `\0`
	case ".", "..":
		return `\` + v
	}
	return v
}

// maxName is the longest name that file systems take, in bytes.
const maxName = 255

// resultDir is where an element's results are: DIR/1/VALUE/2/VALUE. One whose
// values are too long is found by its number.
func resultDir(dir, number string, values []string) string {
	out := dir
	for i, v := range values {
		name := resultName(v)
		if len(name) > maxName || len(out) > 3000 {
			return filepath.Join(dir, "seq", number)
		}
		out = out + string(filepath.Separator) + strconv.Itoa(i+1) + string(filepath.Separator) + name
	}
	return out
}

// results writes elements' output into folders of their own, and a list of all as
// lines of JSON.
type results struct {
	dir  string
	list *os.File
	w    *bufio.Writer
}

func openResults(dir string, goOn bool) (*results, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, usagef("", "--results: %v", err)
	}
	path := filepath.Join(dir, "results.jsonl")
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if goOn {
		if err := mend(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("--results: %w", err)
		}
	} else {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o666)
	if err != nil {
		return nil, usagef("", "--results: %v", err)
	}
	return &results{dir: dir, list: f, w: bufio.NewWriter(f)}, nil
}

// has says whether there are results of the element.
func (r *results) has(number string, values []string) bool {
	_, err := os.Stat(filepath.Join(resultDir(r.dir, number, values), "seq"))
	return err == nil
}

// resultFiles are one element's, being written.
type resultFiles struct {
	dir   string
	files [2]*os.File
	err   error
}

func (r *results) begin(number string, values []string) *resultFiles {
	f := &resultFiles{dir: resultDir(r.dir, number, values)}
	f.err = os.MkdirAll(f.dir, 0o777)
	for i, name := range []string{"stdout", "stderr"} {
		if f.err == nil {
			f.files[i], f.err = os.Create(filepath.Join(f.dir, name))
		}
	}
	return f
}

func (f *resultFiles) write(stderr bool, data []byte) error {
	i := 0
	if stderr {
		i = 1
	}
	if f.err == nil {
		_, f.err = f.files[i].Write(data)
	}
	return f.err
}

// finish says that all is there: seq comes last.
func (f *resultFiles) finish(number string) error {
	for _, x := range f.files {
		if x != nil {
			f.err = errors.Join(f.err, x.Close())
		}
	}
	if f.err == nil {
		f.err = os.WriteFile(filepath.Join(f.dir, "seq"), []byte(number), 0o666)
	}
	if f.err != nil {
		return fmt.Errorf("--results: %w", f.err)
	}
	return nil
}

// add puts a line into the list.
func (r *results) add(line map[string]any) error {
	b, err := json.Marshal(line)
	if err == nil {
		_, err = r.w.Write(append(b, '\n'))
	}
	return err
}

func (r *results) close() error { return errors.Join(r.w.Flush(), r.list.Close()) }
