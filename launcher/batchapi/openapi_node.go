package batchapi

import (
	"encoding/json"
	"strings"

	"gangway/docs"
)

// topologyPrefix begins the names of a node's parts among the document's
// schemas: the API has a Node of its own.
const topologyPrefix = "Topology"

// topologySchema adds the schema of a node's topology to the document's and
// returns a reference to it.
func topologySchema(schemas object) object {
	var doc struct {
		Ref  string            `json:"$ref"`
		Defs map[string]object `json:"$defs"`
	}
	if err := json.Unmarshal(docs.NodeSchema(), &doc); err != nil {
		return object{"type": "object", "description": "the schema of the node is damaged: " + err.Error()}
	}
	for name, d := range doc.Defs {
		schemas[topologyName(name)] = openAPISchema(d)
	}
	return object{"$ref": "#/components/schemas/" + topologyName(strings.TrimPrefix(doc.Ref, "#/$defs/"))}
}

// topologyName is Topology for the node itself, TopologyCore for its cores.
func topologyName(def string) string {
	if def == "Node" {
		return topologyPrefix
	}
	return topologyPrefix + def
}

// openAPISchema rewrites references. OpenAPI 3.0 takes nothing beside one: it
// goes into allOf where there is a description too.
func openAPISchema(v object) object {
	out := object{}
	for k, x := range v {
		switch x := x.(type) {
		case object:
			if k == "properties" {
				all := object{}
				for name, p := range x {
					if p, ok := p.(object); ok {
						all[name] = openAPISchema(p)
					}
				}
				out[k] = all
				continue
			}
			out[k] = openAPISchema(x)
		default:
			out[k] = x
		}
	}
	ref, ok := out["$ref"].(string)
	if !ok {
		return out
	}
	out["$ref"] = "#/components/schemas/" + topologyName(strings.TrimPrefix(ref, "#/$defs/"))
	if len(out) > 1 {
		out["allOf"] = []object{{"$ref": out["$ref"]}}
		delete(out, "$ref")
	}
	return out
}
