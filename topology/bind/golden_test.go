package bind_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/internal/golden"
	"gangway/topology/bind"
	"gangway/topology/probe"
)

// mpibindCase is one case of a file expected.NAME: parameters and, a task each,
// threads, cpus and GPUs.
type mpibindCase struct {
	NTasks       int     `json:"ntasks"`
	Threads      int     `json:"in_nthreads"`
	Greedy       int     `json:"greedy"`
	GPUOptim     int     `json:"gpu_optim"`
	SMT          int     `json:"smt"`
	RestrictSet  *string `json:"restr_set"`
	RestrictType int     `json:"restrict_type"` // 0 cpus, 1 NUMA nodes

	name string
	want [3]string
}

func readMpibind(t *testing.T, file string) []mpibindCase {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []mpibindCase
	var open *mpibindCase
	row := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if params, ok := strings.CutPrefix(line, "#"); ok {
			if !strings.HasPrefix(strings.TrimSpace(params), `{"params"`) {
				continue
			}
			var c struct{ Params mpibindCase }
			if err := json.Unmarshal([]byte(params), &c); err != nil {
				t.Fatalf("%s: %q: %v", file, line, err)
			}
			out = append(out, c.Params)
			open, row = &out[len(out)-1], 0
			continue
		}
		if line == "" || open == nil {
			continue
		}
		if row == 0 {
			open.name = line
		} else if row <= 3 {
			open.want[row-1] = strings.Trim(line, `"`)
		}
		row++
	}
	return out
}

// TestGoldenMpibind compares mode auto with the maps that mpibind publishes for
// machines of hwloc-xml: NAME-hwloc1.xml, or what begins with NAME.
func TestGoldenMpibind(t *testing.T) {
	expected, err := filepath.Glob(filepath.Join(golden.Dir(t, "mpibind"), "expected.*"))
	if err != nil {
		t.Fatal(err)
	}
	machines := golden.Dir(t, "hwloc-xml")
	checked := 0
	for _, file := range expected {
		name := strings.TrimPrefix(filepath.Base(file), "expected.")
		var dumps []string
		for _, pattern := range []string{name + "-hwloc1.xml", name + ".xml", name + "*.xml"} {
			found, _ := filepath.Glob(filepath.Join(machines, pattern))
			if len(found) > 0 && (len(dumps) == 0 || !strings.Contains(pattern, "*")) {
				dumps = append(dumps, found[0])
			}
		}
		if len(dumps) == 0 {
			t.Logf("no machine for %s", file)
		}
		for _, dump := range dumps {
			f, err := os.Open(dump)
			if err != nil {
				t.Fatal(err)
			}
			n, err := probe.ReadHwlocXML(f)
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range readMpibind(t, file) {
				checked++
				t.Run(filepath.Base(dump)+"/"+c.name, func(t *testing.T) {
					r := bind.Request{Node: n, Granted: n.Allowed, Ranks: c.NTasks, Threads: c.Threads, SMT: c.SMT, NoGreedy: c.Greedy == 0}
					if c.GPUOptim == 0 {
						r.Optimize = bind.ByCPU
					}
					if c.RestrictSet != nil && c.RestrictType == 0 {
						r.Granted = set(t, *c.RestrictSet)
					} else if c.RestrictSet != nil {
						r.Mems = set(t, *c.RestrictSet)
					}
					places, err := bind.Map(r)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(c.want, rows(places)); diff != "" {
						t.Errorf("(-want +got):\n%s", diff)
					}
				})
			}
		}
	}
	t.Logf("%d cases", checked)
}

// rows are places in the form of the files.
func rows(places []bind.Place) [3]string {
	var threads, cpus, gpus []string
	for _, p := range places {
		b, _ := json.Marshal(p.Threads)
		threads = append(threads, string(b))
		cpus = append(cpus, p.CPUs.String())
		gpus = append(gpus, strings.Join(p.GPUs, ","))
	}
	return [3]string{strings.Join(threads, ";"), strings.Join(cpus, ";"), strings.Join(gpus, ";")}
}
