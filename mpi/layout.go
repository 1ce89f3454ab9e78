package mpi

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
)

// NodeSlot is one node's part of a gang.
type NodeSlot struct {
	// Name goes into the hostfile and comes back as the remote shell's HOST:
	// the node's data-plane address, or a name that needs no resolving but by
	// the remote shell.
	Name     string
	Hostname string // what the node calls itself
	Ranks    int    // > 0
	// Interface and Address carry the gang's traffic on this node. Both may be
	// empty for a gang of one node.
	Interface string
	Address   netip.Addr
}

// Layout is where a gang's ranks go. Nodes[0] is where mpirun runs; ranks are
// numbered blockwise in the nodes' order, unless Order says otherwise.
type Layout struct {
	Nodes []NodeSlot
	Order []int // for each rank the index of its node in Nodes; nil: blockwise
}

// Ranks returns the number of ranks in all.
func (l Layout) Ranks() int {
	n := 0
	for _, node := range l.Nodes {
		n += node.Ranks
	}
	return n
}

func (l Layout) check() error {
	if len(l.Nodes) == 0 {
		return fmt.Errorf("layout without nodes")
	}
	seen := map[string]bool{}
	for i, n := range l.Nodes {
		switch {
		case n.Name == "" || strings.ContainsAny(n.Name, " \t\n\r#:,="):
			// A colon would start Hydra's count, so that IPv6 addresses can't
			// stand in its hostfiles either.
			return fmt.Errorf("node %d of the gang has the name %q, which no hostfile can hold: use its IPv4 address or its host name", i, n.Name)
		case n.Name[0] == '-':
			return fmt.Errorf("node %d of the gang has the name %q, which a remote shell would take for an option", i, n.Name)
		case n.Ranks <= 0:
			return fmt.Errorf("node %s of the gang has %d ranks: give it at least 1 or leave it out", n.Name, n.Ranks)
		case seen[n.Name]:
			return fmt.Errorf("node %s stands twice in the gang", n.Name)
		}
		seen[n.Name] = true
	}
	return l.checkOrder()
}

// Facts is what Build needs to know of the primary and of the gang.
type Facts struct {
	Launcher Launcher
	// RankWrapper is what mpirun starts in place of the program, Rsh what it
	// uses as its remote shell: absolute, the same on every node, without
	// arguments (launchers exec the remote shell as one word).
	RankWrapper string
	Rsh         string
	// Dir is the gang's private directory, the same path on every node. The
	// files of a Launch lie in it.
	Dir string
	// Subnet is the network that carries the gang's traffic on every node;
	// interfaces may be named differently from node to node. Zero when
	// unknown or when there is one node.
	Subnet netip.Prefix
	// Root is true when the launcher will run with effective uid 0.
	Root bool
	// Oversubscribed is true when a node has more ranks than granted cores.
	Oversubscribed bool
	// Env is what the launch will inherit, after the set-up script. Build only
	// looks in it for choices of the user's that it must not overrule.
	Env []string
}

func (f Facts) check(nodes int) error {
	if err := absolute("gang directory", f.Dir, f.Launcher.Flavour); err != nil {
		return err
	}
	if nodes > 1 && f.Launcher.Flavour != None && f.Launcher.Flavour != MSMPI {
		return absolute("remote shell", f.Rsh, f.Launcher.Flavour)
	}
	return nil
}

// absolute refuses paths that some launcher would not take as they are: they
// go through shells and into lists on their way to the other nodes.
func absolute(what, p string, flavour Flavour) error {
	if flavour == MSMPI {
		if path.IsAbs(p) || len(p) > 2 && p[1] == ':' && (p[2] == '\\' || p[2] == '/') || strings.HasPrefix(p, `\\`) {
			return nil
		}
	} else if path.IsAbs(p) && !strings.ContainsAny(p, " \t\n\"'\\$;&|<>()*?[]`,:") {
		return nil
	}
	return fmt.Errorf("the %s %q must be an absolute path without blanks, quotes or characters that a shell takes for its own", what, p)
}

func netmask(p netip.Prefix) string {
	m := ^uint32(0) << (32 - p.Bits())
	return fmt.Sprintf("%s/%d.%d.%d.%d", p.Masked().Addr(), byte(m>>24), byte(m>>16), byte(m>>8), byte(m))
}

// File is a file to write on the primary before the launch.
type File struct {
	Path    string
	Mode    uint32 // permission bits
	Content string
}

// Launch is what to run on the primary, and with what around it.
type Launch struct {
	// Argv is empty when there is nothing to run: gangway starts the ranks, or
	// the primary's command, itself.
	Argv []string
	Env  []string // K=V to set, sorted
	// Unset has names to remove from the environment, or prefixes of names if
	// they end in "*", beyond what Scrub removes.
	Unset    []string
	Files    []File
	Hostfile string // path of the main one among Files
}

// Environ returns the environment for the launch: what is inherited, scrubbed,
// without Unset, with Env.
func (l Launch) Environ(inherited []string) []string {
	set := make(map[string]bool, len(l.Env))
	for _, kv := range l.Env {
		name, _, _ := strings.Cut(kv, "=")
		set[name] = true
	}
	var out []string
	for _, kv := range Scrub(inherited) {
		name, _, _ := strings.Cut(kv, "=")
		if !set[name] && !matchAny(l.Unset, name) {
			out = append(out, kv)
		}
	}
	return append(out, l.Env...)
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(name, prefix) || p == name {
			return true
		}
	}
	return false
}
