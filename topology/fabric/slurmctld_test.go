package fabric_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gangway/internal/golden"
	"gangway/topology"
	"gangway/topology/fabric"
)

// TestGoldenSlurm starts a real slurmctld with each exported topology.conf and
// asks what it has understood.
func TestGoldenSlurm(t *testing.T) {
	for _, tool := range []string{"slurmctld", "scontrol"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: Slurm can't judge the export", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("not root: slurmctld runs as the user of its configuration")
	}
	dir := golden.Dir(t, "fabric")
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range files {
		t.Run(e.Name(), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			f, err := fabric.Read(bytes.NewReader(text), e.Name())
			if err != nil {
				t.Skipf("nothing to export: %v", err)
			}
			askSlurm(t, f)
		})
	}
	t.Run("three levels", func(t *testing.T) {
		f, err := fabric.Read(strings.NewReader(fatTree{pods: 2, sets: 3, hosts: 4, rails: 2, spines: 2, coreLinks: 1}.ibnetdiscover()), "f")
		if err != nil {
			t.Fatal(err)
		}
		askSlurm(t, f)
	})
}

func askSlurm(t *testing.T, f topology.Fabric) {
	dir := t.TempDir()
	var conf bytes.Buffer
	if err := fabric.WriteSlurmTree(&conf, f); err != nil {
		t.Fatal(err)
	}
	leaves, above := leafSets(f.Domains())
	var nodes []string
	for _, l := range leaves {
		nodes = append(nodes, l...)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ = strings.Cut(host, ".")
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("topology.conf", conf.String())
	write("slurm.conf", fmt.Sprintf(`ClusterName=test
SlurmctldHost=%s(127.0.0.1)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
CommunicationParameters=NoCtldInAddrAny
SlurmctldPort=%d
StateSaveLocation=%[3]s/state
SlurmctldPidFile=%[3]s/slurmctld.pid
ProctrackType=proctrack/pgid
TopologyPlugin=topology/tree
SelectType=select/cons_tres
AccountingStorageType=accounting_storage/none
NodeName=%[4]s NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES
`, host, port, dir, topology.CompactHosts(nodes)))
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var log bytes.Buffer
	ctld := exec.CommandContext(ctx, "slurmctld", "-D", "-c", "-f", filepath.Join(dir, "slurm.conf"))
	ctld.Env = append(os.Environ(), "SLURM_CONF="+filepath.Join(dir, "slurm.conf"))
	ctld.Stdout, ctld.Stderr = &log, &log
	if err := ctld.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- ctld.Wait() }()
	gone := false
	defer func() {
		if !gone {
			_ = ctld.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("slurmctld says:\n%s\nof\n%s", log.String(), conf.String())
		}
	}()
	var out []byte
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		select {
		case err := <-ended:
			gone = true
			t.Fatalf("slurmctld ended: %v", err)
		case <-ctx.Done():
			t.Fatalf("slurmctld does not answer: %s", out)
		case <-tick.C:
		}
		show := exec.CommandContext(ctx, "scontrol", "show", "topology")
		show.Env = ctld.Env
		if out, err = show.CombinedOutput(); err == nil {
			tick.Stop()
			break
		}
	}
	got := map[string]bool{}
	switches := 0
	for _, m := range regexp.MustCompile(`(?m)^SwitchName=\S+ Level=(\d+) .*?Nodes=(\S+)`).FindAllStringSubmatch(string(out), -1) {
		if m[1] != "0" {
			switches++
			continue
		}
		names, err := topology.ExpandHosts(m[2])
		if err != nil {
			t.Errorf("%v in %s", err, m[0])
		}
		got[setKey(names)] = true
	}
	if len(got) != len(leaves) || switches != above {
		t.Errorf("Slurm has %d leaves and %d switches above, exported are %d and %d:\n%s", len(got), switches, len(leaves), above, out)
	}
	for _, l := range leaves {
		if !got[setKey(l)] {
			t.Errorf("Slurm has no leaf with %s:\n%s", topology.CompactHosts(l), out)
		}
	}
}

// setKey is a set of hosts as Slurm may order it.
func setKey(hosts []string) string {
	seen := map[string]bool{}
	for _, h := range hosts {
		seen[h] = true
	}
	return fmt.Sprint(seen) // maps print in the order of their keys
}

// leafSets lists the hosts of each leaf set, and counts the domains above.
func leafSets(d topology.Domain) (sets [][]string, above int) {
	if len(d.Children) == 0 {
		return [][]string{d.Hosts}, 0
	}
	above = 1
	for _, c := range d.Children {
		s, n := leafSets(c)
		sets, above = append(sets, s...), above+n
	}
	return sets, above
}
