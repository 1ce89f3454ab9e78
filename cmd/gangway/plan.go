package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"gangway/launcher"
	"gangway/launcher/sched"
	"gangway/mpi/preflight"
	"gangway/topology"
)

// planDocument is `gangway plan --json`.
type planDocument struct {
	Nodes     []planNode       `json:"nodes"`
	Ranks     []launcher.Place `json:"ranks"`
	Hostfile  string           `json:"hostfile"`
	Argv      []string         `json:"argv"`
	Env       []string         `json:"env"`
	Unset     []string         `json:"unset"`
	MPI       string           `json:"mpi"`
	Version   string           `json:"mpi_version,omitempty"`
	Launcher  string           `json:"mpi_launcher,omitempty"`
	Linked    string           `json:"linked,omitempty"`
	Via       string           `json:"via"`
	Program   string           `json:"program"`
	Preflight string           `json:"preflight"` // off, fast or full
}

type planNode struct {
	Node      string `json:"node"`
	Address   string `json:"address,omitempty"`
	Interface string `json:"interface,omitempty"`
	FirstRank int    `json:"first_rank"`
	Ranks     int    `json:"ranks"`
	RankList  string `json:"rank_list,omitempty"` // where they are not consecutive
	CPUs      string `json:"cpus"`
	Leaf      string `json:"leaf,omitempty"` // switch, or set of switches, if the fabric is known
}

func (a *app) printPlan(res launcher.RunResult, fabric *sched.Fabric, checks string) error {
	if res.Plan == nil || res.Attempt == nil {
		return errors.New("the first node reported no plan")
	}
	p := res.Plan
	d := planDocument{
		Ranks: places(res), Hostfile: p.Hostfile, Argv: nonNil(p.Argv), Env: nonNil(p.Env), Unset: nonNil(p.Unset),
		MPI: p.MPI, Version: p.MPIVersion, Launcher: p.MPILauncher, Linked: p.Linked, Via: p.Via, Program: p.Program,
		Preflight: cmp.Or(checks, "fast"),
	}
	for _, x := range res.Attempt.Parts {
		d.Nodes = append(d.Nodes, planNode{Node: x.Node, Address: x.Address, Interface: x.Interface,
			FirstRank: x.FirstRank, Ranks: x.Ranks, RankList: x.RankList, CPUs: x.CPUs.String(), Leaf: fabric.Leaf(x.Node)})
	}
	if a.json {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(d)
	}
	fmt.Fprintf(a.stdout, "launch    %s\n", planLine(*p))
	fmt.Fprintf(a.stdout, "program   %s\n", p.Program)
	fmt.Fprintf(a.stdout, "checks    %s\n", checksLine(checks))
	if p.Linked != "" {
		fmt.Fprintf(a.stdout, "links     %s\n", p.Linked)
	}
	if fabric != nil {
		fmt.Fprintf(a.stdout, "leaves    %s\n", leafLine(d.Nodes))
	}
	fmt.Fprintln(a.stdout)
	tw := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "RANK\tNODE\tADDRESS\tCPUS\tTHREADS\tNUMA\tGPUS\tNICS")
	addr := map[string]string{}
	for _, n := range d.Nodes {
		addr[n.Node] = n.Address
	}
	for _, r := range d.Ranks {
		cpus := r.CPUs
		if cpus == "" {
			cpus = "any granted"
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", r.Rank, r.Node, dash(addr[r.Node]), cpus, r.Threads,
			dash(topology.NewCPUSet(r.Mem...).String()), dash(strings.Join(r.GPUs, ",")), dash(strings.Join(r.NICs, ",")))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if p.Hostfile != "" {
		fmt.Fprintf(a.stdout, "\nhostfile  %s\n%s", p.HostfileAt, indent(p.Hostfile))
	}
	if len(p.Argv) > 0 {
		fmt.Fprintf(a.stdout, "\nargv\n  %s\n", shellJoin(p.Argv))
	}
	if len(p.Env) > 0 {
		fmt.Fprintf(a.stdout, "\nenvironment\n%s", indent(strings.Join(p.Env, "\n")))
	}
	return nil
}

// leafLine tells the leaf switches of a gang with their nodes, in rank order.
func leafLine(nodes []planNode) string {
	var leaves []string
	on := map[string][]string{}
	for _, n := range nodes {
		leaf := n.Leaf
		if leaf == "" {
			leaf = "not on the fabric"
		}
		if on[leaf] == nil {
			leaves = append(leaves, leaf)
		}
		on[leaf] = append(on[leaf], n.Node)
	}
	for i, l := range leaves {
		leaves[i] = l + ": " + topology.CompactHosts(on[l])
	}
	return strings.Join(leaves, "; ")
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func indent(s string) string {
	var b strings.Builder
	for _, l := range strings.Split(strings.TrimRight(s, "\n"), "\n") {
		b.WriteString("  " + l + "\n")
	}
	return b.String()
}

// shellJoin quotes words so that the line can be pasted into a shell.
func shellJoin(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_") != "" {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		out[i] = w
	}
	return strings.Join(out, " ")
}

// checksLine says what would be checked on the nodes before the start.
func checksLine(mode string) string {
	var names []string
	for _, d := range preflight.Checks() {
		if !d.Full || mode == "full" {
			names = append(names, d.Name)
		}
	}
	if mode == "off" {
		return "off"
	}
	return fmt.Sprintf("%s: %s", cmp.Or(mode, "fast"), strings.Join(names, " "))
}
