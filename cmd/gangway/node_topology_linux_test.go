package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lasting takes out of a node's JSON what changes from one look to the next.
func lasting(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v: %.200s", err, text)
	}
	delete(v, "shm_bytes")
	delete(v, "memlock_bytes") // the agent may raise its own limit
	delete(v, "interfaces")    // networks of other tests come and go
	if m, ok := v["memory"].(map[string]any); ok {
		delete(m, "available")
	}
	return v
}

// TestNodeTopology: the API's node and gangway node show have the machine as
// gangway probe --json prints it.
func TestNodeTopology(t *testing.T) {
	up(t)
	var node []string
	waitFor(t, "the node is idle", 20*time.Second, func() bool {
		out, _, _ := gangway("", "node", "list")
		node = regexp.MustCompile(`(?m)^(\S+) +idle`).FindStringSubmatch(out)
		return node != nil
	})
	probed := lasting(t, []byte(want(t, 0, ".", "", "probe", "--json")))
	var shown struct {
		Gangway struct{ Topology json.RawMessage }
	}
	if err := json.Unmarshal([]byte(want(t, 0, ".", "", "node", "show", node[1], "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(probed, lasting(t, shown.Gangway.Topology)); diff != "" {
		t.Errorf("(-probe +node):\n%s", diff)
	}
	cores := len(probed["cores"].([]any))
	want(t, 0, fmt.Sprintf(`topology +[^\n]*%d cores?, [0-9]+ PU`, cores), "", "node", "show", node[1])
}
