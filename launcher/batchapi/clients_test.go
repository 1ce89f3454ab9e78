package batchapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// client returns a program of a Python environment that holds one of Azure's own
// clients: $GANGWAY_name, or .cache/dir at the root of the source tree.
func client(t *testing.T, variable, dir, program string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		path = filepath.Join("..", "..", ".cache", dir)
	}
	path, err := filepath.Abs(filepath.Join(path, "bin", program))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Skipf("no %s (%v): .ci/deps.sh --all makes .cache/%s; or name another in %s", program, err, dir, variable)
	}
	return path
}

func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestPythonSDK drives the API by azure-batch, unmodified.
func TestPythonSDK(t *testing.T) {
	python := client(t, "GANGWAY_AZURE_BATCH_VENV", "venv-azure-batch", "python")
	if exec.Command(python, "-c", "import azure.batch").Run() != nil {
		t.Skipf("%s has no azure-batch", python)
	}
	f := newFixture(t)
	f.m.completeAll()
	out := run(t, nil, python, filepath.Join("testdata", "quickstart.py"), f.url, "acct", base64.StdEncoding.EncodeToString([]byte(sharedKey)))
	if !strings.Contains(out, "quickstart done") {
		t.Error(out)
	}
}

// TestAzureCLI drives the API by az batch, unmodified.
func TestAzureCLI(t *testing.T) {
	az := client(t, "GANGWAY_AZURE_CLI_VENV", "venv-azure-cli", "az")
	if testing.Short() {
		t.Skip("az takes a second or two for each command")
	}
	f := newFixture(t)
	f.m.completeAll()
	dir := t.TempDir()
	env := []string{"AZURE_CONFIG_DIR=" + dir, "AZURE_CORE_COLLECT_TELEMETRY=false", "AZURE_BATCH_ACCOUNT=acct", "AZURE_BATCH_ENDPOINT=" + f.url,
		"AZURE_BATCH_ACCESS_KEY=" + base64.StdEncoding.EncodeToString([]byte(sharedKey)), "PYTHONWARNINGS=ignore"}
	batch := func(args ...string) any {
		t.Helper()
		out := run(t, env, az, append([]string{"batch"}, append(args, "--only-show-errors", "-o", "json")...)...)
		var v any
		if strings.TrimSpace(out) != "" {
			if err := json.Unmarshal([]byte(out), &v); err != nil {
				t.Fatalf("az batch %s: %v\n%s", strings.Join(args, " "), err, out)
			}
		}
		return v
	}
	if v := batch("pool", "list").([]any); len(v) != 1 {
		t.Errorf("pools %v", v)
	}
	batch("job", "create", "--id", "cli", "--pool-id", "default")
	batch("task", "create", "--job-id", "cli", "--task-id", "one", "--command-line", "/bin/sh -c 'echo hi'")
	tasks := filepath.Join(dir, "tasks.json")
	if err := os.WriteFile(tasks, []byte(`[{"id":"two","commandLine":"true"},{"id":"gang","commandLine":"mpirun x","multiInstanceSettings":{"numberOfInstances":2,"coordinationCommandLine":"true"}}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	batch("task", "create", "--job-id", "cli", "--json-file", tasks)
	if v := batch("task", "list", "--job-id", "cli", "--filter", "state eq 'completed'").([]any); len(v) != 3 {
		t.Errorf("tasks %v", v)
	}
	if v := batch("task", "show", "--job-id", "cli", "--task-id", "gang").(map[string]any); v["state"] != "completed" {
		t.Errorf("task %v", v)
	}
	file := filepath.Join(dir, "stdout.txt")
	batch("task", "file", "download", "--job-id", "cli", "--task-id", "one", "--file-path", "stdout.txt", "--destination", file)
	if b, err := os.ReadFile(file); err != nil || string(b) != "hello from one\n" {
		t.Errorf("stdout.txt: %q, %v", b, err)
	}
	batch("job", "stop", "--job-id", "cli")
	batch("job", "delete", "--job-id", "cli", "--yes")
	defer f.m.lock()()
	if len(f.m.jobs) != 0 {
		t.Error("the job is still there")
	}
}
