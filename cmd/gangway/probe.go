package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"gangway/launcher"
	"gangway/nodeagent"
	"gangway/topology"
	"gangway/topology/probe"
)

func newProbeCommand(a *app) *cobra.Command {
	f := &runFlags{}
	var from, svg string
	var full, matrix bool
	c := &cobra.Command{
		Use:   "probe",
		Short: "Show a machine: sockets, NUMA nodes, caches, cores, memory, networks, limits",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.given = cmd.Flags().Changed
			if from != "" {
				n, err := probe.From(from)
				if err != nil {
					return err
				}
				return a.showNode(n, svg, full, matrix)
			}
			if f.hosts == "" && !f.given("hosts") {
				n, err := probe.Live()
				if err != nil {
					return err
				}
				exe, _ := os.Executable() // "": the helper is looked for in PATH
				nodeagent.ProbeGPUs(cmd.Context(), &n, nodeagent.GPUSource{}, exe)
				return a.showNode(n, svg, full, matrix)
			}
			if svg != "" || matrix {
				return usagef("gangway probe --json --hosts HOST > FILE, then gangway probe --from FILE", "--svg and --matrix show one machine, not those of --hosts")
			}
			return a.probeHosts(cmd.Context(), f, full)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.hosts, "hosts", "", "hosts to probe by ssh: a hostlist such as n[1-4,7]")
	fl.StringVarP(&f.sshConfig, "ssh-config", "F", "", "ssh configuration to use in place of ~/.ssh/config")
	fl.StringVar(&f.agentBinary, "agent-binary", "", "gangway built for the nodes' architecture, if it differs")
	fl.StringVar(&f.base, "tmpdir", "", "see gangway run")
	fl.StringVar(&from, "from", "", "show the machine of a record, a dump of /sys and /proc, hwloc's XML or a synthetic description instead")
	fl.StringVar(&svg, "svg", "", "draw the machine to a file as SVG instead (- is standard output)")
	fl.BoolVar(&full, "full", false, "show every core and PU, not only once what is the same")
	fl.BoolVar(&matrix, "matrix", false, "print how far GPUs and NICs are from each other, as nvidia-smi topo -m does, instead")
	c.MarkFlagsMutuallyExclusive("from", "hosts")
	c.MarkFlagsMutuallyExclusive("svg", "matrix", "full")
	c.AddCommand(newProbeRecordCommand(a))
	return c
}

func newProbeRecordCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "record > FILE",
		Short: "Write what the probe reads of this machine to a file that probe --from reads, without names, addresses and serial numbers",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if f, ok := a.stdout.(*os.File); ok {
				if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
					return errors.New("the record is an archive, not text: send it to a file (gangway probe record > FILE)")
				}
			}
			return probe.Record(a.stdout)
		},
	}
}

type named struct {
	name string
	node topology.Node
	err  error
}

// probeHosts asks every host's agent, which probes at its start. One host that
// fails does not hide the others.
func (a *app) probeHosts(ctx context.Context, f *runFlags, full bool) error {
	entries, err := f.hostEntries()
	if err != nil {
		return err
	}
	p, err := f.provider(entries, func(s string) { fmt.Fprintln(a.stderr, "gangway:", s) })
	if err != nil {
		return poolError(err)
	}
	defer p.Close()
	out := make([]named, len(entries))
	var wg sync.WaitGroup
	for i, n := range p.Nodes() {
		wg.Go(func() {
			out[i].name = n.Name
			out[i].node, out[i].err = launcher.Probe(ctx, p, n.Name, who())
		})
	}
	wg.Wait()
	err = a.printNodes(out, full)
	var errs []error
	for _, n := range out {
		if n.err != nil {
			errs = append(errs, n.err)
		}
	}
	if len(errs) > 0 {
		if len(errs) == 1 {
			return poolError(errs[0])
		}
		return errors.Join(errs...)
	}
	return err
}

func (a *app) printNodes(nodes []named, full bool) error {
	if a.json {
		var v []topology.Node
		for _, n := range nodes {
			if n.err == nil {
				v = append(v, n.node)
			}
		}
		return a.encode(v)
	}
	for i, n := range nodes {
		if n.err != nil {
			continue
		}
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if err := renderNode(a.stdout, n, full); err != nil {
			return err
		}
	}
	return nil
}

func renderNode(w io.Writer, n named, full bool) error {
	if n.name != "" {
		fmt.Fprintf(w, "%s:\n", n.name)
	}
	return topology.Render(w, n.node, topology.RenderOptions{Full: full})
}
