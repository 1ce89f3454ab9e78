package probe

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"gangway/topology"
)

// sysFiles makes a file system of paths and contents; "-> x" is a link.
func sysFiles(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for p, s := range files {
		f := &fstest.MapFile{Data: []byte(s), Mode: 0o644}
		if to, ok := strings.CutPrefix(s, "-> "); ok {
			f.Data, f.Mode = []byte(to), fs.ModeSymlink|0o777
		}
		m[p] = f
	}
	return m
}

func TestRoCE(t *testing.T) {
	const dev = "devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1/"
	const hca = dev + "infiniband/mlx5_bond_0/"
	n := adapters(sysFiles(map[string]string{
		"class/infiniband/mlx5_bond_0":          "-> ../../" + strings.TrimSuffix(hca, "/"),
		"class/infiniband/abi_version":          "1\n",
		dev + "numa_node":                       "1\n",
		dev + "local_cpulist":                   "8-15\n",
		dev + "driver":                          "-> ../../../../bus/pci/drivers/mlx5_core",
		hca + "device":                          "-> ../../../0000:3b:00.1",
		hca + "node_guid":                       "0000:0000:0000:0000\n",
		hca + "hca_type":                        "MT4129\n",
		hca + "ports/1/state":                   "4: ACTIVE\n",
		hca + "ports/1/phys_state":              "<unknown>\n",
		hca + "ports/1/link_layer":              "Ethernet\n",
		hca + "ports/1/rate":                    "400 Gb/sec (4X NDR)\n",
		hca + "ports/1/lid":                     "0x0\n",
		hca + "ports/1/gids/0":                  "fe80:0000:0000:0000:BACE:f6ff:fe00:0001\n",
		hca + "ports/1/gids/1":                  "fe80:0000:0000:0000:bace:f6ff:fe00:0001\n",
		hca + "ports/1/gids/2":                  "0000:0000:0000:0000:0000:0000:0000:0000\n",
		hca + "ports/1/gids/10":                 "0000:0000:0000:0000:0000:ffff:0a00:0001\n",
		hca + "ports/1/gid_attrs/ndevs/0":       "bond0\n",
		hca + "ports/1/counters/port_xmit_data": "18446744073709551615\n",
		hca + "ports/1/counters/VL15_dropped":   "N/A (no PMA)\n",
		hca + "ports/1/hw_counters/lifespan":    "10\n",
	}))
	gbps, lid := 400.0, uint32(0)
	want := []topology.HCA{{
		Name: "mlx5_bond_0", Type: "MT4129", Driver: "mlx5_core", PCI: "0000:3b:00.1", NUMA: 1,
		CPUs: topology.NewCPUSet(8, 9, 10, 11, 12, 13, 14, 15),
		Ports: []topology.HCAPort{{
			Number: 1, State: "ACTIVE", LinkLayer: "Ethernet", Gbps: &gbps, Rate: "400 Gb/sec (4X NDR)", LID: &lid,
			GIDs:     []string{"fe80:0000:0000:0000:bace:f6ff:fe00:0001", "0000:0000:0000:0000:0000:ffff:0a00:0001"},
			Netdev:   "bond0",
			Counters: map[string]uint64{"port_xmit_data": 1<<64 - 1},
		}},
	}}
	if d := cmp.Diff(want, n.HCAs); d != "" {
		t.Error(d)
	}
	if len(n.Warnings) > 0 {
		t.Error(n.Warnings)
	}
}

// TestBadAdapterFiles: a bad file costs its fact, with a warning that names it.
func TestBadAdapterFiles(t *testing.T) {
	good := map[string]string{
		"class/infiniband/mlx5_0/node_guid":                "0c42:a103:00b3:2f7e",
		"class/infiniband/mlx5_0/device/numa_node":         "0",
		"class/infiniband/mlx5_0/device/local_cpulist":     "0-3",
		"class/infiniband/mlx5_0/device/uevent":            "DRIVER=x\nPCI_SLOT_NAME=0000:3b:00.0",
		"class/infiniband/mlx5_0/ports/1/state":            "4: ACTIVE",
		"class/infiniband/mlx5_0/ports/1/phys_state":       "5: LinkUp",
		"class/infiniband/mlx5_0/ports/1/link_layer":       "InfiniBand",
		"class/infiniband/mlx5_0/ports/1/rate":             "100 Gb/sec (4X EDR)",
		"class/infiniband/mlx5_0/ports/1/lid":              "0x1a",
		"class/infiniband/mlx5_0/ports/1/sm_lid":           "0x1",
		"class/infiniband/mlx5_0/ports/1/gids/0":           "fe80:0000:0000:0000:0c42:a103:00b3:2f7e",
		"class/infiniband/mlx5_0/ports/1/counters/a_count": "1",
	}
	if w := adapters(sysFiles(good)).Warnings; len(w) > 0 {
		t.Fatal(w)
	}
	whole := adapters(sysFiles(good)).HCAs
	for bad := range good {
		files := map[string]string{}
		for k, v := range good {
			files[k] = v
		}
		files[bad] = "PCI_SLOT_NAME=\x80%!\n"
		n := adapters(sysFiles(files))
		if len(n.Warnings) != 1 || !strings.Contains(n.Warnings[0], "/sys/"+bad+":") {
			t.Errorf("%s: warnings %q", bad, n.Warnings)
		}
		if len(n.HCAs) != 1 || len(n.HCAs[0].Ports) != 1 || cmp.Equal(n.HCAs, whole) {
			t.Errorf("%s: %+v", bad, n.HCAs)
		}
		delete(files, bad)
		if n := adapters(sysFiles(files)); len(n.Warnings) > 0 {
			t.Errorf("without %s: warnings %q", bad, n.Warnings)
		}
	}
}

func TestPortNetdev(t *testing.T) {
	base := map[string]string{"class/infiniband/mlx4_0/ports/1/state": "4: ACTIVE", "class/infiniband/mlx4_0/ports/2/state": "1: DOWN"}
	for name, test := range map[string]struct {
		files map[string]string
		want  [2]string
	}{
		"by dev_port": {map[string]string{
			"class/infiniband/mlx4_0/device/net/ens1/dev_port":   "0",
			"class/infiniband/mlx4_0/device/net/ens1d1/dev_port": "1",
		}, [2]string{"ens1", "ens1d1"}},
		"by dev_id": {map[string]string{
			"class/infiniband/mlx4_0/device/net/ib0/dev_port": "0", "class/infiniband/mlx4_0/device/net/ib0/dev_id": "0x0",
			"class/infiniband/mlx4_0/device/net/ib1/dev_port": "0", "class/infiniband/mlx4_0/device/net/ib1/dev_id": "0x1",
			"class/infiniband/mlx4_0/device/net/ib0.8001/dev_id": "0x0", "class/infiniband/mlx4_0/device/net/ib0.8001/parent": "ib0",
		}, [2]string{"ib0", "ib1"}},
		"one without a number": {map[string]string{"class/infiniband/mlx4_0/device/net/ib0/mtu": "2044"}, [2]string{"", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range base {
				test.files[k] = v
			}
			p := adapters(sysFiles(test.files)).HCAs[0].Ports
			if got := [2]string{p[0].Netdev, p[1].Netdev}; got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestAdapterOrder(t *testing.T) {
	n := adapters(sysFiles(map[string]string{
		"class/infiniband/mlx5_10/fw_ver": "1", "class/infiniband/mlx5_2/fw_ver": "1", "class/infiniband/hfi1_0/fw_ver": "1", "class/infiniband/scif0/fw_ver": "1",
	}))
	var got []string
	for _, h := range n.HCAs {
		got = append(got, h.Name)
	}
	if d := cmp.Diff([]string{"hfi1_0", "mlx5_2", "mlx5_10"}, got); d != "" {
		t.Error(d)
	}
}

func FuzzAdapter(f *testing.F) {
	f.Add("4: ACTIVE", "mlx5_0")
	f.Add("100 Gb/sec (4X EDR)", "mlx5_bond_0")
	f.Add("1e999 Gb/sec", "a01")
	f.Add("fe80:0000:0000:0000:0c42:a103:00b3:2f7e", "a1")
	f.Add("PCI_SLOT_NAME=0000:3b:00.0\n0xffffffffff", "x")
	f.Fuzz(func(t *testing.T, s, name string) {
		if !fs.ValidPath(name) || strings.Contains(name, "/") || name == "." {
			name = "mlx5_0"
		}
		dir := "class/infiniband/" + name + "/"
		files := map[string]string{}
		for _, f := range []string{"node_guid", "hca_type", "device/numa_node", "device/local_cpulist", "device/uevent", "ports/1/state", "ports/1/phys_state",
			"ports/1/link_layer", "ports/1/rate", "ports/1/lid", "ports/1/gids/0", "ports/1/gid_attrs/ndevs/0", "ports/1/counters/c", "device/net/ib0/dev_id"} {
			files[dir+f] = s
		}
		n := adapters(sysFiles(files))
		for _, h := range n.HCAs {
			if len(h.Ports) > 1 {
				t.Errorf("%+v", h)
			}
			for _, p := range h.Ports {
				if p.Gbps != nil && !(*p.Gbps > 0) {
					t.Errorf("rate %v from %q", *p.Gbps, s)
				}
			}
		}
	})
}
