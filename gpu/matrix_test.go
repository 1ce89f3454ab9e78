package gpu

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"gangway/internal/golden"
	"gangway/topology"
)

func readMatrix(t testing.TB, text string) Matrix {
	t.Helper()
	m, err := ReadMatrix(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return m
}

// TestGoldenMatrix reads every recorded matrix, and what can happen to it on
// its way from a terminal to a file.
func TestGoldenMatrix(t *testing.T) {
	for _, file := range golden.Files(t, "gpu-topo", "*.txt") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m, err := ReadMatrix(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			text := string(b)
			for _, l := range legendLine.FindAllStringSubmatch(text, -1) {
				if !slices.ContainsFunc(m.Devices, func(d topology.MatrixDevice) bool { return d.NIC && d.Name == l[2] }) {
					t.Errorf("%s of the legend is not in the matrix", l[2])
				}
			}
			checkMatrix(t, m)
			for i := range m.Devices {
				for j := range m.Devices {
					if m.Classes[i][j] == "" {
						t.Errorf("%s to %s is unknown", m.Devices[i].Name, m.Devices[j].Name)
					}
				}
			}
			if len(m.Warnings) > 0 {
				t.Errorf("warnings: %q", m.Warnings)
			}
			again(t, m)
			for name, change := range variants() {
				t.Run(name, func(t *testing.T) {
					changed := change(text)
					got := readMatrix(t, changed)
					if d := cmp.Diff(m.DistanceMatrix, got.DistanceMatrix); d != "" {
						t.Errorf("recorded (-) and changed (+):\n%s\n%s\nwarnings %q", d, changed, got.Warnings)
					}
				})
			}
			for n := 0; n < len(text); n += 97 {
				got, err := ReadMatrix(strings.NewReader(text[:n]))
				if err != nil {
					continue
				}
				checkMatrix(t, got)
				legend := strings.Contains(text[:n], "NIC Legend") || !strings.Contains(text, "NIC Legend")
				for i, d := range got.Devices {
					for j, e := range got.Devices {
						c := got.Classes[i][j]
						if legend && c != "" && m.Distance(d.Name, e.Name) != "" && c != m.Distance(d.Name, e.Name) && n > strings.Index(text, "Legend") {
							t.Errorf("cut at %d: %s to %s is %s", n, d.Name, e.Name, c)
						}
					}
				}
				// All rows are there, or a warning says that they are not.
				if n < strings.Index(text, "Legend")-100 && len(got.Warnings) == 0 {
					t.Errorf("cut at %d: no warning", n)
				}
			}
		})
	}
}

var legendLine = regexp.MustCompile(`(?m)^\s+(NIC\d+): (\S+)`)

// again prints the matrix and reads it back.
func again(t *testing.T, m Matrix) {
	t.Helper()
	var b strings.Builder
	if err := topology.RenderMatrix(&b, m.DistanceMatrix); err != nil {
		t.Fatal(err)
	}
	got := readMatrix(t, b.String())
	if d := cmp.Diff(m.DistanceMatrix, got.DistanceMatrix, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("before (-) and after printing (+):\n%s\n%s", d, b.String())
	}
}

func checkMatrix(t testing.TB, m Matrix) {
	t.Helper()
	if len(m.Classes) != len(m.Devices) || len(m.Devices) == 0 {
		t.Fatalf("%d rows for %d devices", len(m.Classes), len(m.Devices))
	}
	names := map[string]bool{}
	for i, d := range m.Devices {
		if names[d.Name] || d.Name == "" {
			t.Errorf("two devices are called %q", d.Name)
		}
		names[d.Name] = true
		if len(m.Classes[i]) != len(m.Devices) {
			t.Fatalf("row %d has %d columns of %d", i, len(m.Classes[i]), len(m.Devices))
		}
		for j := range m.Devices {
			c := m.Classes[i][j]
			if c != m.Classes[j][i] || (c == topology.ClassSelf) != (i == j) {
				t.Errorf("%s to %s is %q, back %q", d.Name, m.Devices[j].Name, c, m.Classes[j][i])
			}
		}
	}
}

// table parts a recorded text into header, rows and legends.
func table(text string) (header string, rows []string, rest string) {
	body, rest, ok := strings.Cut(text, "\n\nLegend")
	if ok {
		rest = "\n\nLegend" + rest
	}
	lines := strings.Split(strings.Trim(body, "\n"), "\n")
	first := slices.IndexFunc(lines, func(l string) bool { return len(labels(l)) > 0 }) // below the command, or nothing
	return lines[max(first, 0)], lines[max(first, 0)+1:], rest
}

func rebuild(header string, rows []string, rest string) string {
	return header + "\n" + strings.Join(rows, "\n") + rest
}

// fold breaks lines as a terminal of that width does.
func fold(text string, width int) string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		line = expandTabs(line)
		for len(line) > width {
			out, line = append(out, line[:width]), line[width:]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// foldWords breaks lines between words.
func foldWords(text string, width int) string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		line = expandTabs(line)
		for len(line) > width {
			at := strings.LastIndexByte(line[:width], ' ')
			if at <= 0 {
				break
			}
			out, line = append(out, strings.TrimRight(line[:at], " ")), line[at+1:]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func onTable(f func(string) string) func(string) string {
	return func(text string) string {
		header, rows, rest := table(text)
		return f(rebuild(header, rows, "")) + rest
	}
}

// variants are what happens to a matrix; none may change what it says.
func variants() map[string]func(string) string {
	random := func() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
	out := map[string]func(string) string{
		"rows shuffled": func(s string) string {
			header, rows, rest := table(s)
			random().Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
			return rebuild(header, rows, rest)
		},
		"columns reversed": func(s string) string {
			header, rows, rest := table(s)
			columns := len(labels(header))
			flip := func(line string) string {
				f := strings.Split(line, "\t")
				if len(f) > columns {
					slices.Reverse(f[1 : columns+1])
				}
				return strings.Join(f, "\t")
			}
			for i := range rows {
				rows[i] = flip(rows[i])
			}
			return rebuild(flip(header), rows, rest)
		},
		"underlined header": func(s string) string {
			header, rows, rest := table(s)
			return rebuild("\t\x1b[4m"+strings.TrimPrefix(header, "\t")+"\x1b[0m", rows, rest)
		},
		"coloured classes": func(s string) string {
			return strings.NewReplacer("PIX", "\x1b[1;32mPIX\x1b[0m", "SYS", "\x1b[31mSYS\x1b[39;49m", "NV18", "\x1b]0;title\x07\x1b(BNV18").Replace(s)
		},
		"escapes in letters": func(s string) string {
			return strings.NewReplacer("\tGPU0", "\t\\u001b[4mGPU0", " X ", "^[[1m X ^[[0m", "NODE", "[33mNODE[0m").Replace(s)
		},
		"CRLF":   func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"blanks": func(s string) string { return onTable(expandTabs)(s) },
		"no tabs left": func(s string) string {
			return strings.Join(strings.SplitAfter(strings.ReplaceAll(s, "\t", "  "), "\n"), "")
		},
		"indented":     func(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") },
		"non-breaking": func(s string) string { return strings.ReplaceAll(expandTabs(s), " ", "\u00a0") },
		"preamble":     func(s string) string { return "Note: GPU0 detected\nGPU 0: NVIDIA H200 (UUID: GPU-0)\nGPU0\n" + s },
		"GPU0 A100 before it": func(s string) string {
			return "GPU0 A100\n" + s
		},
		"GPU0 A100 and the command before it": func(s string) string {
			return "GPU0 A100\n$ nvidia-smi topo -m\n" + s
		},
		"blank lines": onTable(func(s string) string { return "\n\n" + strings.ReplaceAll(s, "\n", "\n\n") }),
		"labels run together": func(s string) string {
			header, rows, rest := table(s)
			l := labels(header)
			k := len(l) - 2
			if k < 0 {
				return s
			}
			return rebuild(strings.Replace(header, l[k]+"\t"+l[k+1], l[k]+l[k+1], 1), rows, rest)
		},
		"classes run together": onTable(func(s string) string {
			return strings.NewReplacer("NODE\tNODE", "NODENODE", "SYS\tSYS", "SYSSYS", "NV18\tNV18", "NV18NV18").Replace(s)
		}),
		"one row lost": func(s string) string {
			header, rows, rest := table(s)
			k := slices.IndexFunc(rows, func(r string) bool { return strings.HasPrefix(r, "NIC") })
			if k < 0 {
				return s
			}
			return rebuild(header, slices.Delete(rows, k, k+1), rest)
		},
		"header lost": func(s string) string {
			_, rows, rest := table(s)
			return strings.Join(rows, "\n") + rest
		},
		"row twice": func(s string) string {
			header, rows, rest := table(s)
			return rebuild(header, append(rows, rows[0]), rest)
		},
		"old: adapters head columns": func(s string) string {
			header, rows, rest := table(s)
			for _, l := range legendLine.FindAllStringSubmatch(rest, -1) {
				header = regexp.MustCompile(`\b`+l[1]+`\b`).ReplaceAllString(header, l[2])
				for i := range rows {
					rows[i] = regexp.MustCompile(`^`+l[1]+`\b`).ReplaceAllString(rows[i], l[2])
				}
			}
			rest, _, _ = strings.Cut(rest, "\nNIC Legend")
			return rebuild(header, rows, rest)
		},
		"rows have the adapters' names": func(s string) string {
			header, rows, rest := table(s)
			for _, l := range legendLine.FindAllStringSubmatch(rest, -1) {
				for i := range rows {
					rows[i] = regexp.MustCompile(`^`+l[1]+`\b`).ReplaceAllString(rows[i], l[2])
				}
			}
			return rebuild(header, rows, rest)
		},
		"legend on one line": func(s string) string {
			before, legend, ok := strings.Cut(s, "NIC Legend:")
			if !ok {
				return s
			}
			return before + "NIC Legend: " + strings.Join(strings.Fields(legend), " ")
		},
	}
	for _, width := range []int{40, 72, 80, 100, 132, 160} {
		out[fmt.Sprintf("terminal of %d", width)] = onTable(func(s string) string { return fold(s, width) })
		out[fmt.Sprintf("words to %d", width)] = onTable(func(s string) string { return foldWords(s, width) })
		out[fmt.Sprintf("terminal of %d, blanks at the end lost", width)] = onTable(func(s string) string {
			return regexp.MustCompile(`(?m) +$`).ReplaceAllString(fold(s, width), "")
		})
	}
	return out
}

func TestReadMatrix(t *testing.T) {
	for name, test := range map[string]struct {
		text    string
		classes string // rows, parted by blanks
		names   string
		warn    string // part of a warning; "": none
	}{
		"one GPU": {"\tGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\nGPU0\t X \t0-7\t\tN/A\t\tN/A\n", "X", "GPU0", ""},
		"before NODE": {"\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tSOC\t0-7\nGPU1\tSOC\t X \t8-15\n",
			"X,SYS SYS,X", "GPU0 GPU1", ""},
		"not available": {"\tGPU0\tGPU1\nGPU0\t X \tN/A\nGPU1\tN/A\t X \n", "X, ,X", "GPU0 GPU1", ""},
		"contradiction": {"\tGPU0\tGPU1\nGPU0\t X \tPIX\nGPU1\tSYS\t X \n", "X,SYS SYS,X", "GPU0 GPU1", "PIX in one row, SYS in the other"},
		"unknown class": {"\tGPU0\tGPU1\nGPU0\t X \tFOO\nGPU1\tNV4\t X \n", "X,NV4 NV4,X", "GPU0 GPU1", `found "FOO"`},
		"wrong label":   {"\tGPU0\tGPU1\nGPU0\tPIX\t X \nGPU1\t X \tPIX\n", "X, ,X", "GPU0 GPU1", "wrong label"},
		"row without a column": {"\tGPU0\nGPU0\t X \nNIC0\tPIX\n\nLegend:\n\nNIC Legend:\n  NIC0: mlx5_3\n",
			"X,PIX PIX,X", "GPU0 mlx5_3", "no column"},
		"legend names one twice": {"\tNIC0\tNIC1\nNIC0\t X \tPIX\nNIC1\tPIX\t X \nNIC Legend:\n NIC0: mlx5_0\n NIC1: mlx5_0\n",
			"X,PIX PIX,X", "NIC0 NIC1", "the legend is not used"},
		"numbers":    {"\tGPU10\tGPU2\nGPU10\t X \tPHB\nGPU2\tPHB\t X \n", "X,PHB PHB,X", "GPU2 GPU10", ""},
		"only NICs":  {"\tNIC0\tCPU Affinity\nNIC0\t X \t0-3\t0\n", "X", "NIC0", ""},
		"cut header": {"\tGPU0\tGPU1\tCPU Affi", "X, ,X", "GPU0 GPU1", "has no row"},
	} {
		t.Run(name, func(t *testing.T) {
			m := readMatrix(t, test.text)
			var rows, names []string
			for i, d := range m.Devices {
				var row []string
				for _, c := range m.Classes[i] {
					row = append(row, string(c))
				}
				rows, names = append(rows, strings.Join(row, ",")), append(names, d.Name)
			}
			if got := strings.Join(rows, " "); got != test.classes {
				t.Errorf("classes %q, want %q", got, test.classes)
			}
			if got := strings.Join(names, " "); got != test.names {
				t.Errorf("names %q, want %q", got, test.names)
			}
			got := strings.Join(m.Warnings, "; ")
			if test.warn == "" && got != "" || !strings.Contains(got, test.warn) {
				t.Errorf("warnings %q, want %q", got, test.warn)
			}
			checkMatrix(t, m)
		})
	}
	for _, text := range []string{"", "\n\n", "no devices were found\n", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
		"\tGPU0\tGPU1\t\nGPU0\tOK\tOK\nGPU0 is lost"} {
		if _, err := ReadMatrix(strings.NewReader(text)); err == nil && !strings.Contains(text, "GPU0") {
			t.Errorf("no error for %q", text)
		}
	}
	if m := readMatrix(t, "\tGPU0\nGPU0\t X \t0-7\t1\t\t250\n"); m.Devices[0].GPUNUMA == nil || *m.Devices[0].GPUNUMA != 250 || m.Devices[0].NUMA.String() != "1" {
		t.Errorf("affinities: %+v", m.Devices[0])
	}
}

// TestMatrixRoundTrip: any matrix that is printed reads back the same.
func TestMatrixRoundTrip(t *testing.T) {
	class := rapid.SampledFrom([]topology.Class{"", "NV1", "NV18", "PIX", "PXB", "PHB", "NODE", "SYS"})
	rapid.Check(t, func(r *rapid.T) {
		var m topology.DistanceMatrix
		set := func(label string) topology.CPUSet {
			return topology.NewCPUSet(rapid.SliceOfN(rapid.IntRange(0, 300), 0, 20).Draw(r, label)...)
		}
		gpus, nics := rapid.IntRange(0, 16).Draw(r, "gpus"), rapid.IntRange(0, 32).Draw(r, "nics")
		for i := range gpus {
			d := topology.MatrixDevice{Name: fmt.Sprintf("GPU%d", i), CPUs: set("cpus"), NUMA: set("numa")}
			if rapid.Bool().Draw(r, "memory") {
				node := rapid.IntRange(0, 300).Draw(r, "node")
				d.GPUNUMA = &node
			}
			m.Devices = append(m.Devices, d)
		}
		for i := range nics {
			m.Devices = append(m.Devices, topology.MatrixDevice{Name: fmt.Sprintf("mlx5_%d", i*7%97), NIC: true, CPUs: set("cpus"), NUMA: set("numa")})
		}
		if len(m.Devices) == 0 {
			return
		}
		for range m.Devices {
			m.Classes = append(m.Classes, make([]topology.Class, len(m.Devices)))
		}
		for i := range m.Devices {
			m.Classes[i][i] = topology.ClassSelf
			for j := range i {
				m.Classes[i][j] = class.Draw(r, "class")
				m.Classes[j][i] = m.Classes[i][j]
			}
		}
		var b strings.Builder
		if err := topology.RenderMatrix(&b, m); err != nil {
			r.Fatal(err)
		}
		got, err := ReadMatrix(strings.NewReader(b.String()))
		if err != nil || len(got.Warnings) > 0 {
			r.Fatalf("%v %q\n%s", err, got.Warnings, b.String())
		}
		if d := cmp.Diff(m, got.DistanceMatrix, cmpopts.EquateEmpty()); d != "" {
			r.Fatalf("%s\n%s", d, b.String())
		}
	})
}

func FuzzMatrix(f *testing.F) {
	f.Add("\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tNV18\tPIX\t0-7\t0\nGPU1\tNV18\t X \tSYS\t8-15\t1\nNIC0\tPIX\tSYS\t X \n\nLegend:\n\nNIC Legend:\n\n  NIC0: mlx5_1\n")
	f.Add("\x1b[4mGPU0\x1b[0m GPU1NIC28NIC29\nGPU0 XNV18\nPIX PIX\n")
	f.Add("GPU0 X PIX\nGPU1 PIX X\n")
	f.Add("\tmlx5_0\tGPU00\nGPU0\tN/A\tX\t0-\n7\t,\t9-1")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ReadMatrix(strings.NewReader(s))
		if err != nil {
			return
		}
		checkMatrix(t, m)
		for _, l := range m.Links() {
			if l.Class == "" || l.A == l.B {
				t.Errorf("%+v", l)
			}
		}
	})
}
