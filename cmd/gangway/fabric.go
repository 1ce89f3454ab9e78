package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gangway/topology"
	"gangway/topology/fabric"
)

func newFabricCommand(a *app) *cobra.Command {
	return group("fabric", "Show a network's switches, leaf sets and rails, or write them for Slurm",
		`Show a network's switches, leaf sets and rails, or write them for Slurm.
The file is what ibnetdiscover printed, a topology.conf or topology.yaml of Slurm,
or YAML of your own (docs/fabric.md); its format is recognised.`,
		newFabricShow(a), newFabricExport(a))
}

func newFabricShow(a *app) *cobra.Command {
	var from, svg string
	c := &cobra.Command{
		Use: "show --from FILE", Short: "Draw a fabric: rails, leaf sets with their hosts, switches, warnings", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			f, err := a.readFabric(from)
			if err != nil {
				return err
			}
			d := fabric.Describe(f)
			if svg != "" {
				var b bytes.Buffer
				if err := fabric.WriteSVG(&b, d); err != nil {
					return err
				}
				if svg == "-" {
					_, err := a.stdout.Write(b.Bytes())
					return err
				}
				if err := os.WriteFile(svg, b.Bytes(), 0o666); err != nil {
					return err
				}
			}
			if a.json {
				return a.encode(d)
			}
			return fabric.Render(a.stdout, d)
		},
	}
	c.Flags().StringVar(&from, "from", "", "file to read; - is standard input")
	c.Flags().StringVar(&svg, "svg", "", "write a picture to this file too; - writes only it, to standard output")
	return c
}

func newFabricExport(a *app) *cobra.Command {
	var from string
	var block, yaml bool
	c := &cobra.Command{
		Use: "export --from FILE", Short: "Write a fabric as Slurm's topology.conf", Args: noArgs,
		Long: `Write a fabric as a topology.conf for Slurm's topology/tree, or with --block for
topology/block. Slurm has one place for a node: hosts whose ports go to the same
set of leaves are below one switch, named after the first leaf of the set.`,
		RunE: func(*cobra.Command, []string) error {
			f, err := a.readFabric(from)
			if err != nil {
				return err
			}
			for _, w := range f.Warnings {
				fmt.Fprintln(a.stderr, "gangway:", printable(w))
			}
			switch {
			case a.json:
				return a.encode(fabric.Describe(f))
			case yaml:
				return fabric.WriteYAML(a.stdout, f)
			case block:
				return fabric.WriteSlurmBlocks(a.stdout, f)
			}
			return fabric.WriteSlurmTree(a.stdout, f)
		},
	}
	c.Flags().StringVar(&from, "from", "", "file to read; - is standard input")
	c.Flags().BoolVar(&block, "block", false, "write for topology/block: a block is a leaf set")
	c.Flags().BoolVar(&yaml, "yaml", false, "write gangway's own YAML, with all that was read")
	c.MarkFlagsMutuallyExclusive("block", "yaml")
	return c
}

// readFabric reads the file of --from. When nothing of it is of use, what is
// wrong with its parts goes to standard error first.
func (a *app) readFabric(from string) (topology.Fabric, error) {
	var in io.Reader = a.stdin
	name := "standard input"
	switch from {
	case "":
		return topology.Fabric{}, usagef("give --from FILE: what ibnetdiscover printed, a topology.conf, or YAML", "which fabric?")
	case "-":
	default:
		file, err := os.Open(from)
		if err != nil {
			return topology.Fabric{}, err
		}
		defer file.Close()
		in, name = file, filepath.Base(from)
	}
	f, err := fabric.Read(in, name)
	if err != nil {
		for _, w := range f.Warnings {
			fmt.Fprintln(a.stderr, "gangway:", printable(w))
		}
	}
	return f, err
}
