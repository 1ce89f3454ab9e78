package mpi

import (
	"strings"
	"testing"
)

// What the launchers gave to their remote shell in runs over four hosts,
// shortened where a list goes on.
var rshCalls = []struct {
	who     string
	argv    []string
	host    string
	command string
}{
	{"MPICH 4.0.2 and 5.0.2, rsh launcher",
		[]string{"10.0.0.2", `"/usr/bin/hydra_pmi_proxy"`, "--control-port", "10.0.0.1:41945", "--rmk", "user", "--launcher", "rsh", "--launcher-exec", "/tmp/g/rsh", "--demux", "poll", "--pgid", "0", "--retries", "10", "--usize", "-2", "--pmi-port", "0", "--gpus-per-proc", "-2", "--proxy-id", "1"},
		"10.0.0.2", `"/usr/bin/hydra_pmi_proxy" --control-port 10.0.0.1:41945 --rmk user --launcher rsh --launcher-exec /tmp/g/rsh --demux poll --pgid 0 --retries 10 --usize -2 --pmi-port 0 --gpus-per-proc -2 --proxy-id 1`},
	{"MPICH, ssh launcher", []string{"-x", "n2", `"/usr/bin/hydra_pmi_proxy"`, "--proxy-id", "1"}, "n2", `"/usr/bin/hydra_pmi_proxy" --proxy-id 1`},
	{"Intel MPI 2021.18", []string{"10.0.0.1", "/opt/intel/bin//hydra_bstrap_proxy", "--upstream-host", "10.0.0.1", "--upstream-port", "46203", "--tree-width", "4", "/opt/intel/bin//hydra_pmi_proxy", "--usize", "-1"},
		"10.0.0.1", "/opt/intel/bin//hydra_bstrap_proxy --upstream-host 10.0.0.1 --upstream-port 46203 --tree-width 4 /opt/intel/bin//hydra_pmi_proxy --usize -1"},
	{"Open MPI 4.1.4, by name", []string{"n2", " orted", "-mca", "ess", `"env"`, "-mca", "orte_hnp_uri", `"25.0;tcp://10.0.0.1:58595"`}, "n2", ` orted -mca ess "env" -mca orte_hnp_uri "25.0;tcp://10.0.0.1:58595"`},
	{"Open MPI 4.1.4, by path",
		[]string{"10.0.0.2", "          PATH=/usr/bin:$PATH ; export PATH ; LD_LIBRARY_PATH=/usr/lib:${LD_LIBRARY_PATH:-} ; export LD_LIBRARY_PATH ;   /usr/bin/orted", "-mca", "orte_leave_session_attached", `"1"`, "-mca", "orte_node_regex", `"n-[1:0],[2:10].0.0.2@0(2)"`},
		"10.0.0.2", `          PATH=/usr/bin:$PATH ; export PATH ; LD_LIBRARY_PATH=/usr/lib:${LD_LIBRARY_PATH:-} ; export LD_LIBRARY_PATH ;   /usr/bin/orted -mca orte_leave_session_attached "1" -mca orte_node_regex "n-[1:0],[2:10].0.0.2@0(2)"`},
	{"Open MPI 5.0.11", []string{"10.0.0.4", "PRTE_PREFIX=/opt/o;export PRTE_PREFIX;LD_LIBRARY_PATH=/opt/o/lib:$LD_LIBRARY_PATH;export LD_LIBRARY_PATH;/opt/o/bin/prted", "--prtemca", "ess", `"env"`, "--prtemca", "ess_base_nspace", `"prterun-n0-28614@0"`},
		"10.0.0.4", `PRTE_PREFIX=/opt/o;export PRTE_PREFIX;LD_LIBRARY_PATH=/opt/o/lib:$LD_LIBRARY_PATH;export LD_LIBRARY_PATH;/opt/o/bin/prted --prtemca ess "env" --prtemca ess_base_nspace "prterun-n0-28614@0"`},
	{"Open MPI asks for the shell", []string{"n3", "echo", "$SHELL"}, "n3", "echo $SHELL"},
	{"options of ssh", []string{"-q", "-o", "BatchMode=yes", "-oPort=22", "-p22", "-l", "anna", "--", "ben@n1", "true"}, "n1", "true"},
	{"cluster that ends in an option with a value", []string{"-Tnp", "22", "n1", "a", "-x"}, "n1", "a -x"},
	{"a script's own call", []string{"n1", "uptime"}, "n1", "uptime"},
}

func TestParseRsh(t *testing.T) {
	for _, tt := range rshCalls {
		host, command, err := ParseRsh(tt.argv)
		if err != nil || host != tt.host || command != tt.command {
			t.Errorf("%s: ParseRsh(%q) = %q, %q, %v", tt.who, tt.argv, host, command, err)
		}
	}
	for _, bad := range [][]string{nil, {""}, {"-x"}, {"-l"}, {"-l", "n1"}, {"n1"}, {"n1", " "}, {"anna@", "ls"}, {"--"}} {
		if host, command, err := ParseRsh(bad); err == nil {
			t.Errorf("ParseRsh(%q) = %q, %q, want an error", bad, host, command)
		}
	}
}

func FuzzParseRsh(f *testing.F) {
	for _, c := range rshCalls {
		f.Add(strings.Join(c.argv, "\x00"))
	}
	f.Fuzz(func(t *testing.T, s string) {
		argv := strings.Split(s, "\x00")
		host, command, err := ParseRsh(argv)
		if err != nil {
			if host != "" || command != "" {
				t.Errorf("an error and a result: %q %q", host, command)
			}
			return
		}
		if host == "" || strings.Contains(host, "@") || strings.TrimSpace(command) == "" {
			t.Errorf("host %q, command %q", host, command)
		}
		if joined := strings.Join(argv, " "); !strings.HasSuffix(joined, command) {
			t.Errorf("the command %q is not how %q ends", command, joined)
		}
	})
}
