package mpi

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// signalWords are the names by which people know the signals that end programs,
// by Linux's numbers.
func signalWords(n int) string {
	switch n {
	case 1:
		return "hang-up"
	case 2:
		return "interrupt"
	case 3:
		return "quit"
	case 4:
		return "illegal instruction"
	case 5:
		return "trap"
	case 6:
		return "abort()"
	case 7:
		return "bus error"
	case 8:
		return "arithmetic error"
	case 9:
		return "killed"
	case 11:
		return "segmentation fault"
	case 13:
		return "broken pipe"
	case 14:
		return "alarm"
	case 15:
		return "terminated"
	case 24:
		return "CPU time limit"
	case 25:
		return "file size limit"
	case 31:
		return "bad system call"
	}
	return ""
}

// HowEnded says in words how a process ended: by a signal, 0 for none, or with a
// status. A status above 128 is read as a shell's, which tells its child's
// signal by it.
func HowEnded(code, signal int) string {
	switch words := signalWords(signal); {
	case signal != 0 && words == "":
		return fmt.Sprintf("signal %d", signal)
	case signal != 0:
		return fmt.Sprintf("%s (signal %d)", words, signal)
	case code == 0:
		return "ended well"
	}
	if Crashed(code, 0) {
		return fmt.Sprintf("ended with status %d, as after a %s", code, HowEnded(0, code-128))
	}
	return fmt.Sprintf("ended with status %d", code)
}

// Crashed reports whether an end is a crash: a signal that the kernel or the C
// library sends for a fault of the program's own, or a shell's status for one.
func Crashed(code, signal int) bool {
	if signal == 0 && code > 128 {
		signal = code - 128
	}
	switch signal {
	case 4, 5, 6, 7, 8, 11, 31:
		return true
	}
	return false
}

// Abort is what an MPI library says when it ends the program.
type Abort struct {
	Rank    int    // in MPI_COMM_WORLD; -1: not told
	Code    int    // the status
	Called  bool   // by MPI_Abort; otherwise the library itself gave up
	Message string // one line, at most 400 bytes
}

// What the libraries print. MPICH and those made of it, in errutil.c and
// abort.c: "application called MPI_Abort(MPI_COMM_WORLD, 7) - process 3", from
// version 4 on with "Abort(7) on node 3 (rank 3 in comm 0): " in front, which
// also comes before their own errors. Open MPI's help-mpi-api.txt: "MPI_ABORT
// was invoked on rank 3 in communicator MPI_COMM_WORLD" and, further down,
// "with errorcode 7." or "Errorcode: 7".
type abortPatterns struct{ called, fatal, open, code *regexp.Regexp }

func patterns() abortPatterns {
	return abortPatterns{
		called: regexp.MustCompile(`application called MPI_Abort\(([^\n]{0,200}?), (-?[0-9]{1,11})\) - process ([0-9]{1,9})`),
		fatal:  regexp.MustCompile(`Abort\((-?[0-9]{1,11})\) on node ([0-9]{1,9})[^\n:]{0,100}: ([^\n]+)`),
		open:   regexp.MustCompile(`MPI_ABORT was invoked on rank ([0-9]{1,9}) in communicator MPI_COMM_WORLD`),
		code:   regexp.MustCompile(`(?i)errorcode:? (-?[0-9]{1,11})`),
	}
}

// AbortFinder finds in what programs and mpirun have written that MPI ended the
// program.
type AbortFinder struct{ p abortPatterns }

// NewAbortFinder returns a finder for any number of texts.
func NewAbortFinder() *AbortFinder { return &AbortFinder{patterns()} }

// Find returns the first such line of a text.
func (f *AbortFinder) Find(text string) (Abort, bool) {
	if !strings.Contains(text, "bort(") && !strings.Contains(text, "MPI_ABORT") {
		return Abort{}, false // most texts, and cheaply
	}
	if m := f.p.called.FindStringSubmatch(text); m != nil {
		return Abort{Rank: number(m[3]), Code: number(m[2]), Called: true, Message: "MPI_Abort(" + m[1] + ", " + m[2] + ")"}, true
	}
	if at := f.p.open.FindStringSubmatchIndex(text); at != nil {
		a := Abort{Rank: number(text[at[2]:at[3]]), Called: true, Code: 1}
		if c := f.p.code.FindStringSubmatch(text[at[1]:]); c != nil {
			a.Code = number(c[1])
		}
		a.Message = fmt.Sprintf("MPI_Abort(MPI_COMM_WORLD, %d)", a.Code)
		return a, true
	}
	if m := f.p.fatal.FindStringSubmatch(text); m != nil {
		return Abort{Rank: number(m[2]), Code: number(m[1]), Message: cut(strings.TrimSpace(m[3]), 400)}, true
	}
	return Abort{}, false
}

// LostDaemon returns the node on which Open MPI's mpirun says that it has lost its
// daemon, by the name that mpirun has for it; "": it does not say so. Before
// version 5 the daemon is called orted, then prted.
func LostDaemon(text string) string {
	_, text, ok := strings.Cut(text, "lost communication with a remote daemon")
	if !ok {
		return ""
	}
	_, text, ok = strings.Cut(text, "Remote daemon:")
	if !ok {
		return ""
	}
	line, _, _ := strings.Cut(text, "\n")
	_, node, ok := strings.Cut(line, "on node ")
	if !ok {
		return ""
	}
	return cut(strings.TrimSpace(node), 255)
}

// number reads digits; a number that no MPI has is -1.
func number(s string) int {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return -1
	}
	return int(n)
}

// cut shortens a text to n bytes, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
