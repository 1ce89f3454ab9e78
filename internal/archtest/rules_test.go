package archtest

// gangway is the project's architecture: the table of ARCHITECTURE.md, with the
// packages that are planned. A row without a package is no fault.
func gangway() Rules {
	const (
		connect  = "connectrpc.com/connect"
		protobuf = "google.golang.org/protobuf"
		sys      = "golang.org/x/sys"
		ssh      = "golang.org/x/crypto/ssh"
	)
	return Rules{
		Module:   "gangway",
		TopLevel: []string{"launcher", "nodeagent", "topology", "mpi", "gpu", "benchmarks", "cmd", "internal", "docs", "examples", ".ci"},
		OSRooms:  []string{"nodeagent/proc", "topology/probe", "launcher/auth", "internal"},
		Rows: []Row{
			{Path: "topology", Pure: true, Why: "a model that everyone shares knows no one"},
			{Path: "topology/bind", Pure: true, May: []string{"topology"}, Why: "placement within a node is arithmetic on its model"},
			{Path: "topology/probe", May: []string{"topology"}, External: []string{sys}, Why: "it fills the model from a machine"},
			{Path: "topology/fabric", May: []string{"topology", "topology/yamltree"}, Why: "texts become fabrics, and back"},
			{Path: "topology/yamltree", External: []string{"github.com/goccy/go-yaml"}, Why: "YAML becomes nodes with places; what they mean is others'"},
			{Path: "gpu", May: []string{"topology"}, Why: "it fills the model from text"},
			{Path: "gpu/nvml", May: []string{"gpu", "topology"}, External: []string{"github.com/NVIDIA/go-nvml"}, Why: "cgo stays in a helper of its own"},
			{Path: "mpi", Pure: true, May: []string{"topology"}, Why: "launches are values; who runs them is elsewhere"},
			{Path: "mpi/pmi", May: []string{"mpi"}, Why: "it serves what mpi describes"},

			{Path: "mpi/preflight", Pure: true, May: []string{"topology", "mpi"}, Why: "facts become findings; who gathers them is elsewhere"},
			{Path: "launcher/job", Pure: true, May: []string{"topology", "mpi", "nodeagent/wire/sweep"}, Why: "the vocabulary of all launcher packages"},
			{Path: "launcher/jobfile", May: []string{"nodeagent/wire/sweep", "launcher/job", "topology/yamltree"}, Why: "files become specs, and back"},
			{Path: "launcher/sched", Pure: true, May: []string{"launcher/job", "topology"}, Why: "decisions are functions of what is given"},
			{Path: "launcher/state", Pure: true, May: []string{"launcher/job", "launcher/sched", "topology"}, Why: "events in, rows and wishes out"},
			{Path: "launcher/sim", Pure: true, May: []string{"launcher/sched", "launcher/state", "launcher/job"}, Why: "virtual time drives the real scheduler"},
			{Path: "launcher/store", May: []string{"launcher/job"}, External: []string{"modernc.org/sqlite"}, Why: "it keeps rows and does not know what they mean"},
			{Path: "launcher/store/storetest", May: []string{"launcher/job", "launcher/store"}, External: []string{"github.com/google/go-cmp"}, Why: "the conformance suite"},
			{Path: "launcher/history", May: []string{"launcher/job"}, Why: "results of arrays, found in the rows of any store"},
			{Path: "launcher/control", May: []string{"launcher/job", "launcher/sched", "launcher/state", "launcher/store"}, Why: "the single applier"},
			{Path: "launcher/agents", May: []string{"launcher/control", "launcher/state", "launcher/job", "topology", "nodeagent/wire/..."}, External: []string{connect, protobuf}, Why: "events and wishes become messages here only"},
			{Path: "launcher/pool", May: []string{"nodeagent/wire/link"}, External: []string{ssh, "github.com/pkg/sftp", "github.com/kevinburke/ssh_config", "github.com/skeema/knownhosts"}, Why: "it makes byte streams to nodes"},
			{Path: "launcher/auth", External: []string{sys}, Why: "who is asking depends on nothing"},
			{Path: "launcher/batchapi", May: []string{"nodeagent/wire/sweep", "launcher/job", "launcher/auth", "topology", "docs"}, Why: "Batch types meet specs here only"},
			{Path: "launcher/client", May: []string{"launcher/job", "launcher/auth", "launcher/sched", "launcher/batchapi", "topology"}, Why: "what the command line asks launchers with"},
			{Path: "launcher", May: []string{"launcher/...", "nodeagent/wire", "topology"}, External: []string{"github.com/prometheus/client_golang"}, Why: "wiring"},

			{Path: "nodeagent/wire", Pure: true, May: []string{"topology"}, External: []string{protobuf}, Why: "the language between launcher and agent"},
			{Path: "nodeagent/wire/sweep", Pure: true, Why: "launcher and node fill in an element alike"},
			{Path: "nodeagent/wire/wireconnect", May: []string{"nodeagent/wire"}, External: []string{connect}, Why: "the generated service"},
			{Path: "nodeagent/wire/link", May: []string{"nodeagent/wire"}, External: []string{protobuf, connect, "golang.org/x/net", "golang.org/x/crypto/cryptobyte"}, Why: "connections between gangway's processes"},
			{Path: "nodeagent/proc", May: []string{"topology"}, External: []string{sys}, Why: "spawn, bind, limit, kill, reap"},
			{Path: "nodeagent/mesh", May: []string{"nodeagent/wire", "nodeagent/wire/link"}, External: []string{protobuf}, Why: "the gang's own network"},
			{Path: "nodeagent/spool", May: []string{"nodeagent/wire"}, External: []string{protobuf}, Why: "results until acknowledged"},
			{Path: "nodeagent/pack", Why: "output of many programs in few files"},
			{Path: "nodeagent/crew", May: []string{"nodeagent/wire", "topology", "nodeagent/proc", "nodeagent/spool", "nodeagent/pack"}, External: []string{protobuf}, Why: "an array's elements on one node"},
			{Path: "nodeagent/shim", May: []string{"nodeagent/wire/...", "mpi", "mpi/pmi", "mpi/preflight", "topology", "topology/bind", "nodeagent/mesh", "nodeagent/proc", "nodeagent/spool", "nodeagent/crew"}, External: []string{protobuf}, Why: "one job on one node"},
			{Path: "nodeagent", May: []string{"nodeagent/...", "topology", "topology/probe", "gpu"}, External: []string{connect, protobuf, "github.com/shirou/gopsutil/v3"}, Why: "the agent"},

			{Path: "benchmarks", May: []string{"topology", "mpi"}, Why: "definitions, parsers and reports"},
			{Path: "benchmarks/peers", May: []string{"topology", "mpi", "internal/..."}, Why: "comparisons run in lab hosts"},
			{Path: "benchmarks/exchange", May: []string{"mpi/pmi", "nodeagent/mesh", "nodeagent/wire/link"}, Why: "all members of a gang in one process"},
			{Path: "benchmarks/up", May: []string{"launcher", "launcher/auth", "nodeagent", "nodeagent/wire/...", "topology", "topology/probe"}, External: []string{connect, protobuf}, Why: "simulated agents join a real launcher"},
			{Path: "docs", Why: "documents that the program shows"},
			{Path: "examples", May: []string{"internal/..."}, Why: "examples use the command"},
			{Path: "cmd", May: []string{"..."}, External: []string{"github.com/spf13/cobra", "github.com/spf13/pflag"}, Why: "the command line and its wiring"},
			{Path: "internal", May: []string{"..."}, External: []string{sys, ssh, "github.com/google/go-cmp"}, Why: "test helpers"},
		},
	}
}
