package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gangway/topology"
	"gangway/topology/bind"
	"gangway/topology/probe"
)

// maxPlanRanks keeps a typing error from filling memory; no node runs as many.
const maxPlanRanks = 1_000_000

// fromFlags are those of a plan for a machine that is not here.
type fromFlags struct {
	from, cpus, mems string
}

func (f *fromFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.from, "from", "", "map the ranks of the machine of a record, a dump of /sys and /proc, hwloc's XML or a synthetic description; no command is needed")
	fl.StringVar(&f.cpus, "cpus", "", "with --from: cpus to use, for example 0-7,16 (default: all that are allowed)")
	fl.StringVar(&f.mems, "mems", "", "with --from: NUMA nodes to use, for example 0 (default: all)")
	c.MarkFlagsMutuallyExclusive("from", "hosts")
	c.MarkFlagsMutuallyExclusive("from", "hostfile")
	c.MarkFlagsMutuallyExclusive("from", "agents")
}

// unused refuses the flags that only mean something with --from.
func (f *fromFlags) unused(given func(string) bool) error {
	for _, name := range []string{"cpus", "mems"} {
		if given(name) {
			return usagef("the nodes' cpus are the launcher's to give", "--%s is for plans of other machines: give --from too", name)
		}
	}
	return nil
}

// fromDocument is `gangway plan --from --json`.
type fromDocument struct {
	Node     string     `json:"node"`
	Ranks    []fromRank `json:"ranks"`
	Warnings []string   `json:"warnings,omitempty"`
}

// fromRank is the place of a rank: cpus in list format, by the operating
// system's numbers; empty: unbound.
type fromRank struct {
	Rank    int               `json:"rank"`
	Threads int               `json:"threads"`
	CPUs    string            `json:"cpus"`
	GPUs    []string          `json:"gpus"`
	Mem     []int             `json:"mem"`
	NICs    []string          `json:"nics"`
	Env     map[string]string `json:"env"`
}

func (a *app) planFrom(f *runFlags, m *fromFlags) error {
	r, err := m.request(f)
	if err != nil {
		return err
	}
	n, err := probe.From(m.from)
	if err != nil {
		return err
	}
	r.Node = n
	if m.cpus == "" {
		r.Granted = n.Allowed
	}
	if n.Hostname == "" {
		r.Node.Hostname = filepath.Base(m.from)
	}
	places, err := bind.Map(r)
	if err != nil {
		return err
	}
	d := fromDocument{Node: r.Node.Hostname, Warnings: n.Warnings}
	same := map[string]map[string]string{} // ranks that share a place share its variables
	for i, p := range places {
		x := fromRank{Rank: i, Threads: p.Threads, CPUs: p.CPUs.String(), GPUs: nonNil(p.GPUs), Mem: p.MemNodes, NICs: nonNil(p.NICs)}
		if x.Mem == nil {
			x.Mem = []int{}
		}
		key := p.String()
		if same[key] == nil {
			same[key] = map[string]string{}
			for _, v := range bind.Env(n, p, nil) {
				name, value, _ := strings.Cut(v, "=")
				same[key][name] = value
			}
		}
		x.Env = same[key]
		d.Ranks = append(d.Ranks, x)
	}
	if a.json {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(d)
	}
	return a.printFrom(d)
}

// request reads the flags; the machine is not in it yet.
func (m *fromFlags) request(f *runFlags) (bind.Request, error) {
	r := bind.Request{Ranks: f.ranks, Threads: f.threads, SMT: f.smt, NoGreedy: f.noGreedy, Oversubscribe: f.oversubscribe, GPUsPerRank: f.gpus}
	switch {
	case f.ranks == 0 && !f.given("ranks"):
		return r, usagef("gangway plan --from FILE -n 8", "give the number of ranks")
	case f.ranks < 1 || f.ranks > maxPlanRanks:
		return r, usagef(fmt.Sprintf("give a number from 1 to %d", maxPlanRanks), "-n %d", f.ranks)
	}
	for _, c := range []struct {
		flag string
		n    int
	}{{"cpus-per-rank", f.cores}, {"gpus-per-rank", f.gpus}, {"threads", f.threads}, {"smt", f.smt}} {
		if f.given(c.flag) && (c.n < 1 || c.n > 1<<20) {
			return r, usagef("give a number from 1", "--%s %d", c.flag, c.n)
		}
	}
	if f.given("cpus-per-rank") {
		r.CoresPerRank = f.cores
	}
	var err error
	if r.Mode, err = bind.ParseMode(f.bind); err != nil {
		return r, usagef("auto, core, numa, socket, gpu or none", "--bind: %v", err)
	}
	if r.Optimize, err = bind.ParseOptimize(f.optimize); err != nil {
		return r, usagef("gpu or cpu", "--optimize: %v", err)
	}
	if r.Granted, err = topology.ParseCPUSet(m.cpus); err != nil {
		return r, usagef("for example 0-7,16", "--cpus: %v", err)
	}
	if r.Mems, err = topology.ParseCPUSet(m.mems); err != nil {
		return r, usagef("for example 0,1", "--mems: %v", err)
	}
	return r, nil
}

func (a *app) printFrom(d fromDocument) error {
	for _, w := range d.Warnings {
		fmt.Fprintln(a.stderr, "gangway: warning:", w)
	}
	fmt.Fprintf(a.stdout, "node      %s\n\n", d.Node)
	tw := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "RANK\tTHREADS\tCPUS\tNUMA\tGPUS\tNICS")
	for _, r := range d.Ranks {
		var mem []string
		for _, m := range r.Mem {
			mem = append(mem, strconv.Itoa(m))
		}
		cpus := r.CPUs
		if cpus == "" {
			cpus = "any"
		}
		fmt.Fprintf(tw, "%d\t%d\t%s\t%s\t%s\t%s\n", r.Rank, r.Threads, cpus, dash(strings.Join(mem, ",")),
			dash(strings.Join(r.GPUs, ",")), dash(strings.Join(r.NICs, ",")))
	}
	return tw.Flush()
}
