package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFabricCommand(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "topology.conf")
	if err := os.WriteFile(conf, []byte("SwitchName=s0 Nodes=n[1-4]\nSwitchName=s1 Nodes=n[5-8]\nSwitchName=s2 Switches=s[0-1,7]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("switches:\n  - title: a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	svg := filepath.Join(dir, "f.svg")
	for _, c := range []struct {
		args   string
		status int
		stdout []string
		stderr string
	}{
		{"show --from " + conf, 0, []string{"2 leaves, 1 spine, 8 hosts\n", "  s2  8 hosts\n  ├─ s0  4 hosts: n[1-4]\n  └─ s1  4 hosts: n[5-8]\n", "topology.conf:3: switch s7 is below s2 but defined nowhere"}, ""},
		{"show --from " + conf + " --json", 0, []string{`"leaf_sets": 2`, `"domains": {`}, ""},
		{"show --from " + conf + " --svg " + svg, 0, []string{"Switches"}, ""},
		{"show --from " + conf + " --svg -", 0, []string{"<svg "}, ""},
		{"export --from " + conf, 0, []string{"SwitchName=s0 Nodes=n[1-4]\nSwitchName=s1 Nodes=n[5-8]\nSwitchName=s2 Switches=s[0-1]\n"}, "defined nowhere"},
		{"export --block --from " + conf, 0, []string{"BlockName=s0 Nodes=n[1-4]\nBlockName=s1 Nodes=n[5-8]\nBlockSizes=4,8\n"}, "defined nowhere"},
		{"export --yaml --from " + conf, 0, []string{"switches:\n"}, "defined nowhere"},
		{"show", exitUsage, nil, "which fabric?"},
		{"show --from " + bad, exitFailed, nil, "bad.yaml:2:5: the key \"title\" is not known"},
		{"show --from " + filepath.Join(dir, "none"), exitFailed, nil, "no such file"},
	} {
		t.Run(c.args, func(t *testing.T) {
			var out, errs bytes.Buffer
			a := &app{stdin: os.Stdin, stdout: &out, stderr: &errs}
			root := newRoot(a)
			root.SetArgs(append([]string{"fabric"}, strings.Fields(c.args)...))
			if got := report(&errs, a.json, root.Execute()); got != c.status {
				t.Errorf("exit status %d, wanted %d", got, c.status)
			}
			for _, s := range c.stdout {
				if !strings.Contains(out.String(), s) {
					t.Errorf("the output lacks %q:\n%s", s, out.String())
				}
			}
			if !strings.Contains(errs.String(), c.stderr) {
				t.Errorf("standard error lacks %q:\n%s", c.stderr, errs.String())
			}
		})
	}
	if b, err := os.ReadFile(svg); err != nil || !bytes.HasPrefix(b, []byte("<svg ")) {
		t.Errorf("the picture: %v, %.20q", err, b)
	}
}
