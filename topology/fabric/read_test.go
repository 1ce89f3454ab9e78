package fabric_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/topology"
	"gangway/topology/fabric"
)

// small is two leaves, a spine and two hosts, as ibnetdiscover prints them.
const small = `#
# Topology file: generated on Thu Jan  1 00:00:00 1970

switchguid=0xa1(a1)
Switch	40 "S-00000000000000a1"		# "MF0;leaf1:MQM8700/U1" enhanced port 0 lid 1 lmc 0
[1]	"H-00000000000000b1"[1](b1) 		# "n1 mlx5_0" lid 10 4xHDR
[39]	"H-00000000000000c1"[1](c1) 		# "Mellanox Technologies Aggregation Node" lid 11 4xHDR
[40]	"S-00000000000000a3"[1]		# "MF0;spine1:MQM8700/U1" lid 3 4xHDR

switchguid=0xa2(a2)
Switch	40 "S-00000000000000a2"		# "MF0;leaf2:MQM8700/U1" enhanced port 0 lid 2 lmc 0
[1]	"H-00000000000000b2"[1](b2) 		# "n2 HCA-1" lid 12 4xHDR
[40]	"S-00000000000000a3"[2]		# "MF0;spine1:MQM8700/U1" lid 3 4xHDR

switchguid=0xa3(a3)
Switch	40 "S-00000000000000a3"		# "MF0;spine1:MQM8700/U1" enhanced port 0 lid 3 lmc 0
[1]	"S-00000000000000a1"[40]		# "MF0;leaf1:MQM8700/U1" lid 1 4xHDR
[2]	"S-00000000000000a2"[40]		# "MF0;leaf2:MQM8700/U1" lid 2 4xHDR

caguid=0xc1
Ca	1 "H-00000000000000c1"		# "Mellanox Technologies Aggregation Node"
[1](c1) 	"S-00000000000000a1"[39]		# lid 11 lmc 0 "MF0;leaf1:MQM8700/U1" lid 1 4xHDR

caguid=0xb1
Ca	1 "H-00000000000000b1"		# "n1 mlx5_0"
[1](b1) 	"S-00000000000000a1"[1]		# lid 10 lmc 0 "MF0;leaf1:MQM8700/U1" lid 1 4xHDR

caguid=0xb2
Ca	1 "H-00000000000000b2"		# "n2 HCA-1"
[1](b2) 	"S-00000000000000a2"[1]		# lid 12 lmc 0 "MF0;leaf2:MQM8700/U1" lid 2 4xHDR
`

func gbps(v float64) *float64 { return &v }

// readFabric reads a text that can be read.
func readFabric(t *testing.T, text string) topology.Fabric {
	t.Helper()
	f, err := fabric.Read(strings.NewReader(text), "f")
	if err != nil {
		t.Fatal(err)
	}
	checkFabric(t, f)
	return f
}

// checkReads fails unless a text is read as the fabric that is wanted.
func checkReads(t *testing.T, text string, want topology.Fabric) {
	t.Helper()
	if d := cmp.Diff(want, readFabric(t, text)); d != "" {
		t.Errorf("wanted (-), got (+):\n%s", d)
	}
}

// checkWarns fails unless a fabric was read with a warning.
func checkWarns(t *testing.T, f topology.Fabric, want string) {
	t.Helper()
	if got := strings.Join(f.Warnings, "\n"); !strings.Contains(got, want) {
		t.Errorf("the warnings don't say %q:\n%s", want, got)
	}
}

func TestReadIBNetDiscover(t *testing.T) {
	want := topology.Fabric{
		Switches: []topology.Switch{
			{Name: "leaf1", GUID: "00000000000000a1", Links: []topology.SwitchLink{{To: "spine1", Count: 1, Gbps: gbps(200)}}},
			{Name: "leaf2", GUID: "00000000000000a2", Links: []topology.SwitchLink{{To: "spine1", Count: 1, Gbps: gbps(200)}}},
			{Name: "spine1", GUID: "00000000000000a3", Level: 1, Links: []topology.SwitchLink{
				{To: "leaf1", Count: 1, Gbps: gbps(200)}, {To: "leaf2", Count: 1, Gbps: gbps(200)}}},
		},
		Hosts: []topology.FabricHost{
			{Name: "n1", Ports: []topology.FabricPort{{HCA: "mlx5_0", GUID: "00000000000000b1", Port: 1, Switch: "leaf1", SwitchPort: 1, Gbps: gbps(200)}}},
			{Name: "n2", Ports: []topology.FabricPort{{HCA: "HCA-1", GUID: "00000000000000b2", Port: 1, Switch: "leaf2", SwitchPort: 1, Gbps: gbps(200)}}},
		},
		Ignored: 1,
	}
	for name, text := range map[string]string{
		"as printed":         small,
		"CRLF":               strings.ReplaceAll(small, "\n", "\r\n"),
		"escapes":            "\x1b[?25l" + strings.ReplaceAll(small, "Switch\t", "\x1b[1mSwitch\x1b[0m\t"),
		"ports of a chassis": strings.ReplaceAll(small, "[40]\t\"S-", "[40][ext 20]\t\"S-"),
		"byte order mark":    "\ufeff" + small,
		"capital digits":     strings.ReplaceAll(small, "a3\"", "A3\""),
	} {
		t.Run(name, func(t *testing.T) {
			checkReads(t, text, want)
		})
	}
}

// TestDamagedIBNetDiscover: what is left is read, and what is missing is said
// with its line.
func TestDamagedIBNetDiscover(t *testing.T) {
	cut := func(before string) string { s, _, _ := strings.Cut(small, before); return s }
	for _, c := range []struct {
		name, text string
		hosts      int
		warning    string
	}{
		{"no records of hosts", cut("caguid=0xc1"), 2, "f:6: 3 nodes have links but no record of their own"},
		{"half a line", cut(`b2"[1](b2) 		# "n2`), 1, "f:12: the file ends in the middle of a line"},
		{"a GUID twice", small + "\ncaguid=0xb1\nCa\t1 \"H-00000000000000b1\"\t\t# \"other mlx5_0\"\n", 2, "two devices with one GUID"},
		{"a record twice", small + "\ncaguid=0xb1\nCa\t1 \"H-00000000000000b1\"\t\t# \"n1 mlx5_0\"\n", 2, "f:33: H-00000000000000b1 has a second record, the first is in line 25"},
		{"a port twice", strings.Replace(small, "[40]\t\"S-00000000000000a3\"[2]", "[1]\t\"S-00000000000000a3\"[2]", 1), 2, "has another link in line"},
		{"one end", strings.Replace(small, "[2]\t\"S-00000000000000a2\"[40]", "# [2]", 1), 2, "f:13: the link from S-00000000000000a2[40] to S-00000000000000a3[2] is not in the record of the latter, line 16"},
		{"linked to itself", strings.Replace(small, "\"S-00000000000000a3\"[2]", "\"S-00000000000000a2\"[41]", 1), 2, "linked to itself"},
		{"a product's name", strings.ReplaceAll(small, "n2 HCA-1", "MT4123 ConnectX6   Mellanox Technologies"), 1, "f:29: 1 HCA has a description that names no host"},
		{"a bare GUID", strings.ReplaceAll(small, "n2 HCA-1", "0x98039b0300aabbcc"), 1, "f:29: 1 HCA has a description that names no host"},
		{"no description", strings.ReplaceAll(small, "n2 HCA-1", ""), 1, "f:29: 1 HCA has a description that names no host"},
		{"an HCA's name alone", strings.ReplaceAll(small, "n2 HCA-1", "mlx5_0"), 1, "f:29: 1 HCA has a description that names no host"},
		{"localhost", strings.ReplaceAll(small, "n2 HCA-1", "localhost HCA-1"), 2, "f:29: a host calls itself localhost"},
		{"two machines of one name", strings.ReplaceAll(small, "n2 HCA-1", "n1 mlx5_0"), 1, "f:29: n1 has two HCAs called mlx5_0, the other in line 25"},
		{"a nameless switch", strings.ReplaceAll(small, "MF0;leaf2:MQM8700/U1", "Quantum Mellanox Technologies"), 2, "f:11: the description of S-00000000000000a2 does not name it"},
		{"something else", strings.Replace(small, "switchguid=0xa2(a2)", "ibwarn: [123] timeout", 1), 2, "f:10: not a line of ibnetdiscover: \"ibwarn: [123] timeout\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := readFabric(t, c.text)
			if len(f.Hosts) != c.hosts {
				t.Errorf("%d hosts", len(f.Hosts))
			}
			checkWarns(t, f, c.warning)
		})
	}
}

func TestSwitchNames(t *testing.T) {
	// The ASICs of a chassis share a name, and get more of it.
	text := strings.ReplaceAll(small, "MF0;leaf1:MQM8700/U1", "MF0;core:CS8500/L01/U1")
	text = strings.ReplaceAll(text, "MF0;leaf2:MQM8700/U1", "MF0;core:CS8500/L02/U1")
	f := readFabric(t, text)
	var got []string
	for _, s := range f.Switches {
		got = append(got, s.Name)
	}
	if d := cmp.Diff([]string{"core/L01/U1", "core/L02/U1", "spine1"}, got); d != "" {
		t.Error(d)
	}
}

func TestReadSlurm(t *testing.T) {
	const tree = `# our cluster
SwitchName=s0 Nodes=tux[0-3] LinkSpeed=100
switchname = s1 nodes=tux[4-7]   # the second
SWITCHNAME=s2 \
  Switches=s[0-1]
`
	const trees = `- topology: default
  cluster_default: true
  tree:
    switches:
      - switch: s2
        children: s[0-1]
      - switch: s0
        nodes: tux[0-3]
      - switch: s1
        nodes: tux[4-7]
- topology: none
  flat: true
`
	var hosts []topology.FabricHost
	names, _ := topology.ExpandHosts("tux[0-7]")
	for i, n := range names {
		hosts = append(hosts, topology.FabricHost{Name: n, Ports: []topology.FabricPort{{Switch: []string{"s0", "s1"}[i/4]}}})
	}
	want := topology.Fabric{Hosts: hosts, Switches: []topology.Switch{
		{Name: "s0", Parent: "s2", Links: []topology.SwitchLink{{To: "s2", Count: 1}}},
		{Name: "s1", Parent: "s2", Links: []topology.SwitchLink{{To: "s2", Count: 1}}},
		{Name: "s2", Level: 1, Links: []topology.SwitchLink{{To: "s0", Count: 1}, {To: "s1", Count: 1}}},
	}}
	for name, text := range map[string]string{"topology.conf": tree, "CRLF": strings.ReplaceAll(tree, "\n", "\r\n"), "topology.yaml": trees} {
		t.Run(name, func(t *testing.T) {
			checkReads(t, text, want)
		})
	}
	for name, text := range map[string]string{
		"conf": "BlockName=b1 Nodes=n[1-4]\nBlockName=b2 Nodes=n[5-8]\nBlockName=b3 Nodes=n[9-12]\nBlockSizes=4,8\n",
		"yaml": "- topology: t\n  block:\n    block_sizes: [4, 8]\n    blocks:\n      - {block: b1, nodes: 'n[1-4]'}\n      - {block: b2, nodes: 'n[5-8]'}\n      - {block: b3, nodes: 'n[9-12]'}\n",
	} {
		t.Run("blocks in "+name, func(t *testing.T) {
			f := readFabric(t, text)
			if len(f.Warnings) > 0 {
				t.Error(f.Warnings)
			}
			if got := shape(f.Domains()); got != "((4 4) 4)" {
				t.Errorf("the domains are %s", got)
			}
		})
	}
}

func TestDamagedSlurm(t *testing.T) {
	for _, c := range []struct{ name, text, warning string }{
		{"circle", "SwitchName=a Switches=b\nSwitchName=b Switches=c\nSwitchName=c Switches=a,l\nSwitchName=l Nodes=n1\n", "f:3: switch a is below c, which is below a itself"},
		{"below itself", "SwitchName=a Switches=a,l\nSwitchName=l Nodes=n1\n", "f:1: switch a is below a"},
		{"unknown switch", "SwitchName=l Nodes=n1\nSwitchName=a Switches=l,m\n", "f:2: switch m is below a but defined nowhere"},
		{"two leaves", "SwitchName=l Nodes=n[1-2]\nSwitchName=m Nodes=n[2-3]\n", "f:2: node n2 is under switch l already, in line 1"},
		{"two parents", "SwitchName=l Nodes=n1\nSwitchName=a Switches=l\nSwitchName=b Switches=l\n", "f:3: switch l is below a already"},
		{"defined twice", "SwitchName=l Nodes=n1\nSwitchName=l Nodes=n2\n", "f:2: switch l is defined a second time, first in line 1"},
		{"a bad list", "SwitchName=l Nodes=n1\nSwitchName=m Nodes=n[3-\n", "f:2: nodes of switch m"},
		{"an unknown key", "SwitchName=l Nodes=n1 Colour=red\n", "f:1: the key Colour is not known"},
		{"not connected", "SwitchName=l Nodes=n1\nSwitchName=m Nodes=n2\nSwitchName=a Switches=l\n", "the tree is in parts"},
		{"two blocks", "BlockName=a Nodes=n[1-2]\nBlockName=b Nodes=n[2-3]\n", "f:2: node n2 is in block a already, in line 1"},
		{"sizes", "BlockName=a Nodes=n[1-2]\nBlockSizes=2,3\n", "f:2: block size 3 is no multiple of 2"},
		{"words", "SwitchName=l Nodes=n1 more\n", `f:1: "more": expected Key=value`},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkWarns(t, readFabric(t, c.text), c.warning)
		})
	}
}

func TestReadOwn(t *testing.T) {
	const text = `switches:
  - names: leaf[1-2]
    links:
      - {to-each: "spine[1-2]", count: 2, gbps: 400}
  - names: spine[1-2]
hosts:
  - names: n[1-2]
    ports: {mlx5_0: leaf1, mlx5_1: leaf2}
  - {name: login, switch: leaf1}
`
	up := []topology.SwitchLink{{To: "spine1", Count: 2, Gbps: gbps(400)}, {To: "spine2", Count: 2, Gbps: gbps(400)}}
	down := []topology.SwitchLink{{To: "leaf1", Count: 2, Gbps: gbps(400)}, {To: "leaf2", Count: 2, Gbps: gbps(400)}}
	ports := []topology.FabricPort{{HCA: "mlx5_0", Switch: "leaf1"}, {HCA: "mlx5_1", Switch: "leaf2"}}
	want := topology.Fabric{
		Switches: []topology.Switch{{Name: "leaf1", Links: up}, {Name: "leaf2", Links: up}, {Name: "spine1", Level: 1, Links: down}, {Name: "spine2", Level: 1, Links: down}},
		Hosts:    []topology.FabricHost{{Name: "login", Ports: []topology.FabricPort{{Switch: "leaf1"}}}, {Name: "n1", Ports: ports}, {Name: "n2", Ports: ports}},
	}
	checkReads(t, text, want)
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "f: the file is empty"},
		{"comments", "# nothing\n", "f: the file is empty"},
		{"ports report", "CA    10  1 0x00000000000000b1 4x HDR 'n1 mlx5_0' - SW 1 1 0xa1 ( 'leaf1' )\n", "without options"},
		{"binary", "\x7fELF\x00\x00", "zero bytes"},
		{"no switch", "vendid=0x2c9\ncaguid=0x1\nCa\t1 \"H-00000000000000b1\"\t# \"n1 HCA-1\"\n", "f:3: no switch"},
		{"include", "SwitchName=l Nodes=n1\nInclude more.conf\n", "f:2: the file includes another"},
		{"text", "hello\n", "f:1:1: this is no description of a fabric"},
		{"key", "switches:\n  - name: a\n    color: red\n", "f:3:5: the key \"color\" is not known: a switch has name or names, guid, parent, links\n  3 |     color: red\n          ^"},
		{"unknown switch", "hosts:\n  - {name: n1, switch: leaf9}\n", "f:2:24: switch \"leaf9\" is not among the switches"},
		{"two counts", "switches:\n  - {name: a, links: [{to: b, count: 2}]}\n  - {name: b, links: [{to: a}]}\n", "f:3:24: \"b\" tells a count of 1 to \"a\", which tells 2 back"},
		{"parents", "switches:\n  - {name: a, parent: b}\n  - {name: b, parent: a}\n", "the parents form a circle"},
		{"a name twice", "switches:\n  - name: a\n  - name: a\n", "f:3:5: switch a stands here a second time"},
		{"alias", "switches: &a\n  - name: a\nhosts: *a\n", "f:1:11: anchors, aliases, tags and merges are not used in descriptions of fabrics: write the value out\n  1 |"},
		{"a key twice", "switches: []\nswitches: []\n", "f:2:1: mapping key \"switches\" already defined at [1:1]\n  2 |"},
		{"keys", strings.Repeat("a: 1\n", 513), "f:513:2: a mapping has more than 512 keys: switches and hosts are lists\n"},
		{"documents", "switches:\n  - name: a\n---\nhosts: []\n", "a second document"},
		{"half a JSON", `{"switches": [{"name": "a"`, "the JSON ends too early"},
		{"flat", "- topology: t\n  flat: true\n", "no topology with a tree or blocks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := fabric.Read(strings.NewReader(c.text), "f")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("wanted %q, got:\n%v", c.want, err)
			}
		})
	}
}
