package probe

import (
	"errors"
	"io"

	"gangway/topology"
)

// foreign reads descriptions that are no files of a machine: hwloc's XML, or a
// synthetic description.
func foreign(kind foreignKind, _ io.Reader) (topology.Node, error) {
	return topology.Node{}, errors.New(string(kind) + " is no kind of record that this version reads")
}

type foreignKind string

const (
	foreignXML       foreignKind = "XML"
	foreignSynthetic foreignKind = "a synthetic description"
)
