package batchapi

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"

	"gangway/internal/golden"
	"gangway/topology"
	"gangway/topology/probe"
)

// inGangway is what the API says of a node beside Batch.
func inGangway(t *testing.T, body string) (topologyJSON []byte, rest map[string]json.RawMessage) {
	t.Helper()
	var v struct{ Gangway map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	return v.Gangway["topology"], v.Gangway
}

// TestGoldenNodeTopology: the API's object is byte by byte the JSON of the
// recorded machine, as gangway probe prints it but for the indentation.
func TestGoldenNodeTopology(t *testing.T) {
	for _, name := range golden.Files(t, "hwloc-xml", "*.xml") {
		n, err := probe.From(name)
		if err != nil {
			t.Logf("%s is no machine: %v", name, err)
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) { checkTopology(t, n) })
	}
}

func TestNodeTopology(t *testing.T) {
	n, err := probe.Synthetic("pack:2 numa:1 l3:1 core:4 pu:2")
	if err != nil {
		t.Fatal(err)
	}
	n.Hostname = "<n&1>"
	checkTopology(t, n)
}

func checkTopology(t *testing.T, n topology.Node) {
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	if err := e.Encode(n); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	func() {
		defer f.m.lock()()
		f.m.nodes[1].Topology = &n
	}()
	id := f.m.nodes[1].ID
	for _, path := range []string{"/pools/default/nodes/" + id, "/pools/default/nodes/" + id + "?$select=gangway"} {
		got, _ := inGangway(t, f.want(200, f.do("eve", "GET", path, "")).body)
		if !bytes.Equal(got, bytes.TrimSpace(want.Bytes())) {
			t.Errorf("%s: %.300s\nwant %.300s", path, got, want.Bytes())
		}
	}
	if got, rest := inGangway(t, f.want(200, f.do("eve", "GET", "/pools/default/nodes/"+id+"?$select=id", "")).body); rest != nil {
		t.Errorf("not selected: %.100s", got)
	}
	list := func(query string) []byte {
		var v struct{ Value []json.RawMessage }
		body := f.want(200, f.do("eve", "GET", "/pools/default/nodes"+query, "")).body
		if err := json.Unmarshal([]byte(body), &v); err != nil || len(v.Value) == 0 {
			t.Fatal(err, body)
		}
		got, _ := inGangway(t, string(v.Value[0]))
		return got
	}
	if got := list(""); got != nil {
		t.Errorf("the list has it unasked: %.100s", got)
	}
	if got := list("?$select=id,gangway"); got != nil {
		t.Errorf("the list has it with the rest: %.100s", got)
	}
	if got := list("?$select=id,gangway/topology"); !bytes.Equal(got, bytes.TrimSpace(want.Bytes())) {
		t.Errorf("the list has not what was selected: %.100s", got)
	}
}

// TestTopologyOpenAPI: the description has the node's schema, and as many
// properties as the model.
func TestTopologyOpenAPI(t *testing.T) {
	f := newFixture(t)
	a := f.want(200, f.do("eve", "GET", "/gangway/v1/openapi.json", ""))
	schemas := a.json["components"].(map[string]any)["schemas"].(map[string]any)
	for _, name := range []string{"Topology", "TopologyCore", "TopologyGPU", "TopologyHCA", "TopologyCPUSet"} {
		if schemas[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
	properties := schemas["Topology"].(map[string]any)["properties"].(map[string]any)
	for _, p := range propertyNames(topology.Node{}) {
		if properties[p] == nil {
			t.Errorf("Topology has no %s", p)
		}
	}
	gangway := schemas["Node"].(map[string]any)["properties"].(map[string]any)["gangway"].(map[string]any)
	ref := gangway["properties"].(map[string]any)["topology"].(map[string]any)["$ref"]
	if ref != "#/components/schemas/Topology" {
		t.Errorf("a node's topology is %v", ref)
	}
}
