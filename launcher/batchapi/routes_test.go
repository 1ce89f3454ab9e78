package batchapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func mac(key, text string) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

var update = flag.Bool("update", false, "write docs/batch-operations.md anew")

// TestOperationsPage: the page of operations is the table of routes.
func TestOperationsPage(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Azure Batch operations\n\nEvery operation of Batch's data plane, as this version of gangway answers it. Made from the table of routes by\n" +
		"`go test ./launcher/batchapi -run TestOperationsPage -update`; a test fails when it is old.\n\n" +
		"*works*: as Azure's, with the remark. *not yet*, *not here* (it has no meaning on machines of your own): answered by 501 with Batch's error body.\n\n" +
		"| operation | request | answer | remark |\n|---|---|---|---|\n")
	works := 0
	for _, r := range routes() {
		if r.ours() {
			continue
		}
		answer := "works"
		switch {
		case r.handle == nil && r.never:
			answer = "not here"
		case r.handle == nil:
			answer = "not yet"
		case strings.HasPrefix(r.why, "refused"):
			answer = "not here"
		default:
			works++
		}
		fmt.Fprintf(&b, "| %s | `%s %s` | %s | %s |\n", r.name, r.method, strings.ReplaceAll(r.path, "...}", "}"), answer, r.why)
	}
	b.WriteString("\n## Beside Batch\n\nThese need no api-version; `/gangway/v1/openapi.json` describes all that is answered.\n\n| request | what | remark |\n|---|---|---|\n")
	for _, r := range gangwayRoutes() {
		fmt.Fprintf(&b, "| `%s %s` | %s | %s |\n", r.method, strings.ReplaceAll(r.path, "...}", "}"), r.name, r.why)
	}
	b.WriteString(propertiesPage)
	page := filepath.Join("..", "..", "docs", "batch-operations.md")
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil || string(have) != b.String() {
		t.Errorf("%s is not what the routes say (%v): run the test with -update", page, err)
	}
	if works < 40 {
		t.Errorf("only %d operations work", works)
	}
}

// propertiesPage ends the page of operations: what bodies may hold.
const propertiesPage = `
## Properties

| property | answer |
|---|---|
| task commandLine | works: no shell; blanks separate words, quotes and backslashes keep together, nothing is expanded |
| task environmentSettings, job commonEnvironmentSettings | works; names that begin with GANGWAY_ are settings of gangway: the fields of the object gangway in capitals (GANGWAY_RANKS_PER_NODE) |
| task requiredSlots | works: a slot is a core; of a multi-instance task, on every node |
| task constraints | works: maxWallClockTime, maxTaskRetryCount (up to 1000; -1 is no limit); retentionTime (of the files on each node that the task ran on; 7 days if not given) |
| task multiInstanceSettings | works: numberOfInstances; coordinationCommandLine runs on every node before the launch, for up to 60 s, and must succeed. Without gangway.mpi the command line runs once, on the first node; with it, it is the program of every rank |
| task gangway | works: mpi launch ranks ranksPerNode coresPerRank gpusPerRank memPerRank (bytes) oversubscribe via bind threads smt optimize noGreedy preflight switches switchesWait spread distribution network setup bcast workdir killGrace launchDeadline onNodeLoss priority (within the job) dependsOn backoff backoffMax retryElsewhere signal signalBefore. In PUT, absent keeps and null clears; a change holds for the attempts to come, is refused (409) while one runs or when the task came by gangway submit, and (400) when no node could ever run it. array: not yet, refused |
| task affinityInfo | kept, without effect |
| task userIdentity | a task runs as the node user of its job's owner; anything else is refused |
| task dependsOn | works. taskIds may name elements of arrays (A_3); taskIdRanges stand for ids in decimal digits, at most 100,000 in all; the object gangway's dependsOn takes arrays, elements and names (A[1-10],sim-\*). Tasks may depend on tasks that are added later: they wait. What would close a cycle is refused |
| task exitConditions | works; fileUploadError never happens: nothing is uploaded. A task whose parent failed is not left active, as in Azure: it completes with failureInfo DependencyFailed, which names the parent, and is active again when the parent is reactivated |
| task resourceFiles, outputFiles, applicationPackageReferences, containerSettings, commonResourceFiles | not yet: refused, unless they are empty |
| job priority, constraints, metadata, onAllTasksComplete, displayName, poolInfo.poolId | works |
| job gangway | owner, to read only |
| job maxParallelTasks | works, and elements of arrays count |
| job usesTaskDependencies, onTaskFailure | work; they can't change after the job was added |
| job allowTaskPreemption | not yet: refused, unless it is false |
| job jobManagerTask, jobPreparationTask, jobReleaseTask, networkConfiguration, autoPoolSpecification | not yet: refused |
| nodeDeallocationOption | requeue, terminate, taskcompletion; not retaineddata |
| lists | $filter (eq ne lt le gt ge and or not startswith, properties a/b), $select, maxresults 1 to 1000; $expand=stats is accepted, without effect. A page may be short and still have a next one |
`

// TestRoutes: no two routes answer the same request, and the document is whole.
func TestRoutes(t *testing.T) {
	f := newFixture(t)
	seen := map[string]bool{}
	ids := map[string]bool{}
	for _, r := range routes() {
		key := r.method + " " + r.path
		if seen[key] || ids[operationID(&r)] {
			t.Errorf("%s (%s) is there twice", key, r.name)
		}
		seen[key], ids[operationID(&r)] = true, true
		if r.handle == nil && r.why == "" {
			t.Errorf("%s is not answered, without a reason", key)
		}
	}
	a := f.want(200, f.do("eve", "GET", "/gangway/v1/openapi.json", ""))
	paths := a.json["paths"].(map[string]any)
	if a.json["openapi"] != "3.0.3" || paths["/jobs/{jobId}/tasks/{taskId}/files/{filePath}"] == nil || paths["/jobschedules"] != nil {
		t.Errorf("%.500s", a.body)
	}
	schemas := a.json["components"].(map[string]any)["schemas"].(map[string]any)
	for rest := a.body; ; {
		_, after, ok := strings.Cut(rest, "#/components/schemas/")
		if !ok {
			break
		}
		name, after, _ := strings.Cut(after, `"`)
		if schemas[name] == nil {
			t.Errorf("no schema %s", name)
		}
		rest = after
	}
}
