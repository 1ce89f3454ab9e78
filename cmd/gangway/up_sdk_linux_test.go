package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gangway/launcher/auth"
)

// azure returns a program of a Python environment with one of Azure's own
// clients: .cache/dir at the root of the source tree, which .ci/deps.sh makes.
func azure(t *testing.T, dir, program string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", ".cache", dir, "bin", program))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Skipf("no %s (%v): .ci/deps.sh makes .cache/venv-azure-batch, with --all the others too", program, err)
	}
	return path
}

// client runs a program that is a client of the launcher where the launcher is.
// It trusts the launcher's authority by the variables that users set.
func (s *daemon) client(env []string, name string, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	env = append(env, "REQUESTS_CA_BUNDLE="+s.ca, "SSL_CERT_FILE="+s.ca)
	var out []byte
	var err error
	if s.lab != nil {
		c := s.lab.Launcher().Command(ctx, name, args...)
		c.Env = append(c.Env, env...)
		out, err = c.CombinedOutput()
	} else {
		c := exec.CommandContext(ctx, name, args...)
		c.Env = append(os.Environ(), env...)
		out, err = c.CombinedOutput()
	}
	if err != nil {
		s.t.Fatalf("%s: %v\n%s\nthe launcher:\n%s", filepath.Base(name), err, out, s.process.err)
	}
	return string(out)
}

// TestUpPythonSDK drives a launcher and this machine's node by azure-batch,
// unmodified, over TLS with a SharedKey account.
func TestUpPythonSDK(t *testing.T) {
	for _, v := range []struct{ script, venv string }{{"batch15.py", "venv-azure-batch"}, {"batch14.py", "venv-azure-batch14"}} {
		t.Run(strings.TrimSuffix(v.script, ".py"), func(t *testing.T) {
			python := azure(t, v.venv, "python")
			s := upLocal(t)
			keyFile, key := s.account("acct", auth.Admin) // pools and files of nodes are asked for too
			out := s.client(nil, python, filepath.Join("testdata", v.script), s.url(), "acct", keyFile, "1", "hostname")
			if !strings.HasSuffix(out, "done\n") {
				t.Error(out)
			}
			s.secretFree(key)
		})
	}
}

// TestUpAzureCLI drives a launcher by az batch, unmodified.
func TestUpAzureCLI(t *testing.T) {
	az := azure(t, "venv-azure-cli", "az")
	if testing.Short() {
		t.Skip("az takes a second or two for each command")
	}
	s := upLocal(t)
	_, key := s.account("acct", auth.Submitter)
	dir := t.TempDir()
	env := []string{"AZURE_CONFIG_DIR=" + dir, "AZURE_CORE_COLLECT_TELEMETRY=false", "AZURE_BATCH_ACCOUNT=acct",
		"AZURE_BATCH_ENDPOINT=" + s.url(), "AZURE_BATCH_ACCESS_KEY=" + key, "PYTHONWARNINGS=ignore"}
	batch := func(args ...string) any {
		t.Helper()
		out := s.client(env, az, append([]string{"batch"}, append(args, "--only-show-errors", "-o", "json")...)...)
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
	tasks := filepath.Join(dir, "tasks.json")
	if err := os.WriteFile(tasks, []byte(`[{"id":"one","commandLine":"/bin/sh -c 'echo hi'"},{"id":"bad","commandLine":"/bin/sh -c 'exit 4'"},
		{"id":"gang","commandLine":"hostname","multiInstanceSettings":{"numberOfInstances":1,"coordinationCommandLine":""}}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	batch("task", "create", "--job-id", "cli", "--json-file", tasks)
	waitFor(t, "all tasks are completed", time.Minute, func() bool {
		return len(batch("task", "list", "--job-id", "cli", "--filter", "state eq 'completed'").([]any)) == 3
	})
	if v, _ := batch("task", "show", "--job-id", "cli", "--task-id", "bad").(map[string]any); v["executionInfo"].(map[string]any)["exitCode"] != 4.0 {
		t.Errorf("task bad: %v", v)
	}
	file := filepath.Join(dir, "stdout.txt")
	batch("task", "file", "download", "--job-id", "cli", "--task-id", "one", "--file-path", "stdout.txt", "--destination", file)
	if b, err := os.ReadFile(file); err != nil || string(b) != "hi\n" {
		t.Errorf("stdout.txt: %q, %v", b, err)
	}
	if v, _ := batch("job", "task-counts", "show", "--job-id", "cli").(map[string]any); v["taskCounts"].(map[string]any)["failed"] != 1.0 {
		t.Errorf("counts %v", v)
	}
	batch("task", "delete", "--job-id", "cli", "--task-id", "bad", "--yes")
	batch("job", "stop", "--job-id", "cli")
	batch("job", "delete", "--job-id", "cli", "--yes")
	waitFor(t, "the job is gone", 20*time.Second, func() bool { return len(batch("job", "list").([]any)) == 0 })
	s.secretFree(key)
}

// TestUpGang runs a multi-instance task over two hosts as azure-batch's users
// do: one command line on the primary, which calls mpirun and knows nothing of
// the nodes.
func TestUpGang(t *testing.T) {
	for _, v := range []struct{ mpicc, mpirun, venv, script string }{
		{"mpicc.openmpi", "mpirun.openmpi", "venv-azure-batch", "batch15.py"},
		{"mpicc.mpich", "mpirun.mpich", "venv-azure-batch14", "batch14.py"},
	} {
		t.Run(v.mpirun, func(t *testing.T) {
			python := azure(t, v.venv, "python")
			program := hello(t, v.mpicc)
			s := upLab(t, 2)
			keyFile, key := s.account("acct", auth.Admin)
			script, err := filepath.Abs(filepath.Join("testdata", v.script))
			if err != nil {
				t.Fatal(err)
			}
			out := s.client(nil, python, script, s.url(), "acct", keyFile, "2", "UCX_TLS=tcp,self UCX_NET_DEVICES=eth0 "+v.mpirun+" -n 2 "+program)
			for _, want := range []string{"on n1 ", "on n2 ", "sum 1 of 2 ranks"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			s.secretFree(key)
		})
	}
}
