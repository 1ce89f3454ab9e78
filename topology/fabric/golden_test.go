package fabric_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gangway/internal/golden"
	"gangway/topology"
	"gangway/topology/fabric"
)

// TestGoldenFabric reads every recorded fabric and counts what is in it a second
// time, with regular expressions in place of a parser.
func TestGoldenFabric(t *testing.T) {
	dir := golden.Dir(t, "fabric")
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range files {
		if e.IsDir() {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			f, err := fabric.Read(bytes.NewReader(text), e.Name())
			lined := regexp.MustCompile(regexp.QuoteMeta(e.Name()) + `:\d+`)
			for _, w := range f.Warnings {
				t.Log(w)
				if !strings.HasPrefix(w, e.Name()+":") {
					t.Errorf("the warning does not name the file: %s", w)
				}
			}
			want, known := recount(string(text))
			if err != nil {
				t.Log(err)
				if !lined.MatchString(err.Error()) && !lined.MatchString(strings.Join(f.Warnings, "\n")) {
					t.Errorf("neither the error nor a warning names a line: %v", err)
				}
				if known && want.Switches > 0 {
					t.Errorf("there are %d switches, but: %v", want.Switches, err)
				}
				return
			}
			checkFabric(t, f)
			if !known {
				return
			}
			got := counts{Switches: len(f.Switches), Ignored: f.Ignored}
			for _, s := range f.Switches {
				if s.Level == 0 {
					got.Leaves++
				}
			}
			for _, h := range f.Hosts {
				got.Hosts = append(got.Hosts, h.Name)
			}
			slices.Sort(got.Hosts)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("counted by hand (-) and read (+):\n%s", d)
			}
			t.Log(fabric.Describe(f).Summary)
		})
	}
}

type counts struct {
	Switches, Leaves, Ignored int
	Hosts                     []string
}

// recount counts an ibnetdiscover output the plain way; it says whether it is one.
func recount(text string) (counts, bool) {
	record := regexp.MustCompile(`(?m)^(Switch|Ca)\s+\d+\s+"([SH])-([0-9a-f]+)"\s+#\s+"(.*)"`)
	link := regexp.MustCompile(`^\[\d+\]\S*\s+"([SH])-([0-9a-f]+)"\[.*#.*?"(.*)"`)
	if !regexp.MustCompile(`(?m)^(# Topology file|vendid=)`).MatchString(text) {
		return counts{}, false
	}
	desc := map[string]string{}
	for _, m := range record.FindAllStringSubmatch(text, -1) {
		if m[2] == "H" {
			desc[m[3]] = m[4]
		}
	}
	switches, linked := map[string]bool{}, map[string]map[string]bool{}
	current := ""
	for line := range strings.Lines(text) {
		if m := record.FindStringSubmatch(line); m != nil {
			current = ""
			if m[2] == "S" {
				current = m[3]
				switches[current] = true
			}
		}
		m := link.FindStringSubmatch(line)
		switch {
		case m == nil:
		case m[1] == "S":
			switches[m[2]] = true
		case current != "":
			if _, ok := desc[m[2]]; !ok {
				desc[m[2]] = m[3]
			}
			if linked[current] == nil {
				linked[current] = map[string]bool{}
			}
			linked[current][m[2]] = true
		}
	}
	c := counts{Switches: len(switches)}
	hosts := map[string]bool{}
	aggregation := map[string]bool{}
	for guid, d := range desc {
		switch {
		case strings.Contains(d, "Aggregation Node"):
			aggregation[guid] = true
			c.Ignored++
		case strings.Contains(d, "Mellanox Technologies"), d == "", regexp.MustCompile(`^(0x)?[0-9a-f]{16}$`).MatchString(d):
		default:
			hosts[strings.Fields(d)[0]] = true
		}
	}
	for _, l := range linked {
		for guid := range l {
			if !aggregation[guid] {
				c.Leaves++
				break
			}
		}
	}
	for h := range hosts {
		c.Hosts = append(c.Hosts, h)
	}
	slices.Sort(c.Hosts)
	return c, true
}

// checkFabric holds what is so of every fabric that was read.
func checkFabric(t *testing.T, f topology.Fabric) {
	t.Helper()
	level := map[string]int{}
	stated := false
	for _, s := range f.Switches {
		if _, ok := level[s.Name]; ok {
			t.Errorf("two switches are called %s", s.Name)
		}
		level[s.Name] = s.Level
		stated = stated || s.Parent != ""
	}
	leaf := map[string]bool{}
	placed := map[string]bool{}
	for _, h := range f.Hosts {
		if h.Name == "" {
			t.Error("a host without a name")
		}
		for _, p := range h.Ports {
			leaf[p.Switch] = true
			placed[h.Name] = true
			if _, ok := level[p.Switch]; !ok {
				t.Errorf("%s has a port on %s, which is no switch", h.Name, p.Switch)
			}
		}
	}
	for _, p := range f.Unnamed {
		leaf[p.Switch] = true
	}
	back := map[[2]string]int{}
	for _, s := range f.Switches {
		for _, l := range s.Links {
			back[[2]string{s.Name, l.To}] += l.Count
		}
	}
	for _, s := range f.Switches {
		if !stated && leaf[s.Name] != (s.Level == 0) {
			t.Errorf("%s has a host's port: %v, and level %d", s.Name, leaf[s.Name], s.Level)
		}
		below := s.Level <= 0
		for _, l := range s.Links {
			if back[[2]string{s.Name, l.To}] != back[[2]string{l.To, s.Name}] {
				t.Errorf("%s and %s have different counts of links", s.Name, l.To)
			}
			below = below || level[l.To] == s.Level-1
			if d := s.Level - level[l.To]; !stated && (d < -1 || d > 1) {
				t.Errorf("%s of level %d is linked to %s of level %d", s.Name, s.Level, l.To, level[l.To])
			}
		}
		if !below {
			t.Errorf("%s of level %d has nothing below it", s.Name, s.Level)
		}
	}
	if len(f.Blocks) > 0 {
		clear(placed)
	}
	for _, b := range f.Blocks {
		for _, h := range b.Hosts {
			placed[h] = true
		}
	}
	checkDomain(t, f.Domains(), placed)
	if len(placed) > 0 {
		t.Errorf("%d hosts are in no domain", len(placed))
	}
	checkWriters(t, f)
}

// checkDomain strikes out the domain's hosts in placed.
func checkDomain(t *testing.T, d topology.Domain, placed map[string]bool) {
	t.Helper()
	if len(d.Hosts) > 0 && (len(d.Children) > 0 || d.Level != 0) {
		t.Errorf("domain %s has hosts, level %d and %d children", d.Name, d.Level, len(d.Children))
	}
	for _, h := range d.Hosts {
		if !placed[h] {
			t.Errorf("%s is in two domains, or in one by mistake", h)
		}
		delete(placed, h)
	}
	for _, c := range d.Children {
		if c.Level >= d.Level {
			t.Errorf("domain %s of level %d is below %s of level %d", c.Name, c.Level, d.Name, d.Level)
		}
		checkDomain(t, c, placed)
	}
}

// checkWriters writes the fabric in every format and reads it again.
func checkWriters(t *testing.T, f topology.Fabric) {
	t.Helper()
	var b bytes.Buffer
	if err := fabric.WriteYAML(&b, f); err != nil {
		t.Fatal(err)
	}
	again, err := fabric.Read(bytes.NewReader(b.Bytes()), "again")
	if err != nil {
		t.Fatalf("our own YAML: %v\n%s", err, clipText(b.String()))
	}
	if d := cmp.Diff(f, again, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("written (-) and read (+):\n%s", d)
	}
	b.Reset()
	d := fabric.Describe(f)
	if err := fabric.WriteSVG(&b, d); err != nil {
		t.Error(err)
	}
	for x := xml.NewDecoder(bytes.NewReader(b.Bytes())); ; {
		if _, err := x.Token(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("the picture is no XML: %v", err)
			}
			break
		}
	}
	if err := fabric.Render(io.Discard, d); err != nil {
		t.Error(err)
	}
	if d.Summary.Sets == 0 {
		return
	}
	for name, write := range map[string]func(io.Writer, topology.Fabric) error{"tree": fabric.WriteSlurmTree, "block": fabric.WriteSlurmBlocks} {
		b.Reset()
		if err := write(&b, f); err != nil {
			t.Error(err)
		}
		exported, err := fabric.Read(bytes.NewReader(b.Bytes()), "topology.conf")
		if err != nil || len(exported.Warnings) > 0 {
			t.Fatalf("the exported %s: %v, %q\n%s", name, err, exported.Warnings, clipText(b.String()))
		}
		if got, want := shape(exported.Domains()), shape(f.Domains()); name == "tree" && got != want {
			t.Errorf("the exported tree has the shape\n%s\nin place of\n%s", got, want)
		}
		if got := fabric.Describe(exported).Summary; got.Sets != d.Summary.Sets {
			t.Errorf("the exported %s has %d leaf sets in place of %d", name, got.Sets, d.Summary.Sets)
		}
	}
}

// shape is a tree of domains by the sizes of its leaf sets.
func shape(d topology.Domain) string {
	if len(d.Children) == 0 {
		return fmt.Sprint(len(d.Hosts))
	}
	var parts []string
	for _, c := range d.Children {
		parts = append(parts, shape(c))
	}
	slices.Sort(parts)
	return "(" + strings.Join(parts, " ") + ")"
}

func clipText(s string) string { return s[:min(len(s), 2000)] }
