package archtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = up
	}
}

// TestGangway holds this source tree to its architecture.
func TestGangway(t *testing.T) {
	problems, err := Check(moduleRoot(t), gangway())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// TestLauncherAndAgentMeetInWire looks at the table itself: no row may let the
// two sides of the wire meet elsewhere.
func TestLauncherAndAgentMeetInWire(t *testing.T) {
	for _, r := range gangway().Rows {
		for _, m := range r.May {
			tree := strings.TrimSuffix(m, "/...")
			if strings.HasPrefix(r.Path, "launcher") && strings.HasPrefix(tree, "nodeagent") && !strings.HasPrefix(tree, "nodeagent/wire") ||
				strings.HasPrefix(r.Path, "nodeagent") && strings.HasPrefix(tree, "launcher") {
				t.Errorf("row %s may import %s", r.Path, m)
			}
		}
		if r.Why == "" {
			t.Errorf("row %s gives no reason", r.Path)
		}
		if r.Pure {
			for _, m := range r.May {
				if strings.HasSuffix(m, "...") {
					t.Errorf("pure row %s may import a tree", r.Path)
				}
			}
		}
	}
}

// TestPage compares the table with the one people read.
func TestPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(moduleRoot(t), "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal("ARCHITECTURE.md can't be read: ", err)
	}
	pure := map[string]bool{}
	for _, r := range gangway().Rows {
		pure[r.Path] = r.Pure
	}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`") {
			continue
		}
		name, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(cells[1]), "`"), "`")
		name = strings.TrimSuffix(name, "/…")
		if strings.HasPrefix(name, "cmd/") {
			name = "cmd"
		}
		isPure, ok := pure[name]
		if !ok {
			t.Errorf("ARCHITECTURE.md has a row for %s, the test has none", name)
		} else if isPure != strings.Contains(rest, "**P**") {
			t.Errorf("%s is pure: %t in the test, ARCHITECTURE.md says otherwise", name, isPure)
		}
	}
}

// TestCheckFails makes sure that every rule can be broken.
func TestCheckFails(t *testing.T) {
	rules := Rules{
		Module:   "m",
		TopLevel: []string{"pure", "free", "cmd", "rooms"},
		OSRooms:  []string{"rooms"},
		Rows: []Row{
			{Path: "pure", Pure: true, Why: "w"},
			{Path: "pure/child", Why: "w", May: []string{"pure"}},
			{Path: "free", Why: "w", May: []string{"pure"}, External: []string{"ok.org/a"}},
			{Path: "free/tree", Why: "w", May: []string{"free/..."}},
			{Path: "rooms", Why: "w"},
			{Path: "cmd", Why: "w", May: []string{"..."}},
		},
	}
	pure := func(body string) string { return "package pure\n" + body }
	cases := []struct {
		name  string
		files map[string]string
		want  []string // substrings, one a problem
	}{
		{"clean", map[string]string{
			"pure/a.go":          pure("import (\"fmt\"; \"time\"; \"net/netip\"; \"io\")\nvar ErrX = fmt.Errorf(\"x\")\nfunc F(t time.Time, _ netip.Addr, _ io.Reader) time.Duration { return t.Sub(t) }"),
			"pure/a_test.go":     pure("import (\"os\"; \"time\")\nvar x = time.Now()\nvar y = os.Args"),
			"pure/child/c.go":    "package child\nimport _ \"os\"\nimport _ \"m/pure\"",
			"free/f.go":          "package free\nimport _ \"m/pure\"\nimport _ \"ok.org/a/b\"\nimport _ \"os\"",
			"free/tree/t.go":     "package tree\nimport _ \"m/free\"\nimport _ \"m/free/tree/u\"",
			"free/tree/u/u.go":   "package u",
			"cmd/x/main.go":      "package main\nimport _ \"m/free/tree\"",
			"rooms/a_linux.go":   "package rooms",
			"rooms/b.go":         "//go:build windows\n\npackage rooms",
			"bin/tool":           "binary",
			"free/testdata/x.go": "package broken import",
		}, nil},
		{"clock", map[string]string{"pure/a.go": pure("import \"time\"\nfunc F() time.Time { return time.Now() }")}, []string{"pure/a.go:3: calls time.Now"}},
		{"clock under another name", map[string]string{"pure/a.go": pure("import tm \"time\"\nfunc F() { tm.Sleep(1) }")}, []string{"calls time.Sleep"}},
		{"randomness", map[string]string{"pure/a.go": pure("import _ \"math/rand/v2\"\nimport _ \"crypto/rand\"")}, []string{"imports crypto/rand", "imports math/rand/v2"}},
		{"input and output", map[string]string{"pure/a.go": pure("import _ \"os\"\nimport _ \"net\"\nimport _ \"log/slog\"\nimport _ \"path/filepath\"\nimport _ \"sync\"")},
			[]string{"imports log/slog", "imports net:", "imports os", "imports path/filepath", "imports sync"}},
		{"goroutine", map[string]string{"pure/a.go": pure("func F() { go F() }")}, []string{"starts a goroutine"}},
		{"channel", map[string]string{"pure/a.go": pure("func F(c chan int) {}")}, []string{"uses a channel"}},
		{"print", map[string]string{"pure/a.go": pure("func F() { println(1) }")}, []string{"prints"}},
		{"exported variable", map[string]string{"pure/a.go": pure("var Table = []int{1}")}, []string{"variable Table"}},
		{"table", map[string]string{"pure/a.go": pure("var table = []int{1}\nfunc F() int { x := table[0]; return x }")}, nil},
		{"written from another file", map[string]string{
			"pure/a.go": pure("var cache = map[string]int{}\nvar n int\nvar p int"),
			"pure/b.go": pure("func F() *int { cache[\"x\"] = 1; n++; return &p }"),
		}, []string{"variable cache", "variable n", "variable p"}},
		{"pure imports more than its row", map[string]string{"pure/a.go": pure("import _ \"m/free\"")}, []string{"imports m/free: pure may import nothing"}},
		{"pure imports from outside", map[string]string{"pure/a.go": pure("import _ \"ok.org/a\"")}, []string{"imports ok.org/a: pure may import from outside nothing"}},
		{"child of a pure package without a row", map[string]string{"pure/other/a.go": "package other"}, []string{"pure/other: has no row"}},
		{"no row", map[string]string{"rooms/a.go": "package rooms", "free/f.go": "package free", "x.go": "package x"}, []string{".: has no row"}},
		{"longest row wins", map[string]string{"pure/child/c.go": "package child\nimport _ \"m/free\""}, []string{"pure/child may import pure (w)"}},
		{"not its tree", map[string]string{"free/f.go": "package free\nimport _ \"m/free/tree\""}, []string{"free may import pure (w)"}},
		{"a name is not a tree", map[string]string{"free/f.go": "package free\nimport _ \"m/pure/child\"\nimport _ \"ok.org/ab\""}, []string{"imports m/pure/child", "imports ok.org/ab"}},
		{"cmd", map[string]string{"free/f_test.go": "package free\nimport _ \"m/cmd/x\""}, []string{"nothing imports cmd"}},
		{"init", map[string]string{"free/f.go": "package free\nfunc init() {}"}, []string{"init function"}},
		{"method named init", map[string]string{"free/f.go": "package free\ntype t int\nfunc (t) init() {}"}, nil},
		{"generated", map[string]string{"pure/g.go": "// Code generated by x. DO NOT EDIT.\n\npackage pure\nvar x int\nfunc init() {}\n"}, nil},
		{"generated, import", map[string]string{"pure/g.go": "// Code generated by x. DO NOT EDIT.\n\npackage pure\nimport _ \"os\"\n"}, []string{"imports os"}},
		{"file of one system by name", map[string]string{"free/f_windows_amd64.go": "package free"}, []string{"is for windows only"}},
		{"file of one system by tag", map[string]string{"free/f.go": "//go:build !race && (unix || !linux)\n\npackage free"}, []string{"is built by linux", "is built by unix"}},
		{"other tags", map[string]string{"free/f.go": "//go:build !race && amd64\n\npackage free"}, nil},
		{"folder", map[string]string{"util/u.md": "notes"}, []string{"util: is not one of the root's folders"}},
		{"cgo", map[string]string{"free/f.go": "package free\nimport \"C\""}, []string{"uses cgo"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range c.files {
				p := filepath.Join(root, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Check(root, rules)
			if err != nil {
				t.Fatal(err)
			}
			ok := len(got) == len(c.want)
			for i := range min(len(got), len(c.want)) {
				ok = ok && strings.Contains(got[i], c.want[i])
			}
			if !ok {
				t.Errorf("problems (-want substrings +got):\n%s", cmp.Diff(c.want, got))
			}
		})
	}
	if _, err := Check(filepath.Join(t.TempDir(), "none"), rules); err == nil {
		t.Error("no error for a tree that is not there")
	}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "x.go"), []byte("package"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(broken, rules); err == nil {
		t.Error("no error for a file that is no Go")
	}
}
