package topology

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// SharedNetwork picks the network that the nodes share: a subnet on which
// every node has an address of its own, on an interface that is up. Among
// several it takes hardware before virtual interfaces and those before bridges
// that lead nowhere (docker0, virbr0, …), then the fastest (by the slowest
// node), IPv4 before IPv6, the lowest interface index on the first node.
//
// prefer is an interface name or a CIDR, "" for none. An interface's name
// takes that interface on every node and a CIDR any address within it; neither
// asks for a common subnet, because routed networks have none.
//
// A single node gets its best address, or the loopback. The results are one a
// node, in the order of nodes. Errors say what each node has.
func SharedNetwork(nodes []Node, prefer string) (addrs []netip.Addr, ifaces []string, err error) {
	if len(nodes) == 0 {
		return nil, nil, errors.New("no nodes to find a network for")
	}
	var choices []netChoice
	var reasons []string
	switch {
	case prefer == "" && len(nodes) == 1:
		if c, ok := bestOfOne(nodes[0]); ok {
			choices = append(choices, c)
		}
	case prefer == "":
		for _, subnet := range subnets(nodes[0]) {
			c, why := choose(nodes, func(i Interface, p netip.Prefix) bool {
				return !i.Loopback && subnet.Contains(p.Addr())
			})
			if why == "" {
				choices = append(choices, c)
			} else if strings.Contains(why, "both") {
				reasons = append(reasons, why)
			}
		}
	default:
		match, err := preferred(prefer)
		if err != nil {
			return nil, nil, err
		}
		c, why := choose(nodes, match)
		if why == "" {
			choices = append(choices, c)
		} else {
			reasons = append(reasons, why)
		}
	}
	if len(choices) == 0 {
		return nil, nil, noNetwork(nodes, prefer, reasons)
	}
	best := slices.MinFunc(choices, compareChoices)
	return best.addrs, best.ifaces, nil
}

// netChoice is one way to connect all nodes.
type netChoice struct {
	addrs  []netip.Addr
	ifaces []string
	class  int // worst of the nodes
	speed  int // slowest of the nodes, 0 unknown
	index  int // interface index on the first node
}

func compareChoices(a, b netChoice) int {
	v6 := func(c netChoice) int {
		if c.addrs[0].Is4() {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(b.speed, a.speed),
		cmp.Compare(v6(a), v6(b)), cmp.Compare(a.index, b.index))
}

// interfaceClass orders interfaces by how likely they lead to other machines.
func interfaceClass(i Interface) int {
	switch {
	case i.Loopback:
		return 3
	case i.Virtual && (i.Kind == "bridge" || privateName(i.Name)):
		return 2
	case i.Virtual:
		return 1 // a veth may be a container's way out
	}
	return 0
}

// privateName knows the bridges that container and VM software makes: their
// subnet has the same number on every machine and leaves none.
func privateName(name string) bool {
	for _, p := range []string{"docker", "virbr", "cni", "flannel", "cali", "podman", "lxcbr", "lxdbr", "br-", "cilium", "vnet", "kube-"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// candidates calls f with every address that can carry a gang's traffic, in
// the order of the interfaces. IPv6 link-local addresses are useless to
// others without a zone.
func candidates(n Node, f func(Interface, netip.Prefix)) {
	for _, i := range n.Interfaces {
		if !i.Up {
			continue
		}
		for _, p := range i.Addrs {
			if a := p.Addr(); p.IsValid() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() {
				f(i, netip.PrefixFrom(a.Unmap(), p.Bits()))
			}
		}
	}
}

// subnets lists the distinct subnets of a node's own interfaces.
func subnets(n Node) []netip.Prefix {
	var out []netip.Prefix
	candidates(n, func(i Interface, p netip.Prefix) {
		if p = p.Masked(); !i.Loopback && !slices.Contains(out, p) {
			out = append(out, p)
		}
	})
	return out
}

// choose takes each node's best address that matches; why is the obstacle.
func choose(nodes []Node, match func(Interface, netip.Prefix) bool) (c netChoice, why string) {
	owner := map[netip.Addr]string{}
	for k, n := range nodes {
		one, ok := bestAddress(n, match)
		if !ok {
			return c, fmt.Sprintf("node %s has no such address", nodeName(n, k))
		}
		a := one.addrs[0]
		if other, taken := owner[a]; taken {
			return c, fmt.Sprintf("both %s and %s have the address %s", other, nodeName(n, k), a)
		}
		owner[a] = nodeName(n, k)
		c.addrs = append(c.addrs, a)
		c.ifaces = append(c.ifaces, one.ifaces[0])
		c.class = max(c.class, one.class)
		if k == 0 {
			c.index, c.speed = one.index, one.speed
		}
		c.speed = min(c.speed, one.speed)
	}
	return c, ""
}

func bestAddress(n Node, match func(Interface, netip.Prefix) bool) (netChoice, bool) {
	var all []netChoice
	candidates(n, func(i Interface, p netip.Prefix) {
		if !match(i, p) {
			return
		}
		c := netChoice{addrs: []netip.Addr{p.Addr()}, ifaces: []string{i.Name}, class: interfaceClass(i), index: i.Index}
		if i.SpeedMbps != nil {
			c.speed = *i.SpeedMbps
		}
		all = append(all, c)
	})
	if len(all) == 0 {
		return netChoice{}, false
	}
	return slices.MinFunc(all, compareChoices), true
}

// bestOfOne is a lone node's address: its ranks talk to themselves, so the
// loopback will do when there is no other.
func bestOfOne(n Node) (netChoice, bool) {
	return bestAddress(n, func(i Interface, p netip.Prefix) bool { return true })
}

func preferred(prefer string) (func(Interface, netip.Prefix) bool, error) {
	if !strings.Contains(prefer, "/") {
		return func(i Interface, _ netip.Prefix) bool { return i.Name == prefer }, nil
	}
	cidr, err := netip.ParsePrefix(prefer)
	if err != nil {
		return nil, fmt.Errorf("network %q: expected an interface name or a CIDR such as 10.0.0.0/8", clip(prefer))
	}
	return func(_ Interface, p netip.Prefix) bool { return cidr.Contains(p.Addr()) }, nil
}

func noNetwork(nodes []Node, prefer string, reasons []string) error {
	var b strings.Builder
	switch {
	case prefer != "":
		fmt.Fprintf(&b, "network %q does not connect the nodes", clip(prefer))
	case len(nodes) == 1:
		b.WriteString("the node has no network address, not even a loopback")
	default:
		b.WriteString("the nodes share no subnet")
	}
	for _, r := range reasons {
		b.WriteString("; " + r)
	}
	const shown = 16
	for k, n := range nodes {
		if k == shown {
			fmt.Fprintf(&b, "\n  and %d more nodes", len(nodes)-shown)
			break
		}
		fmt.Fprintf(&b, "\n  %s: %s", nodeName(n, k), describeAddrs(n))
	}
	if len(nodes) > 1 {
		b.WriteString("\nname an interface, or a CIDR that holds one address of every node if the network between them is routed")
	}
	return errors.New(b.String())
}

func describeAddrs(n Node) string {
	var all []string
	for _, i := range n.Interfaces {
		s := i.Name
		for _, p := range i.Addrs {
			if !p.Addr().IsLinkLocalUnicast() {
				s += " " + p.String()
			}
		}
		if !i.Up {
			s += " (down)"
		}
		if s != i.Name && !i.Loopback {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return "no address but the loopback"
	}
	return strings.Join(all, ", ")
}

func nodeName(n Node, k int) string {
	if n.Hostname != "" {
		return n.Hostname
	}
	return fmt.Sprintf("node %d", k)
}
