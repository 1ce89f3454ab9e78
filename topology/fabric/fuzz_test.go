package fabric_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gangway/topology"
	"gangway/topology/fabric"
)

// readAny reads text and holds what is so of all that is read.
func readAny(t *testing.T, text string) {
	f, err := fabric.Read(strings.NewReader(text), "f")
	if err != nil {
		return
	}
	if len(f.Hosts) > 2000 { // a few lists of ranges; writing them all takes the fuzzer's time
		f.Domains()
		return
	}
	checkFabric(t, f)
}

func FuzzIBNetDiscover(f *testing.F) {
	f.Add(small)
	f.Add(small[:700])
	f.Add(strings.ReplaceAll(small, "a2", "a1"))
	f.Add("Switch\t1 \"S-1\"\t# \"\"\n[1]\t\"S-1\"[1]\n[2]\t\"H-1\"[1](1)\t# \"a b\" lid 1 4xEDR")
	f.Fuzz(func(t *testing.T, text string) { readAny(t, "# Topology file: generated\n"+text) })
}

func FuzzSlurm(f *testing.F) {
	f.Add("SwitchName=s0 Nodes=tux[0-3] LinkSpeed=100\nSwitchName=s1 \\\n Switches=s0 # top\n")
	f.Add("BlockName=b1 Nodes=n[1-4]\nBlockSizes=4,8\n")
	f.Add("SwitchName=a Switches=b\nSwitchName=b Switches=a")
	f.Fuzz(func(t *testing.T, text string) { readAny(t, "LinkSpeed=1\n"+text) })
}

func FuzzYAML(f *testing.F) {
	f.Add("switches:\n  - names: l[1-2]\n    links: [{to: s, count: 2, gbps: 400}]\n  - name: s\nhosts:\n  - {names: 'n[1-4]', ports: {mlx5_0: l1}}\n")
	f.Add("- topology: t\n  tree:\n    switches:\n      - {switch: a, children: b}\n      - {switch: b, nodes: n1}\n")
	f.Add(`{"switches": [{"name": "a"}], "hosts": [{"name": "h", "switch": "a"}], "blocks": [{"name": "b", "hosts": ["h"]}], "block_sizes": [1]}`)
	f.Add(`{"switches":[{"name":"a"}],"hosts":[{"name": "0", "switch": "a"}], "blocks": [{"name": "0"}]}`)
	f.Fuzz(readAny)
}

// TestWrittenIsRead: a fabric of any names and links comes back from YAML as it
// was, and its other forms can be read.
func TestWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.OneOf(rapid.StringMatching(`[a-z]{1,3}[0-9]{1,2}`), rapid.StringN(1, 8, 20))
		clean := func(s string) string { return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "?") }
		unique := func(label string, most int) []string {
			seen := map[string]bool{}
			var out []string
			for i, s := range rapid.SliceOfN(name, 1, most).Draw(r, label) {
				if s = clean(s); s == "" || seen[s] {
					s = fmt.Sprintf("%s-%d", label, i)
				}
				seen[s] = true
				out = append(out, s)
			}
			return out
		}
		speed := func() *float64 {
			return rapid.SampledFrom([]*float64{nil, gbps(100), gbps(2.5)}).Draw(r, "gbps")
		}
		var f topology.Fabric
		switches := unique("switch", 8)
		for _, s := range switches {
			f.Switches = append(f.Switches, topology.Switch{Name: s, GUID: rapid.SampledFrom([]string{"", "00a1b2c3d4e5f607"}).Draw(r, "guid")})
		}
		for i := range switches {
			for j := range i {
				if n := rapid.IntRange(-2, 3).Draw(r, "cables"); n > 0 {
					g := speed()
					f.Switches[i].Links = append(f.Switches[i].Links, topology.SwitchLink{To: switches[j], Count: n, Gbps: g})
					f.Switches[j].Links = append(f.Switches[j].Links, topology.SwitchLink{To: switches[i], Count: n, Gbps: g})
				}
			}
		}
		port := func() topology.FabricPort {
			return topology.FabricPort{HCA: clean(name.Draw(r, "hca")), Port: rapid.IntRange(0, 2).Draw(r, "port"),
				Switch: rapid.SampledFrom(switches).Draw(r, "on"), SwitchPort: rapid.IntRange(0, 64).Draw(r, "switch port"), Gbps: speed()}
		}
		for _, h := range unique("host", 12) {
			host := topology.FabricHost{Name: h}
			for range rapid.IntRange(0, 3).Draw(r, "ports") {
				host.Ports = append(host.Ports, port())
			}
			f.Hosts = append(f.Hosts, host)
		}
		for range rapid.IntRange(0, 2).Draw(r, "unnamed") {
			f.Unnamed = append(f.Unnamed, port())
		}
		f.Ignored = rapid.IntRange(0, 3).Draw(r, "ignored")
		f.Sort()
		f.SetLevels()
		checkFabric(t, f)
	})
}
