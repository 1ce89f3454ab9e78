package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/launcher"
	"gangway/launcher/job"
	"gangway/nodeagent/wire/sweep"
)

// nasty are values that a shell would take apart.
var nasty = []string{"", " ", "a b", "it's", `"`, `\`, `\\`, "$HOME", "`id`", "$(id)", ";id", "a\nb", "\n", "\t", "-n", "--", "*", "?", "[a]", "~", "#", "!", "&", "|", "a=b", "{}", "{1}", "${HOME}", "é", "'\"'\"'", "\x01", "%s", "a\\'b", "<", ">x"}

// elementsOf are the values and command lines of all elements of a command.
func elementsOf(t rapid.TB, words []string, in mapInput, list ...string) [][]string {
	t.Helper()
	w, err := workOf(words, in, list...)
	if err != nil {
		t.Fatal(err)
	}
	texts, err := w.table.Compile(1, w.command.argv())
	if err != nil {
		t.Fatalf("%q: %v", w.command.argv(), err)
	}
	var out [][]string
	for i := uint64(1); i <= w.total; i++ {
		out = append(out, texts.Expand(i, 0, nil))
	}
	return out
}

func workOf(words []string, in mapInput, list ...string) (*mapWork, error) {
	f := &mapFlags{in: in, shell: "/bin/sh"}
	return f.work(append(append([]string{}, words...), list...))
}

func TestShellValuesAreWords(t *testing.T) {
	for _, script := range []string{
		`printf '<%s>' {}`, `printf '<%s>' "{}"`, `printf '<%s>' '{}'`, `printf "<%s>" "$(printf %s {}x)"`, `x={}; printf '<%s>' "$x"`,
		`f() { printf '<%s>' {}; }; f other`, `printf '<%s>' {} # it's`, "printf '<%s>' `printf x`{}", `set -- z; printf '<%s>' "$1" {}`, `printf '<%s>' ${1}"a"{}`,
	} {
		for _, v := range nasty {
			argv := elementsOf(t, []string{script + " "}, mapInput{}, ":::", v)[0]
			cmd := exec.Command(argv[0], argv[1:]...)
			got, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s of %q: %v: %s", script, v, err, got)
			}
			want := "<" + v + ">"
			switch {
			case strings.Contains(script, "{}x"):
				want = "<" + v + "x>"
			case strings.Contains(script, "`{}"):
				want = "<x" + v + ">"
			case strings.Contains(script, "set --"):
				want = "<z><" + v + ">"
			case strings.Contains(script, `"a"`):
				want = "<a" + v + ">"
			}
			if string(got) != want {
				t.Errorf("%s of %q wrote %q, want %q", script, v, got, want)
			}
		}
	}
}

func TestShellValuesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.StringMatching(`([a-z'"$\x60\\ ;&|<>(){}\n*?#!~=-]){0,12}`).Draw(t, "value")
		script := rapid.SampledFrom([]string{`printf %s {};`, `printf %s "{}";`, `printf %s '{}';`, `(printf %s "$(printf %s. {})");`}).Draw(t, "script")
		argv := elementsOf(t, []string{script}, mapInput{}, ":::", v)[0]
		got, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		want := v
		if strings.Contains(script, "%s.") {
			want += "."
		}
		if err != nil || string(got) != want {
			t.Fatalf("%s of %q wrote %q, %v", script, v, got, err)
		}
	})
}

func TestShownCommandsRun(t *testing.T) {
	for _, script := range []string{`printf '<%s>' {}`, `printf '<%s>' "{}"`, `printf '<%s>' '{}'`} {
		for _, v := range nasty {
			w, err := workOf([]string{script + ";"}, mapInput{}, ":::", v)
			if err != nil {
				t.Fatal(err)
			}
			got, err := exec.Command("/bin/sh", "-c", w.show.command(1)).CombinedOutput()
			if want := "<" + v + ">"; err != nil || string(got) != want {
				t.Errorf("%s runs as %q, %v; want %q", w.show.command(1), got, err, want)
			}
		}
	}
}

func TestCommands(t *testing.T) {
	in := func(s string) mapInput { return mapInput{stdin: strings.NewReader(s)} }
	for name, tc := range map[string]struct {
		words []string
		in    mapInput
		list  []string
		want  [][]string
	}{
		"appended":         {[]string{"gzip"}, mapInput{}, []string{":::", "a b", "c"}, [][]string{{"gzip", "a b"}, {"gzip", "c"}}},
		"several words":    {[]string{"echo", "x", "pre{}"}, mapInput{}, []string{":::", "a b"}, [][]string{{"echo", "x", "prea b"}}},
		"plain text":       {[]string{"gzip -9 {} {.}"}, mapInput{}, []string{":::", "d e/f.x"}, [][]string{{"gzip", "-9", "d e/f.x", "d e/f"}}},
		"parts of paths":   {[]string{"echo", "{/}", "{//}", "{/.}", "{1/.}"}, mapInput{}, []string{":::", "d/e.x"}, [][]string{{"echo", "e.x", "d", "e", "e"}}},
		"numbers":          {[]string{"echo", "{#}", "{%}"}, mapInput{}, []string{":::", "a", "b"}, [][]string{{"echo", "1", "1"}, {"echo", "2", "1"}}},
		"product":          {[]string{"echo"}, mapInput{}, []string{":::", "a", "b", ":::", "1", "2"}, [][]string{{"echo", "a", "1"}, {"echo", "a", "2"}, {"echo", "b", "1"}, {"echo", "b", "2"}}},
		"zip":              {[]string{"echo", "{2}", "{1}"}, mapInput{}, []string{":::", "a", "b", "c", ":::+", "1", "2"}, [][]string{{"echo", "1", "a"}, {"echo", "2", "b"}}},
		"zip, first short": {[]string{"echo"}, mapInput{}, []string{":::", "a", ":::+", "1", "2"}, [][]string{{"echo", "a", "1"}}},
		"other braces":     {[]string{"awk", "{print {x} ${1} {{}} {0}}", "{}"}, mapInput{}, []string{":::", "a"}, [][]string{{"awk", "{print {x} ${1} {} {0}}", "a"}}},
		"lines":            {[]string{"echo"}, in("a\n\nb"), nil, [][]string{{"echo", "a"}, {"echo", ""}, {"echo", "b"}}},
		"crlf stays":       {[]string{"echo"}, in("a\r\n"), nil, [][]string{{"echo", "a\r"}}},
		"groups":           {[]string{"echo", "{1}-{2}"}, mapInput{per: 2, stdin: strings.NewReader("1\n2\n3\n")}, nil, [][]string{{"echo", "1-2"}, {"echo", "3-"}}},
		"zero bytes":       {[]string{"echo"}, mapInput{delim: "\x00", stdin: strings.NewReader("a\nb\x00c")}, nil, [][]string{{"echo", "a\nb"}, {"echo", "c"}}},
		"commas":           {[]string{"echo"}, mapInput{delim: ",", stdin: strings.NewReader("a,b,\n")}, nil, [][]string{{"echo", "a"}, {"echo", "b"}}},
		"columns":          {[]string{"echo", "{2}", "{1}"}, mapInput{columns: ";", stdin: strings.NewReader("a;b\nc\n")}, nil, [][]string{{"echo", "b", "a"}, {"echo", "", "c"}}},
		"blank ones out":   {[]string{"echo"}, mapInput{noEmpty: true, stdin: strings.NewReader("a\n \n\nb\n")}, nil, [][]string{{"echo", "a"}, {"echo", "b"}}},
		"-I":               {[]string{"cp", "%", "b/%.{}", "{.}"}, mapInput{replace: "%"}, []string{":::", "x.y"}, [][]string{{"cp", "x.y", "b/x.y.{}", "x"}}},
		"-I in a shell":    {[]string{"cat <X|wc"}, mapInput{replace: "X"}, []string{":::", "a"}, [][]string{{"/bin/sh", "-c", `_gangway_1=${1}; set --; cat <"${_gangway_1}"|wc`, "sh", "a"}}},
		"no command":       {nil, mapInput{}, []string{":::", "echo  x"}, [][]string{{"/bin/sh", "-c", "echo  x"}}},
		"value of braces":  {[]string{"echo", "{}{{1}}"}, mapInput{}, []string{":::", "{}"}, [][]string{{"echo", "{}{1}"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, elementsOf(t, tc.words, tc.in, tc.list...)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRaggedLastCommand(t *testing.T) {
	all := elementsOf(t, []string{"printf", "<%s>", "it's"}, mapInput{per: 3, stdin: strings.NewReader("1\n2\n3\n4\n")})
	for i, want := range []string{"<it's><1><2><3>", "<it's><4>"} {
		got, err := exec.Command(all[i][0], all[i][1:]...).CombinedOutput()
		if err != nil || string(got) != want {
			t.Errorf("command %d wrote %q, %v; want %q", i+1, got, err, want)
		}
	}
}

func TestMapRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		words []string
		in    mapInput
		list  []string
		want  string
	}{
		"not UTF-8":         {[]string{"echo"}, mapInput{}, []string{":::", "a", "b\xff"}, `:::, value 2: "b\xff" is not UTF-8`},
		"not UTF-8, a line": {[]string{"echo"}, mapInput{stdin: strings.NewReader("a\nb\xff\n")}, nil, `standard input, line 2: "b\xff" is not UTF-8`},
		"zero byte":         {[]string{"echo"}, mapInput{stdin: strings.NewReader("a\x00b\n")}, nil, "has a zero byte"},
		"too long":          {[]string{"echo"}, mapInput{stdin: strings.NewReader("a\n" + strings.Repeat("x", 131072) + "\n")}, nil, "standard input, line 2: "},
		"column":            {[]string{"echo {2} {.}"}, mapInput{}, []string{":::", "a"}, "{2}: no such column"},
		"-I behind a brace": {[]string{"awk", "{%}"}, mapInput{replace: "%"}, []string{":::", "a"}, "% stands directly behind {"},
		"-I of braces":      {[]string{"echo"}, mapInput{replace: "{x}"}, []string{":::", "a"}, "braces are only allowed as {}"},
		"zip with nothing":  {[]string{"echo"}, mapInput{}, []string{":::+", "a"}, "goes with nothing"},
		"no file named":     {[]string{"echo"}, mapInput{}, []string{"::::"}, ":::: names no file"},
		"no such file":      {[]string{"echo"}, mapInput{}, []string{"::::", "/nowhere/x"}, "/nowhere/x"},
		"stdin twice":       {[]string{"echo"}, mapInput{stdin: strings.NewReader("")}, []string{"::::", "-", "-"}, "read already"},
		"empty command":     {[]string{" "}, mapInput{}, []string{":::", "a"}, "the command is empty"},
		"too many":          {[]string{"echo"}, mapInput{stdin: strings.NewReader(strings.Repeat("x\n", 4000))}, append([]string{"::::", "-", ":::"}, strings.Split(strings.Repeat("y,", 2999)+"y", ",")...), "more than 10000000 commands"},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := workOf(tc.words, tc.in, tc.list...)
			if err == nil {
				t.Fatalf("taken: %q", w.command.argv())
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("says %q, want %q", err, tc.want)
			}
		})
	}
	for _, empty := range [][]string{{":::"}, {":::", "a", ":::"}} {
		if w, err := workOf([]string{"echo"}, mapInput{}, empty...); w != nil || err != nil {
			t.Errorf("%q: %v, %v: want nothing to do", empty, w, err)
		}
	}
}

func TestHalt(t *testing.T) {
	for s, want := range map[string]haltRule{
		"never": {}, "": {}, "1": {on: "fail", count: 1}, "2": {now: true, on: "fail", count: 1},
		"now,fail=3": {now: true, on: "fail", count: 3}, "soon,success=1": {on: "success", count: 1}, "soon,done=20%": {on: "done", percent: 20},
	} {
		got, err := parseHalt(s)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"later,fail=1", "now", "now,fail", "now,fail=0", "now,fail=0%", "now,fail=101%", "soon,fail=x", "now,fail=NaN%", "now,loss=1"} {
		if r, err := parseHalt(s); err == nil {
			t.Errorf("%q is %+v", s, r)
		}
	}
	for _, tc := range []struct {
		rule                haltRule
		failed, done, total uint64
		want                bool
	}{
		{haltRule{}, 5, 5, 5, false},
		{haltRule{on: "fail", count: 2}, 1, 9, 10, false},
		{haltRule{on: "fail", count: 2}, 2, 9, 10, true},
		{haltRule{on: "success", count: 1}, 2, 2, 10, false},
		{haltRule{on: "fail", percent: 10}, 1, 1, 10, false}, // one says nothing
		{haltRule{on: "fail", percent: 10}, 1, 3, 10, true},
		{haltRule{on: "done", percent: 50}, 0, 5, 10, true},
	} {
		if got := tc.rule.met(tc.failed, tc.done, tc.total); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

func TestJobs(t *testing.T) {
	for _, tc := range []struct {
		s           string
		cores, each int
		want        int
	}{{"0", 8, 1, 0}, {"", 8, 1, 0}, {"3", 8, 1, 3}, {"50%", 8, 1, 4}, {"1%", 8, 1, 1}, {"+2", 8, 2, 6}, {"-2", 8, 1, 6}, {"-20", 8, 1, 1}} {
		if got, err := parseJobs(tc.s, tc.cores, tc.each); err != nil || got != tc.want {
			t.Errorf("%+v: %d, %v", tc, got, err)
		}
	}
	for _, s := range []string{"x", "5000", "%", "-1%", "1e9", "NaN%"} {
		if n, err := parseJobs(s, 8, 1); err == nil {
			t.Errorf("%q is %d", s, n)
		}
	}
}

// printerOf returns a printer of n echoes.
func printerOf(t *testing.T, n int) (*mapPrinter, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	list := []string{":::"}
	for i := range n {
		list = append(list, fmt.Sprintf("v%d", i+1))
	}
	w, err := workOf([]string{"echo"}, mapInput{}, list...)
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	return newMapPrinter(w.total, w.show, &out, &errs, t.TempDir()), &out, &errs
}

// block is a block of elements with costs, which all ended with that status.
func block(code int, elements ...uint64) *job.BlockRow {
	b := &job.BlockRow{Attempt: "a", Node: "n1", Costs: &job.Costs{}}
	for _, i := range elements {
		b.Done = append(b.Done, job.Outcome{Range: job.Range{Lo: i, Hi: i + 1}, Success: code == 0, ExitCode: code})
		b.Costs.Attempt = append(b.Costs.Attempt, 1)
		b.Costs.Start = append(b.Costs.Start, int64(1_700_000_000_000_000+i*1000))
		b.Costs.Wall = append(b.Costs.Wall, i*1000)
		b.Costs.CPU = append(b.Costs.CPU, 1)
		b.Costs.RSS = append(b.Costs.RSS, 1)
	}
	return b
}

func give(t *testing.T, p *mapPrinter, b *job.BlockRow) {
	t.Helper()
	if err := p.Ended(b, b.Done, b.Again); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, p *mapPrinter, index uint64, text string) {
	t.Helper()
	if err := p.Output(index, false, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestOutputIsGroupedAndInOrder(t *testing.T) {
	for _, limit := range []int{0, 7, 1 << 20} { // all, some and nothing in the file
		p, out, errs := printerOf(t, 5)
		p.keepOrder, p.outputs.limit = true, limit
		write(t, p, 2, "two")
		write(t, p, 1, "one, ")
		write(t, p, 2, " and two\n")
		if err := p.Output(2, true, []byte("trouble\n")); err != nil {
			t.Fatal(err)
		}
		give(t, p, block(3, 2))
		give(t, p, block(0, 3))
		if out.Len() > 0 {
			t.Errorf("printed %q before the first has ended", out)
		}
		write(t, p, 1, "one\n")
		write(t, p, 5, "five\n")
		give(t, p, block(0, 1))
		if want := "one, one\ntwo and two\n"; out.String() != want || errs.String() != "trouble\n" {
			t.Errorf("printed %q and %q, want %q", out, errs, want)
		}
		give(t, p, block(0, 4, 5))
		if want := "one, one\ntwo and two\nfive\n"; out.String() != want {
			t.Errorf("printed %q, want %q", out, want)
		}
		if p.done != 5 || p.failed != 1 || len(p.outputs.held) != 0 || p.outputs.mem != 0 || p.outputs.out != 0 || len(p.waiting) != 0 {
			t.Errorf("left: %+v, %+v", p.outputs, p.waiting)
		}
		if err := p.finish(); err != nil {
			t.Error(err)
		}
	}
}

func TestOutputOfATryBeforeIsDropped(t *testing.T) {
	p, out, _ := printerOf(t, 2)
	write(t, p, 1, "first try\n")
	give(t, p, &job.BlockRow{Again: []job.Try{{Range: job.Range{Lo: 1, Hi: 2}, Attempt: 2}}})
	write(t, p, 1, "second try\n")
	b := block(0, 1)
	b.Costs.Attempt[0] = 2
	give(t, p, b)
	if out.String() != "second try\n" || p.retried != 1 || p.failed != 0 {
		t.Errorf("printed %q, %d tried again", out, p.retried)
	}
}

func TestMillionEndsInOrderTakeNoMemory(t *testing.T) {
	p, _, _ := printerOf(t, 2)
	p.keepOrder, p.total = true, 1_000_000
	b := block(0, 1)
	b.Done[0].Range, b.Costs = job.Range{Lo: 2, Hi: 1_000_001}, nil
	give(t, p, b)
	if len(p.waiting) > 0 || len(p.silent) > 1_000_000/64+1 {
		t.Errorf("keeps %d ends and %d words", len(p.waiting), len(p.silent))
	}
	give(t, p, block(0, 1))
	if len(p.silent) > 1 || p.next != 1_000_001 {
		t.Errorf("keeps %d words, next is %d", len(p.silent), p.next)
	}
}

func TestHaltIsOrderedOnce(t *testing.T) {
	p, _, _ := printerOf(t, 4)
	orders := make(chan launcher.ArrayOrder, 1)
	p.orders, p.halt = orders, haltRule{on: "fail", count: 2}
	give(t, p, block(7, 1))
	if len(orders) > 0 {
		t.Fatal("one failure ended it")
	}
	give(t, p, block(9, 2, 3))
	if o := <-orders; o != launcher.ArrayStop || p.first != 7 {
		t.Errorf("ordered %v, first status %d", o, p.first)
	}
	give(t, p, block(9, 4))
	if len(orders) > 0 {
		t.Error("ordered twice")
	}
}

func TestTagsAndLabels(t *testing.T) {
	p, out, _ := printerOf(t, 2)
	p.tag = true
	write(t, p, 2, "a\nb")
	write(t, p, 2, "c\n\n")
	give(t, p, block(0, 2))
	if want := "v2\ta\nv2\tbc\nv2\t\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out, want)
	}
}

func TestJoblogAndResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	p, _, _ := printerOf(t, 4)
	p.local = true
	var err error
	if p.log, err = openJoblog(path, false); err != nil {
		t.Fatal(err)
	}
	write(t, p, 2, "12345")
	give(t, p, block(0, 1))
	give(t, p, block(3, 2))
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := joblogHead + "1\t:\t1700000000.001\t     0.001\t0\t0\t0\t0\techo v1\n2\t:\t1700000000.002\t     0.002\t0\t5\t3\t0\techo v2\n"
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Error(d)
	}
	// A line that was being written when the machine went down.
	if err := os.WriteFile(path, append(text, "3\t:\t17"...), 0o600); err != nil {
		t.Fatal(err)
	}
	for again, want := range map[bool][]string{false: {"3 v3", "4 v4"}, true: {"2 v2", "3 v3", "4 v4"}} {
		f := &mapFlags{shell: "/bin/sh", joblog: path, resume: true, again: again}
		w, err := f.work([]string{"echo", "{#}", "{}", ":::", "v1", "v2", "v3", "v4"})
		if err == nil {
			err = f.resumed(w)
		}
		if err != nil {
			t.Fatal(err)
		}
		texts, err := w.table.Compile(1, w.command.argv())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := uint64(1); i <= w.total; i++ {
			got = append(got, strings.Join(texts.Expand(i, 0, nil)[1:], " "))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	if text2, err := os.ReadFile(path); err != nil || !bytes.Equal(text, text2) {
		t.Errorf("the cut line is still there: %q, %v", text2, err)
	}
}

func TestResultNames(t *testing.T) {
	for v, want := range map[string]string{"a b": "1/a b", "a/b": `1/a\_b`, `x\y`: `1/x\\y`, ".": `1/\.`, "..": `1/\..`, "": `1/\0`, "\n": `1/\n`, "../../etc": `1/..\_..\_etc`} {
		if got := resultDir("d", "7", []string{v}); got != "d/"+want {
			t.Errorf("%q is %q, want %q", v, got, "d/"+want)
		}
	}
	if got := resultDir("d", "7", []string{strings.Repeat("x", 300)}); got != "d/seq/7" {
		t.Errorf("a long value is in %q", got)
	}
}

func TestProgressLine(t *testing.T) {
	b := &progress{}
	at := time.Unix(1000, 0)
	b.line(progressState{total: 100}, at)
	var text string
	for i := 1; i <= 20; i++ {
		text = b.line(progressState{total: 100, done: uint64(i), failed: 2, running: 4, retried: 1}, at.Add(time.Duration(i)*time.Second))
	}
	if want := " 20% [####................] 20/100, 4 running, 2 failed, 1 tried again, 0.999/s, 1m21s left"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
}

func FuzzMapText(f *testing.F) {
	for _, s := range []string{"echo {}", "{{}}", "${1}", "{1.}{/}{//}{/.}{#}{%}", "{{1}", "{a}", "{a-b/.}", `"{}" '{}' $(x {})`, "{12345678901234567890}", "{{{}}}", "{_gangway_1}", "$", "`{}`#'{}"} {
		f.Add(s, "v")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if legalValue(value, "") != nil || legalValue(text, "") != nil || strings.IndexByte(value, '\n') >= 0 {
			return
		}
		// What is no placeholder of ours is text for package sweep.
		s := &sweep.Sweep{Axes: []sweep.Axis{{Columns: []sweep.Column{{Values: []string{value}}}}}}
		table, err := s.Table()
		if err != nil {
			t.Fatal(err)
		}
		texts, err := table.Compile(1, []string{escapeBraces(text)})
		if err != nil {
			t.Fatalf("%q: %v", escapeBraces(text), err)
		}
		if got := texts.Expand(1, 0, nil)[0]; got != text {
			t.Fatalf("%q became %q", text, got)
		}
		for _, words := range [][]string{{text}, {"x", text}} {
			c, err := commandOf(words, 1, "/bin/sh", false)
			if err != nil {
				continue
			}
			if _, err := table.Compile(1, c.argv()); err != nil {
				t.Fatalf("%q: %v", c.argv(), err)
			}
		}
	})
}

func FuzzJoblog(f *testing.F) {
	f.Add(joblogHead + "1\t:\t1.0\t 0.1\t0\t0\t0\t0\techo\n2\t:\t1.0\t 0.1\t0\t0\t1\t9\techo\n")
	f.Add("x\n")
	f.Add("1\t2\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := readJoblog(strings.NewReader(text), "log")
		if err != nil && !strings.HasPrefix(err.Error(), "log, line ") {
			t.Fatal(err)
		}
	})
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{"90": 90 * time.Second, "1.5": 1500 * time.Millisecond, "2m": 2 * time.Minute, "50%": -1, "x": -1, "1e99": -1, "NaN": -1, "-1": -1} {
		var s seconds
		if err := s.Set(text); (err != nil) != (want < 0) || err == nil && time.Duration(s) != want {
			t.Errorf("%q is %v, %v; want %v", text, time.Duration(s), err, want)
		}
	}
}
