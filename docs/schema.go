// Package docs has those documents in the program that it shows to others.
package docs

import _ "embed" // for node.schema.json

//go:embed node.schema.json
var nodeSchema string

// NodeSchema returns the JSON Schema (2020-12) of topology.Node's JSON: what
// gangway probe --json prints and the node objects of the API have. It is made
// from the types and their comments; node.md explains it.
func NodeSchema() []byte { return []byte(nodeSchema) }
