package probe

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/internal/golden"
	"gangway/topology"
)

// ncclPCI is a device of the file, read without the reader under test.
type ncclPCI struct {
	BusID string    `xml:"busid,attr"`
	Class string    `xml:"class,attr"`
	PCI   []ncclPCI `xml:"pci"`
	Nets  []struct {
		Name string `xml:"name,attr"`
	} `xml:"nic>net"`
}

// TestGoldenNCCL states for each pair of end devices of every topology file
// which class its place in the tree makes it.
func TestGoldenNCCL(t *testing.T) {
	for _, file := range golden.Files(t, "gpu-topo", "*.xml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			n, err := From(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(n.Warnings) > 0 {
				t.Errorf("warnings: %q", n.Warnings)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var doc struct {
				CPU []struct {
					NUMA     int       `xml:"numaid,attr"`
					Affinity string    `xml:"affinity,attr"`
					PCI      []ncclPCI `xml:"pci"`
				} `xml:"cpu"`
			}
			if err := xml.Unmarshal(b, &doc); err != nil {
				t.Fatal(err)
			}
			type leaf struct {
				address string
				numa    int
				path    []string
			}
			var leaves []leaf
			gpus, nics, devices := 0, 0, 0
			for _, c := range doc.CPU {
				mask, err := topology.ParseCPUMask(c.Affinity)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(n.NUMA, func(d topology.NUMANode) bool { return d.Index == c.NUMA && d.CPUs.Equal(mask) }) {
					t.Errorf("NUMA node %d with cpus %s is not among %v", c.NUMA, mask, n.NUMA)
				}
				var walk func(list []ncclPCI, path []string)
				walk = func(list []ncclPCI, path []string) {
					for _, d := range list {
						devices++
						names := map[string]bool{}
						for _, net := range d.Nets {
							names[net.Name] = net.Name != ""
						}
						kind := d.Class[:min(len(d.Class), 6)]
						switch {
						case kind == "0x0300" || kind == "0x0302" || kind == "0x0380":
							gpus++
							leaves = append(leaves, leaf{d.BusID, c.NUMA, path})
						case kind == "0x0207" || len(names) > 0:
							nics += max(1, len(names))
							leaves = append(leaves, leaf{d.BusID, c.NUMA, path})
						}
						walk(d.PCI, append([]string{d.BusID}, path...))
					}
				}
				walk(c.PCI, nil)
			}
			if len(n.GPUs) != gpus || len(n.HCAs) != nics || len(n.PCI) != devices || len(n.NUMA) != len(doc.CPU) {
				t.Errorf("%d GPUs, %d NICs, %d devices, %d NUMA nodes; the file has %d, %d, %d, %d",
					len(n.GPUs), len(n.HCAs), len(n.PCI), len(n.NUMA), gpus, nics, devices, len(doc.CPU))
			}
			for _, a := range leaves {
				for _, b := range leaves {
					want := topology.ClassSYS
					switch {
					case a.address == b.address:
						want = topology.ClassSelf
					case len(a.path) > 0 && len(b.path) > 0 && a.path[0] == b.path[0]:
						want = topology.ClassPIX
					case a.numa == b.numa && (len(a.path) == 0 || len(b.path) == 0 || a.path[len(a.path)-1] != b.path[len(b.path)-1]):
						want = topology.ClassNODE
					case a.numa == b.numa:
						continue // below one bridge, but not the nearest
					}
					if got := topology.Distance(n, a.address, b.address); got != want {
						t.Errorf("%s to %s is %s, want %s", a.address, b.address, got, want)
					}
				}
			}
			var out strings.Builder
			if err := topology.RenderMatrix(&out, topology.Matrix(n)); err != nil {
				t.Fatal(err)
			}
			t.Log(out.String())
			var again strings.Builder
			if err := WriteNCCL(&again, n); err != nil {
				t.Fatal(err)
			}
			back, err := ReadNCCL(strings.NewReader(again.String()))
			if err != nil {
				t.Fatal(err)
			}
			// Other devices and NVLinks are not written.
			n.PCI, back.PCI, n.Links = nil, nil, nil
			if d := cmp.Diff(n, back); d != "" {
				t.Errorf("read (-), written and read again (+):\n%s", d)
			}
		})
	}
}

const ncclDump = `<?xml version="1.0"?>
<system version="1">
  <cpu host_hash="0x1" numaid="0" affinity="0000000f" arch="x86_64" vendor="GenuineIntel" familyid="6" modelid="143">
    <pci busid="0000:18:00.0" class="0x060400" vendor="0x1000" device="0xc030" link_speed="32.0 GT/s PCIe" link_width="16">
      <pci busid="0000:1B:00.0" class="0x030200" vendor="0x10de" device="0x2330" link_speed="32.0 GT/s PCIe" link_width="16">
        <gpu dev="1" sm="90" rank="0" gdr="1"><nvlink target="0000:2a:00.0" count="18" tclass="0x030200"/></gpu>
      </pci>
      <pci busid="0000:1c:00.0" class="0x020700" vendor="0x15b3" link_speed="Unknown speed" link_width="16">
        <nic><net name="mlx5_10" dev="0" speed="400000" port="1" guid="0xc42a1030000b32f" gdr="1"/></nic>
      </pci>
    </pci>
    <nic><net name="eth9" dev="7"/></nic>
  </cpu>
  <cpu numaid="1" affinity="000000f0" arch="x86_64">
    <pci busid="0000:2a:00.0" class="0x030200"><gpu dev="0"><nvlink target="0000:1b:00.0" count="18" tclass="0x030200"/></gpu></pci>
  </cpu>
</system>`

func TestReadNCCL(t *testing.T) {
	n, err := ReadNCCL(strings.NewReader(ncclDump))
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Warnings) > 0 {
		t.Error(n.Warnings)
	}
	var got strings.Builder
	for _, g := range n.GPUs {
		fmt.Fprintf(&got, "GPU%d %s %d\n", g.Index, g.PCI, g.NUMA)
	}
	for _, h := range n.HCAs {
		fmt.Fprintf(&got, "%s %s %s %v\n", h.Name, h.PCI, h.NodeGUID, *h.Ports[0].Gbps)
	}
	for _, p := range [][2]string{{"GPU0", "GPU1"}, {"GPU1", "mlx5_10"}, {"GPU0", "mlx5_10"}} {
		fmt.Fprintf(&got, "%s %s %s\n", p[0], p[1], topology.Distance(n, p[0], p[1]))
	}
	want := "GPU0 0000:2a:00.0 1\nGPU1 0000:1b:00.0 0\nmlx5_10 0000:1c:00.0 0c42a1030000b32f 400\nGPU0 GPU1 NV18\nGPU1 mlx5_10 PIX\nGPU0 mlx5_10 SYS\n"
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Error(d)
	}
}

func TestReadNCCLBad(t *testing.T) {
	for _, test := range []struct{ text, err, warn string }{
		{"", "expected the element <system>", ""},
		{"<topology/>", "found <topology>", ""},
		{"<system version=\"9\"/>", "", `line 1: version "9"`},
		{"<system>\n<cpu numaid=\"x\"/></system>", "", "line 2: numaid"},
		{"<system>\n\n<cpu numaid=\"0\" affinity=\"zz\">", "", "line 3: affinity"},
		{"<system><pci busid=\"nonsense\"><gpu/></pci></system>", "", "busid"},
		{"<system><pci busid=\"0000:01:00.0\"/><pci busid=\"0000:01:00.0\"/></system>", "", "a second device"},
		{"<system><cpu numaid=\"0\" affinity=\"3\"/><cpu numaid=\"1\" affinity=\"2\"/></system>", "", "cpus 1 are in NUMA nodes 0 and 1"},
		{"<system>" + strings.Repeat("<pci>", 100), "deep", ""},
	} {
		n, err := ReadNCCL(strings.NewReader(test.text))
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: error %v, want %q", test.text, err, test.err)
			}
			continue
		}
		if err != nil || !strings.Contains(strings.Join(n.Warnings, "\n"), test.warn) {
			t.Errorf("%q: %v, warnings %q, want %q", test.text, err, n.Warnings, test.warn)
		}
	}
	for i := range ncclDump {
		if n, err := ReadNCCL(strings.NewReader(ncclDump[:i])); err == nil && i < len(ncclDump)-10 && len(n.Warnings) == 0 {
			t.Errorf("cut at %d: no warning", i)
		}
	}
}

func FuzzNCCL(f *testing.F) {
	f.Add(ncclDump)
	f.Add("<system><pci busid=\"0000:01:00.0\" class=\"0x030200\"><gpu dev=\"-5\"/></pci>")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ReadNCCL(strings.NewReader(s))
		if err != nil {
			return
		}
		seen := map[int]bool{}
		for _, g := range n.GPUs {
			if seen[g.Index] || g.Index < 0 {
				t.Errorf("GPUs %+v", n.GPUs)
			}
			seen[g.Index] = true
		}
		if len(n.PCI) <= 64 {
			topology.Matrix(n)
		}
	})
}
