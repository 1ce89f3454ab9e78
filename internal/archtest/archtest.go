// Package archtest holds the source tree to the architecture: which package may
// import which, what pure packages must not touch, where files for one
// operating system may be. Its test applies the project's own table.
package archtest

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Row is what one package, or a tree of them, may import.
type Row struct {
	Path string // below the module; the longest that fits a package decides
	Why  string // it may
	// Pure packages take time, randomness and everything else as values. A
	// package below a pure one needs a row of its own.
	Pure bool
	// May lists packages of the module: "a/b" is one, "a/..." is a tree with
	// its root, "..." is all.
	May []string
	// External lists modules, or trees of packages, from outside.
	External []string
}

// Rules is an architecture.
type Rules struct {
	Module   string
	Rows     []Row
	TopLevel []string // folders that may be at the root
	OSRooms  []string // trees that may have files for one operating system
}

// Check reads every Go file below root and returns what breaks the rules, sorted.
// Test files are exempt, generated ones from all but the imports.
func Check(root string, r Rules) ([]string, error) {
	c := checker{rules: r, root: root, fset: token.NewFileSet()}
	if err := c.topLevel(); err != nil {
		return nil, err
	}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
			return nil
		}
		return c.file(p)
	})
	if err != nil {
		return nil, err
	}
	c.variables()
	slices.Sort(c.problems)
	return slices.Compact(c.problems), nil
}

type checker struct {
	rules    Rules
	root     string
	fset     *token.FileSet
	problems []string
	vars     []variable                 // of pure packages
	written  map[string]map[string]bool // names assigned to, by package
}

// variable is one at package level.
type variable struct{ pkg, name, where string }

func (c *checker) bad(where, format string, args ...any) {
	c.problems = append(c.problems, where+": "+fmt.Sprintf(format, args...))
}

// topLevel looks at the root's folders: those with a Go file or a page in them,
// so that what is only built or cached does not count.
func (c *checker) topLevel() error {
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || slices.Contains(c.rules.TopLevel, e.Name()) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		err := filepath.WalkDir(filepath.Join(c.root, e.Name()), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if ext := filepath.Ext(p); !d.IsDir() && (ext == ".go" || ext == ".md" || ext == ".sh") {
				c.bad(e.Name(), "is not one of the root's folders: %s", strings.Join(c.rules.TopLevel, " "))
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// file checks one file.
func (c *checker) file(p string) error {
	rel, err := filepath.Rel(c.root, p)
	if err != nil {
		return err
	}
	rel = filepath.ToSlash(rel)
	pkg := path.Dir(rel)
	f, err := parser.ParseFile(c.fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	test := strings.HasSuffix(rel, "_test.go")
	for _, imp := range f.Imports {
		if to, _ := strconv.Unquote(imp.Path.Value); c.inside(to, "cmd") {
			c.bad(rel, "imports %s: nothing imports cmd", to)
		}
	}
	if test {
		return nil
	}
	row, ok := c.row(pkg)
	if !ok {
		c.bad(pkg, "has no row in the table")
		return nil
	}
	for _, imp := range f.Imports {
		to, _ := strconv.Unquote(imp.Path.Value)
		c.imports(rel, pkg, row, to, ast.IsGenerated(f))
	}
	if !within(pkg, c.rules.OSRooms) {
		c.oneSystem(rel, f)
	}
	if ast.IsGenerated(f) {
		return nil
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			c.bad(rel, "has an init function: call it, so that the reader sees when")
		}
	}
	if row.Pure {
		c.pure(rel, pkg, f)
	}
	return nil
}

// row finds the longest row that fits. A pure row fits only its own package.
func (c *checker) row(pkg string) (Row, bool) {
	var best Row
	found := false
	for _, r := range c.rules.Rows {
		if (r.Path == pkg || strings.HasPrefix(pkg, r.Path+"/")) && (!found || len(r.Path) > len(best.Path)) {
			best, found = r, true
		}
	}
	if found && best.Pure && best.Path != pkg {
		return Row{}, false
	}
	return best, found
}

// inside reports whether an import path is in a tree of the module.
func (c *checker) inside(to, tree string) bool {
	t := c.rules.Module + "/" + tree
	return to == t || strings.HasPrefix(to, t+"/")
}

func (c *checker) imports(rel, pkg string, row Row, to string, generated bool) {
	if to == "C" {
		c.bad(rel, "uses cgo")
		return
	}
	if local, ok := strings.CutPrefix(to, c.rules.Module+"/"); ok {
		if local == pkg || matches(local, row.May) {
			return
		}
		c.bad(rel, "imports %s: %s may import %s (%s)", to, row.Path, list(row.May), row.Why)
		return
	}
	if first, _, _ := strings.Cut(to, "/"); strings.Contains(first, ".") {
		if !within(to, row.External) {
			c.bad(rel, "imports %s: %s may import from outside %s (%s)", to, row.Path, list(row.External), row.Why)
		}
		return
	}
	if row.Pure && !within(to, pureStd) && !(generated && (to == "sync" || to == "unsafe")) {
		c.bad(rel, "imports %s: a pure package takes such things as values", to)
	}
}

// pureStd is what pure packages may import of the standard library: trees.
var pureStd = []string{
	"bufio", "bytes", "cmp", "container", "crypto/hmac", "crypto/sha256", "encoding", "errors", "fmt", "hash",
	"io", "iter", "maps", "math/big", "math/bits", "math/cmplx", "math", "net/netip", "path", "reflect", "regexp",
	"slices", "sort", "strconv", "strings", "text", "time", "unicode", "unique",
}

// impure are trees within pureStd that are not for pure packages after all.
var impure = []string{"math/rand", "path/filepath", "io/ioutil"}

// matches reports whether a package of the module is on a list of Row.May.
func matches(local string, may []string) bool {
	for _, m := range may {
		tree, isTree := strings.CutSuffix(m, "...")
		tree = strings.TrimSuffix(tree, "/")
		if local == m || isTree && (tree == "" || local == tree || strings.HasPrefix(local, tree+"/")) {
			return true
		}
	}
	return false
}

// within reports whether p is one of the trees or below one.
func within(p string, trees []string) bool {
	if slices.ContainsFunc(impure, func(t string) bool { return p == t || strings.HasPrefix(p, t+"/") }) {
		return false
	}
	return slices.ContainsFunc(trees, func(t string) bool { return p == t || strings.HasPrefix(p, t+"/") })
}

func list(l []string) string {
	if len(l) == 0 {
		return "nothing"
	}
	return strings.Join(l, ", ")
}

// clock are the functions of package time that read or wait for the clock.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"}

// pure looks for what pure code must not do whatever it imports.
func (c *checker) pure(rel, pkg string, f *ast.File) {
	timeName := ""
	for _, imp := range f.Imports {
		if imp.Path.Value == `"time"` {
			timeName = "time"
			if imp.Name != nil {
				timeName = imp.Name.Name
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		at := func() string { return fmt.Sprintf("%s:%d", rel, c.fset.Position(n.Pos()).Line) }
		switch x := n.(type) {
		case *ast.GoStmt:
			c.bad(at(), "starts a goroutine in a pure package")
		case *ast.ChanType:
			c.bad(at(), "uses a channel in a pure package")
		case *ast.SelectorExpr:
			if id, ok := x.X.(*ast.Ident); ok && timeName != "" && id.Name == timeName && slices.Contains(clock, x.Sel.Name) {
				c.bad(at(), "calls time.%s in a pure package: take the time as a parameter", x.Sel.Name)
			}
		case *ast.AssignStmt:
			if x.Tok != token.DEFINE {
				for _, to := range x.Lhs {
					c.write(pkg, to)
				}
			}
		case *ast.IncDecStmt:
			c.write(pkg, x.X)
		case *ast.UnaryExpr:
			if x.Op == token.AND {
				c.write(pkg, x.X)
			}
		case *ast.CallExpr:
			if id, ok := x.Fun.(*ast.Ident); ok && (id.Name == "print" || id.Name == "println") {
				c.bad(at(), "prints in a pure package")
			}
		}
		return true
	})
	for _, d := range f.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, s := range gen.Specs {
			for _, name := range s.(*ast.ValueSpec).Names {
				where := fmt.Sprintf("%s:%d", rel, c.fset.Position(name.Pos()).Line)
				switch {
				case name.Name == "_" || strings.HasPrefix(strings.ToLower(name.Name), "err"):
				case name.IsExported():
					c.bad(where, "variable %s of a pure package can be changed: make it a constant or a function", name.Name)
				default:
					c.vars = append(c.vars, variable{pkg, name.Name, where})
				}
			}
		}
	}
}

// write notes what an expression assigns to: x, x.f, x[i], *x.
func (c *checker) write(pkg string, to ast.Expr) {
	for {
		switch x := to.(type) {
		case *ast.Ident:
			if c.written == nil {
				c.written = map[string]map[string]bool{}
			}
			if c.written[pkg] == nil {
				c.written[pkg] = map[string]bool{}
			}
			c.written[pkg][x.Name] = true
			return
		case *ast.SelectorExpr:
			to = x.X
		case *ast.IndexExpr:
			to = x.X
		case *ast.StarExpr:
			to = x.X
		case *ast.ParenExpr:
			to = x.X
		default:
			return
		}
	}
}

// variables allows tables that no one writes to. Names are compared without
// their scopes: a local of the same name counts, and should have another.
func (c *checker) variables() {
	for _, v := range c.vars {
		if c.written[v.pkg][v.name] {
			c.bad(v.where, "variable %s of a pure package is written to", v.name)
		}
	}
}

// systems are the names that make a file one of some operating systems only.
var systems = []string{"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux",
	"netbsd", "openbsd", "plan9", "solaris", "unix", "wasip1", "windows"}

// oneSystem refuses files that only some systems compile.
func (c *checker) oneSystem(rel string, f *ast.File) {
	words := strings.Split(strings.TrimSuffix(path.Base(rel), ".go"), "_")
	for _, w := range words[1:] {
		if w != "unix" && slices.Contains(systems, w) {
			c.bad(rel, "is for %s only: such files are in %s", w, strings.Join(c.rules.OSRooms, ", "))
		}
	}
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			break
		}
		for _, line := range group.List {
			if !constraint.IsGoBuild(line.Text) {
				continue
			}
			expr, err := constraint.Parse(line.Text)
			if err != nil {
				c.bad(rel, "has a build line that can't be read: %v", err)
				continue
			}
			expr.Eval(func(tag string) bool {
				if slices.Contains(systems, tag) {
					c.bad(rel, "is built by %s: such files are in %s", tag, strings.Join(c.rules.OSRooms, ", "))
				}
				return false
			})
			// Eval stops at what decides; the other value visits the rest.
			expr.Eval(func(tag string) bool {
				if slices.Contains(systems, tag) {
					c.bad(rel, "is built by %s: such files are in %s", tag, strings.Join(c.rules.OSRooms, ", "))
				}
				return true
			})
		}
	}
}
