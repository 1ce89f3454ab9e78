package topology_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"gangway/topology"
)

// iface describes an interface: name, kind, speed (0 unknown), addresses.
func iface(index int, name, kind string, speed int, addrs ...string) topology.Interface {
	i := topology.Interface{Name: name, Index: index, Kind: kind, Up: true,
		Loopback: kind == "loopback", Virtual: kind != "ethernet" && kind != "infiniband"}
	if speed > 0 {
		i.SpeedMbps = &speed
	}
	for _, a := range addrs {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	return i
}

func down(i topology.Interface) topology.Interface {
	i.Up = false
	return i
}

func TestSharedNetwork(t *testing.T) {
	lo := iface(1, "lo", "loopback", 0, "127.0.0.1/8", "::1/128")
	docker := iface(3, "docker0", "bridge", 0, "172.17.0.1/16")
	for _, test := range []struct {
		name   string
		prefer string
		nodes  [][]topology.Interface
		want   string // addr%iface of each node
		err    string
	}{
		{name: "plain", want: "10.0.0.1%eth0 10.0.0.2%eth0", nodes: [][]topology.Interface{
			{lo, iface(2, "eth0", "ethernet", 1000, "10.0.0.1/24")},
			{lo, iface(2, "eth0", "ethernet", 1000, "10.0.0.2/24")}}},
		{name: "fastest", want: "10.1.0.1%ib0 10.1.0.2%ib1", nodes: [][]topology.Interface{
			{lo, iface(2, "eth0", "ethernet", 1000, "10.0.0.1/24"), iface(5, "ib0", "infiniband", 100000, "10.1.0.1/16")},
			{lo, iface(2, "eth0", "ethernet", 1000, "10.0.0.2/24"), iface(7, "ib1", "infiniband", 100000, "10.1.0.2/16")}}},
		{name: "the slowest node counts", want: "10.0.0.1%eth0 10.0.0.2%eth0", nodes: [][]topology.Interface{
			{iface(2, "eth0", "ethernet", 10000, "10.0.0.1/24"), iface(3, "eth1", "ethernet", 100000, "10.1.0.1/24")},
			{iface(2, "eth0", "ethernet", 10000, "10.0.0.2/24"), iface(3, "eth1", "ethernet", 1000, "10.1.0.2/24")}}},
		{name: "lowest index", want: "10.0.0.1%a 10.0.0.2%a", nodes: [][]topology.Interface{
			{iface(4, "b", "ethernet", 0, "10.1.0.1/24"), iface(2, "a", "ethernet", 0, "10.0.0.1/24")},
			{iface(4, "b", "ethernet", 0, "10.1.0.2/24"), iface(2, "a", "ethernet", 0, "10.0.0.2/24")}}},
		{name: "IPv4 first", want: "10.0.0.1%eth0 10.0.0.2%eth0", nodes: [][]topology.Interface{
			{iface(2, "eth0", "ethernet", 0, "fe80::1/64", "fd00::1/64", "10.0.0.1/24")},
			{iface(2, "eth0", "ethernet", 0, "fe80::2/64", "fd00::2/64", "10.0.0.2/24")}}},
		{name: "IPv6 only", want: "fd00::1%eth0 fd00::2%eth0", nodes: [][]topology.Interface{
			{lo, iface(2, "eth0", "ethernet", 0, "fe80::1/64", "fd00::1/64")},
			{lo, iface(2, "eth0", "ethernet", 0, "fe80::2/64", "fd00::2/64")}}},
		{name: "docker0 is no network", err: "both a and b have the address 172.17.0.1", nodes: [][]topology.Interface{
			{lo, docker, iface(2, "eth0", "ethernet", 0, "10.0.0.1/24")},
			{lo, docker, iface(2, "eth0", "ethernet", 0, "10.0.1.2/24")}}},
		{name: "private bridges last", want: "10.0.0.1%veth0 10.0.0.2%veth0", nodes: [][]topology.Interface{
			{iface(2, "docker0", "bridge", 10000, "172.17.0.1/16"), iface(3, "veth0", "veth", 0, "10.0.0.1/24")},
			{iface(2, "docker0", "bridge", 10000, "172.17.0.2/16"), iface(3, "veth0", "veth", 0, "10.0.0.2/24")}}},
		{name: "link down", err: "a: eth0 10.0.0.1/24\n  b: eth0 10.0.0.2/24 (down)", nodes: [][]topology.Interface{
			{iface(2, "eth0", "ethernet", 0, "10.0.0.1/24")},
			{down(iface(2, "eth0", "ethernet", 0, "10.0.0.2/24"))}}},
		{name: "loopback is not shared", err: "a: no address but the loopback", nodes: [][]topology.Interface{{lo}, {lo}}},
		{name: "by name, routed", prefer: "eth0", want: "10.0.0.1%eth0 10.0.1.2%eth0", nodes: [][]topology.Interface{
			{iface(2, "eth0", "ethernet", 0, "10.0.0.1/32")},
			{iface(2, "eth0", "ethernet", 0, "10.0.1.2/32")}}},
		{name: "by CIDR", prefer: "10.1.0.0/16", want: "10.1.0.1%b 10.1.9.2%c", nodes: [][]topology.Interface{
			{iface(2, "a", "ethernet", 9, "10.0.0.1/24"), iface(3, "b", "ethernet", 0, "10.1.0.1/24")},
			{iface(2, "a", "ethernet", 9, "10.0.0.2/24"), iface(3, "c", "ethernet", 0, "10.1.9.2/24")}}},
		{name: "no such interface", prefer: "ib0", err: `network "ib0" does not connect the nodes; node a has no such address`, nodes: [][]topology.Interface{
			{iface(2, "eth0", "ethernet", 0, "10.0.0.1/24")}}},
		{name: "bad CIDR", prefer: "10.0.0/8", err: "expected an interface name or a CIDR", nodes: [][]topology.Interface{{lo}}},
		{name: "one node", want: "10.0.0.1%eth0", nodes: [][]topology.Interface{
			{lo, docker, iface(4, "eth0", "ethernet", 0, "10.0.0.1/24")}}},
		{name: "one node, no network", want: "127.0.0.1%lo", nodes: [][]topology.Interface{{lo}}},
		{name: "one node, loopback by CIDR", prefer: "127.0.0.0/8", want: "127.0.0.1%lo", nodes: [][]topology.Interface{{lo}}},
		{name: "nothing", err: "not even a loopback", nodes: [][]topology.Interface{nil}},
		{name: "no nodes", err: "no nodes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var nodes []topology.Node
			for k, i := range test.nodes {
				nodes = append(nodes, topology.Node{Hostname: string(rune('a' + k)), Interfaces: i})
			}
			addrs, ifaces, err := topology.SharedNetwork(nodes, test.prefer)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v %v, error %v; want error %q", addrs, ifaces, err, test.err)
				}
				return
			}
			var got []string
			for k := range addrs {
				got = append(got, fmt.Sprintf("%s%%%s", addrs[k], ifaces[k]))
			}
			if err != nil || strings.Join(got, " ") != test.want {
				t.Errorf("got %v, %v; want %s", got, err, test.want)
			}
		})
	}
}
