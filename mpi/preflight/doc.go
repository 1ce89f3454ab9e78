package preflight

import "strings"

// Doc describes a check for people.
type Doc struct {
	Name   string // Finding.Check
	Looks  string // at what
	Level  string // of its findings
	Remedy string
	Full   bool // only with full
}

// Checks returns all checks.
func Checks() []Doc {
	return []Doc{
		{"connect", "each node reaches the primary by TCP, the next node and those 2, 4, 8, … further (`full`: all, up to 64 nodes)", "error; warning without MPI", "open every TCP port between the gang's nodes", false},
		{"name", "each member's host name resolves on each node, and not to a loopback address; fast only where the launcher needs names (no IPv4 data address)", "error where names are needed, else warning", "DNS or /etc/hosts with the network address; Debian's `127.0.1.1` line taken out", false},
		{"interface", "an address that several nodes have (docker0, virbr0, …)", "note where gangway sets UCX_NET_DEVICES and FI_TCP_IFACE, else warning", "`--network`, the library's own variable", false},
		{"device", "devices named by UCX_NET_DEVICES, FI_TCP_IFACE, … are on every node", "error if none of them is, else warning", "name devices that every node has", false},
		{"hca-port", "an adapter's port is active where other nodes' are", "error if no port is, else warning", "cable, subnet manager", false},
		{"hca", "a node without an adapter among nodes with one", "warning", "leave it out, or TCP for all", false},
		{"provider", "adapters of one kind (InfiniBand, RoCE, Omni-Path, EFA) on all nodes", "warning", "nodes of one kind, or FI_PROVIDER, UCX_TLS", false},
		{"memlock", "RLIMIT_MEMLOCK of at least 64 MiB where an adapter is used", "error", "limits.conf: `* hard memlock unlimited`", false},
		{"processes", "RLIMIT_NPROC against the user's threads and 8 a rank", "warning", "limits.conf: nproc", false},
		{"files", "RLIMIT_NOFILE against a connection to every rank", "warning", "limits.conf: nofile", false},
		{"shm", "free space of /dev/shm: 4 MiB a rank (16 MiB: warning), for nodes with 2 ranks and more", "error, warning", "a larger tmpfs, `--shm-size`", false},
		{"stale", "shared-memory and session files of dead processes of the user's in /dev/shm and /tmp", "warning", "the `rm` line of the message", false},
		{"tmpdir", "a file can be made in the ranks' TMPDIR", "error; warning without MPI", "`--tmpdir`", false},
		{"tmpdir-length", "TMPDIR of at most 60 bytes, for unix sockets below it", "warning", "`--tmpdir /tmp`", false},
		{"disk", "free space and inodes of TMPDIR: 1 MiB and 100 (64 MiB and 1,000: warning)", "error (warning without MPI), warning", "free space", false},
		{"task-root", "the same for the task root of kept jobs", "warning", "free space", false},
		{"affinity", "the granted cpus against the affinity of the process that starts the ranks", "error", "the cpuset of the agent's service or container", false},
		{"slots", "ranks against the granted cores", "error", "fewer ranks, `--oversubscribe`", false},
		{"library", "the program's loader finds every library, on each node", "error", "install it, LD_LIBRARY_PATH in `--setup`", false},
		{"mpi-library", "the MPI that the program gets, against the primary's: soname and file name (build: warning)", "error, warning", "the same module or package on all nodes", false},
		{"launcher", "the helpers that mpirun starts (hydra_pmi_proxy, orted, prted) are at the same place on each node", "error", "the same MPI at the same place", false},
		{"clock", "clocks within 1 s of the primary's", "warning", "time service", false},
		{"answer", "a node answers within 10 s, and what it could not find out", "warning", "look at the node", false},
		{"latency", "round trips between nodes, measured", "warning", "the node's cable, port and driver", true},
		{"bandwidth", "bytes a second between nodes, measured", "warning", "the node's cable, port and driver", true},
	}
}

// Table returns the checks as a Markdown table.
func Table() string {
	var b strings.Builder
	b.WriteString("| check | looks at | finding | remedy |\n|---|---|---|---|\n")
	for _, d := range Checks() {
		name := "`" + d.Name + "`"
		if d.Full {
			name += " (full)"
		}
		b.WriteString("| " + name + " | " + d.Looks + " | " + d.Level + " | " + d.Remedy + " |\n")
	}
	return b.String()
}
