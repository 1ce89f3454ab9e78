package main

import (
	"bytes"
	"fmt"
	"os"

	"gangway/topology"
)

// showNode shows one machine in the way that was asked for.
func (a *app) showNode(n topology.Node, svg string, full, matrix bool) error {
	switch {
	case svg != "":
		var b bytes.Buffer
		if err := topology.WriteSVG(&b, n); err != nil {
			return err
		}
		if svg == "-" {
			_, err := a.stdout.Write(b.Bytes())
			return err
		}
		if err := os.WriteFile(svg, b.Bytes(), 0o666); err != nil {
			return fmt.Errorf("the picture was not written: %w", err)
		}
		return nil
	case matrix && a.json:
		return a.encode(topology.Matrix(n))
	case matrix:
		return topology.RenderMatrix(a.stdout, topology.Matrix(n))
	case a.json:
		return a.encode(n)
	}
	return topology.Render(a.stdout, n, topology.RenderOptions{Full: full})
}
