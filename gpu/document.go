package gpu

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"gangway/topology"
)

// HelperName is the program that asks NVML.
const HelperName = "gangway-nvml"

// DocumentSchema is the version of Document that this build writes and reads.
const DocumentSchema = 1

// Document is the one JSON value that the helper prints.
type Document struct {
	Schema  int             `json:"schema"`            // DocumentSchema
	Version string          `json:"version,omitempty"` // of gangway
	GPUs    []topology.GPU  `json:"gpus,omitempty"`
	Links   []topology.Link `json:"links,omitempty"`
	// Warnings name a GPU that does not answer, and what it did not answer.
	Warnings []string `json:"warnings,omitempty"`
	Error    string   `json:"error,omitempty"` // why nothing is known; "" otherwise
}

// maxGPUs bounds what is believed of a node. Real ones have up to 16.
const maxGPUs = 256

// ReadDocument reads what the helper has printed.
func ReadDocument(b []byte) (Document, error) {
	var d Document
	if err := json.Unmarshal(b, &d); err != nil {
		return Document{}, fmt.Errorf("its output is not JSON, after %d bytes: %w", len(b), err)
	}
	if d.Schema != DocumentSchema {
		return Document{}, fmt.Errorf("its output is of schema %d, this gangway reads %d: install the %s that came with it", d.Schema, DocumentSchema, HelperName)
	}
	if len(d.GPUs) > maxGPUs || len(d.Links) > 2*maxGPUs*maxGPUs {
		return Document{}, fmt.Errorf("its output has %d GPUs and %d links, more than a node can have", len(d.GPUs), len(d.Links))
	}
	seen := map[int]bool{}
	for k := range d.GPUs {
		g := &d.GPUs[k]
		if g.Index < 0 || g.Index >= maxGPUs || seen[g.Index] {
			return Document{}, fmt.Errorf("its output has a GPU with the number %d, twice or out of range", g.Index)
		}
		seen[g.Index] = true
		if pci, ok := Address(g.PCI); ok || g.PCI == "" {
			g.PCI = pci
		} else {
			return Document{}, fmt.Errorf("its output has a GPU at the PCI address %q", clip(g.PCI, 40))
		}
		if g.Memory != nil && (*g.Memory == 0 || *g.Memory > 1<<50) {
			g.Memory = nil
		}
		for _, i := range g.MIG {
			if i.Index < 0 || i.Index >= maxGPUs {
				return Document{}, fmt.Errorf("its output has a MIG instance with the number %d", i.Index)
			}
		}
	}
	for i, w := range d.Warnings {
		if !utf8.ValidString(w) || len(w) > 500 {
			d.Warnings[i] = clip(clean([]byte(w)), 500)
		}
	}
	return d, nil
}

func (d Document) result() Result {
	return Result{Source: "nvml", GPUs: d.GPUs, Links: d.Links, Warnings: d.Warnings}
}
