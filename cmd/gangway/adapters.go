package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"gangway/topology"
)

// renderAdapters prints the InfiniBand adapters of a machine of which nothing else is
// known, a port a line, and the warnings.
func renderAdapters(out io.Writer, n topology.Node) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row(w, []string{"ADAPTER", "TYPE", "FIRMWARE", "PCI", "PORT", "STATE", "LINK", "RATE"})
	for _, h := range n.HCAs {
		at := []string{h.Name, h.Type, h.Firmware, h.PCI}
		if len(h.Ports) == 0 {
			row(w, append(at, "", "", "", ""))
		}
		for _, p := range h.Ports {
			row(w, append(at[:4:4], strconv.Itoa(p.Number), p.State, p.LinkLayer, p.Rate))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i, s := range n.Warnings {
		if i == 0 {
			fmt.Fprintln(out, "Warnings")
		}
		if _, err := fmt.Fprintln(out, "  "+printable(s)); err != nil {
			return err
		}
	}
	return nil
}
