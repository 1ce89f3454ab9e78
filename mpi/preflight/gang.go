package preflight

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gangway/mpi"
	"gangway/topology"
)

// network judges how the nodes reach each other.
func (c *checker) network() {
	names := map[int]string{}
	for _, n := range c.gang {
		names[n.Index] = n.Node
	}
	for _, n := range c.gang {
		for _, d := range n.Dials {
			if d.Err == "" {
				continue
			}
			c.add(c.severe(), "connect", n.Node, "look whether a firewall or a route keeps these nodes apart: the ranks need every TCP port between the gang's nodes",
				"no TCP connection to %s (%s): %s", orUnknown(names[d.To], d.To), d.Addr, d.Err)
		}
		c.names(n)
	}
	c.lookalikes()
}

func orUnknown(name string, index int) string {
	if name == "" {
		return fmt.Sprintf("member %d", index)
	}
	return name
}

// names judges what a node takes the others for. Addresses serve launchers
// that take them, so names are wrong only where they are needed.
func (c *checker) names(n Facts) {
	level := Warning
	if c.plan.NeedNames {
		level = Error
	}
	const hint = "give it its network address in DNS or in /etc/hosts there"
	want := map[string]Facts{}
	for _, m := range c.gang {
		want[m.Hostname] = m
	}
	for _, r := range n.Names {
		m, known := want[r.Name]
		switch {
		case r.Err != "":
			c.add(level, "name", n.Node, hint, "the host name %s does not resolve: %s", r.Name, r.Err)
		case slices.ContainsFunc(r.Addrs, func(a netip.Addr) bool { return a.IsLoopback() }):
			own := ""
			if r.Name == n.Hostname {
				own = "its own "
			}
			c.add(level, "name", n.Node, hint, "%shost name %s resolves to %s: other nodes that are told so look for it on themselves", own, r.Name, join(r.Addrs))
		case known && c.plan.NeedNames && !hasAny(m, r.Addrs):
			c.add(level, "name", n.Node, hint, "the host name %s resolves to %s, which is none of its addresses", r.Name, join(r.Addrs))
		}
	}
}

func join(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

func hasAny(n Facts, addrs []netip.Addr) bool {
	for _, i := range n.Interfaces {
		for _, p := range i.Addrs {
			if slices.Contains(addrs, p.Addr()) {
				return true
			}
		}
	}
	return slices.Contains(addrs, n.Address)
}

// lookalikes finds addresses that several nodes have: docker0, virbr0 and
// their like, which libraries that choose by themselves take for a network.
func (c *checker) lookalikes() {
	type owner struct{ node, iface string }
	owners := map[netip.Addr][]owner{}
	var order []netip.Addr
	for _, n := range c.gang {
		for _, i := range n.Interfaces {
			if i.Loopback || !i.Up {
				continue
			}
			for _, p := range i.Addrs {
				a := p.Addr()
				if a.IsLinkLocalUnicast() || a.IsLoopback() || !a.IsValid() {
					continue
				}
				if len(owners[a]) == 0 {
					order = append(order, a)
				}
				owners[a] = append(owners[a], owner{n.Node, i.Name})
			}
		}
	}
	set := len(Settings(c.gang, c.plan)) > 0
	for _, a := range order {
		if len(owners[a]) < 2 {
			continue
		}
		f := Finding{Level: Warning, Check: "interface",
			Hint: "name the network with --network and the library's own variable (UCX_NET_DEVICES, FI_TCP_IFACE), or take the interface down"}
		var ifaces []string
		for _, o := range owners[a] {
			f.Nodes = append(f.Nodes, o.node)
			if !slices.Contains(ifaces, o.iface) {
				ifaces = append(ifaces, o.iface)
			}
		}
		f.Message = fmt.Sprintf("they have the same address %s on %s, which leads to no other node", a, strings.Join(ifaces, ", "))
		switch {
		case set:
			f.Level, f.Hint = Note, ""
			f.Message += ": UCX_NET_DEVICES and FI_TCP_IFACE keep MPI to the interface of the gang's network"
		case !c.plan.parallel() || c.choseInterface() || c.plan.Flavour == mpi.OpenMPI && !c.plan.Full || active(c.gang[0].HCAs):
			continue // nothing will take it
		}
		c.found = append(c.found, f)
	}
}

func (c *checker) choseInterface() bool { return chose(c.plan.Env) }

func chose(env []string) bool {
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if value == "" {
			continue
		}
		switch name {
		case "UCX_NET_DEVICES", "FI_TCP_IFACE", "FI_SOCKETS_IFACE", "FI_PROVIDER", "I_MPI_OFI_PROVIDER", "I_MPI_FABRICS", "MPIR_CVAR_CH3_NETWORK_IFACE", "MV2_IBA_HCA":
			return true
		}
	}
	return false
}

// Settings returns the variables (K=V, by member) that keep UCX and libfabric
// to the gang's network. They are set only where there is proof that the
// libraries could choose wrongly: an interface with the same address on
// several nodes, no adapter that they would prefer, nothing chosen by the user.
func Settings(gang []Facts, plan Plan) map[int][]string {
	if plan.Flavour != mpi.MPICH && plan.Flavour != mpi.Intel || len(gang) < 2 || chose(plan.Env) {
		return nil
	}
	seen := map[netip.Addr]int{}
	same := false
	for _, n := range gang {
		if n.Interface == "" || len(n.HCAs) > 0 {
			return nil
		}
		for _, i := range n.Interfaces {
			for _, p := range i.Addrs {
				if a := p.Addr(); i.Up && !i.Loopback && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
					if by, ok := seen[a]; ok && by != n.Index {
						same = true
					}
					seen[a] = n.Index
				}
			}
		}
	}
	if !same {
		return nil
	}
	out := make(map[int][]string, len(gang))
	for _, n := range gang {
		out[n.Index] = []string{"UCX_NET_DEVICES=" + n.Interface, "FI_TCP_IFACE=" + n.Interface}
	}
	return out
}

// fabric compares the nodes' adapters.
func (c *checker) fabric() {
	c.devices()
	if !c.usesFabric() {
		return
	}
	with := 0
	kinds := map[string][]string{}
	var order []string
	for _, n := range c.gang {
		if !active(n.HCAs) {
			continue
		}
		with++
		k := kind(n.HCAs)
		if len(kinds[k]) == 0 {
			order = append(order, k)
		}
		kinds[k] = append(kinds[k], n.Node)
	}
	if with == 0 {
		for _, n := range c.gang {
			if len(n.HCAs) > 0 {
				c.add(Warning, "hca-port", n.Node, "look at the cables and the subnet manager (ibstat)", "no port of its adapters is active: MPI falls back to TCP")
			}
		}
		return
	}
	for _, n := range c.gang {
		switch {
		case len(n.HCAs) > 0 && !active(n.HCAs):
			c.add(Error, "hca-port", n.Node, "look at its cable and at the subnet manager (ibstat), or leave the node out",
				"no port of its adapters is active (%s), those of other nodes are", ports(n.HCAs))
		case len(n.HCAs) == 0:
			c.add(Warning, "hca", n.Node, "leave the node out, or choose TCP for all (UCX_TLS=tcp,self,sm; FI_PROVIDER=tcp)",
				"it has no InfiniBand adapter, other nodes of the gang have")
		}
	}
	if len(order) > 1 {
		var parts []string
		for _, k := range order {
			parts = append(parts, topology.CompactHosts(kinds[k])+" "+k)
		}
		c.found = append(c.found, Finding{Level: Warning, Check: "provider", Message: "the nodes' adapters are of different kinds, so libfabric and UCX may choose differently: " + strings.Join(parts, "; "),
			Hint: "run on nodes of one kind, or choose the provider for all (FI_PROVIDER, UCX_TLS)"})
	}
	c.downPorts()
}

// downPorts warns of a port that is down on a node and works on most others.
func (c *checker) downPorts() {
	up := map[string]int{}
	for _, n := range c.gang {
		for _, h := range n.HCAs {
			for _, p := range h.Ports {
				if p.State == "ACTIVE" {
					up[fmt.Sprintf("%s:%d", h.Name, p.Number)]++
				}
			}
		}
	}
	for _, n := range c.gang {
		if !active(n.HCAs) {
			continue // said already
		}
		for _, h := range n.HCAs {
			for _, p := range h.Ports {
				if name := fmt.Sprintf("%s:%d", h.Name, p.Number); p.State != "ACTIVE" && 2*up[name] > len(c.gang) {
					c.add(Warning, "hca-port", n.Node, "look at its cable and at the subnet manager (ibstat)", "port %s is %s, on most other nodes it is active", name, p.State)
				}
			}
		}
	}
}

// kind names what a node's working adapters are.
func kind(hcas []topology.HCA) string {
	var out []string
	for _, h := range hcas {
		for _, p := range h.Ports {
			if p.State != "ACTIVE" {
				continue
			}
			k := p.LinkLayer
			switch {
			case strings.HasPrefix(h.Name, "hfi1"):
				k = "Omni-Path"
			case strings.HasPrefix(h.Name, "efa"), strings.HasPrefix(h.Name, "rdmap"):
				k = "EFA"
			case k == "Ethernet":
				k = "RoCE"
			case k == "":
				k = "InfiniBand"
			}
			if !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "+")
}

func ports(hcas []topology.HCA) string {
	var out []string
	for _, h := range hcas {
		for _, p := range h.Ports {
			out = append(out, fmt.Sprintf("%s:%d %s", h.Name, p.Number, p.State))
		}
	}
	return strings.Join(out, ", ")
}

// devices looks for the devices that the user has named.
func (c *checker) devices() {
	for _, kv := range c.plan.Env {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case "UCX_NET_DEVICES", "FI_TCP_IFACE", "FI_VERBS_IFACE", "MV2_IBA_HCA", "OMPI_MCA_btl_openib_if_include":
		default:
			continue
		}
		if value == "" || value == "all" || strings.ContainsAny(value, "*^=/") {
			continue
		}
		for _, n := range c.gang {
			if len(n.Interfaces) == 0 && len(n.HCAs) == 0 {
				continue
			}
			var gone []string
			all := strings.Split(value, ",")
			for _, d := range all {
				d, _, _ := strings.Cut(strings.TrimSpace(d), ":")
				if !slices.ContainsFunc(n.Interfaces, func(i topology.Interface) bool { return i.Name == d }) &&
					!slices.ContainsFunc(n.HCAs, func(h topology.HCA) bool { return h.Name == d }) {
					gone = append(gone, d)
				}
			}
			level := Warning
			if len(gone) == len(all) {
				level = c.severe()
			}
			if len(gone) > 0 {
				c.add(level, "device", n.Node, "name devices that every node has, or leave the variable out", "%s names %s, which is not there", name, strings.Join(gone, ", "))
			}
		}
	}
}

// libraries compares the MPI that the program gets with the primary's.
func (c *checker) libraries() {
	if len(c.gang) == 0 || c.gang[0].Index != 0 || c.gang[0].MPI == nil {
		return
	}
	want := *c.gang[0].MPI
	const hint = "give every node the same MPI: the same module in --setup, the same package"
	for _, n := range c.gang[1:] {
		switch m := n.MPI; {
		case m == nil:
		case m.Path == "" || want.Path == "": // said by "library"
		case m.Soname != want.Soname || m.Flavour != want.Flavour && m.Flavour != "" && want.Flavour != "":
			c.add(Error, "mpi-library", n.Node, hint, "the program gets another MPI than on %s: %s there is %s, here %s", c.gang[0].Node, want.Soname, want.Path, m.Path)
		case m.File != want.File && m.File != "" && want.File != "":
			c.add(Error, "mpi-library", n.Node, hint, "the program gets another version of its MPI than on %s: %s, there %s", c.gang[0].Node, m.File, want.File)
		case m.Build != "" && want.Build != "" && m.Build != want.Build, (m.Build == "" || want.Build == "") && m.Size != want.Size:
			c.add(Warning, "mpi-library", n.Node, hint, "the program's MPI, %s, is another build than on %s", m.Path, c.gang[0].Node)
		}
	}
}

// skewLimit is how far a clock may be off before somebody should know: log
// lines of several nodes can't be put in order then, and make builds twice.
const skewLimit = time.Second

// clocks compares the nodes' clocks with the primary's. What a node sent
// between a question and its answer needs no clock of its own to be right.
func (c *checker) clocks() {
	for _, n := range c.gang {
		got, ok := c.plan.Got[n.Index]
		if n.Index == 0 || !ok || n.Sent.IsZero() || c.plan.Asked.IsZero() {
			continue
		}
		var off time.Duration
		switch {
		case n.Sent.Before(c.plan.Asked):
			off = n.Sent.Sub(c.plan.Asked)
		case n.Sent.After(got):
			off = n.Sent.Sub(got)
		}
		if off > skewLimit || off < -skewLimit {
			way := "ahead of"
			if off < 0 {
				way = "behind"
			}
			c.add(Warning, "clock", n.Node, "look at its time service (chronyc tracking)", "its clock is %v %s %s's", off.Abs().Round(100*time.Millisecond), way, c.gang[0].Node)
		}
	}
}
