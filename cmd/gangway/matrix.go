package main

import (
	"fmt"
	"io"

	"gangway/topology"
)

// renderDistances prints how far GPUs and adapters are from each other, if the
// node has any.
func renderDistances(w io.Writer, n topology.Node) error {
	if len(n.GPUs)+len(n.HCAs) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w, "Distances"); err != nil {
		return err
	}
	return topology.RenderMatrix(w, topology.Matrix(n))
}
