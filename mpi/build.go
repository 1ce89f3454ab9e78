package mpi

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Build returns how the launcher starts the program's ranks over the layout,
// each as RankWrapper PROGRAM ARGS…, with its own binding off and stdin left to
// /dev/null: placement, binding, environment and streams are the wrapper's.
//
// The launcher's daemons go from the primary straight to each node, without a
// tree, and stay in the foreground: each of them lives exactly as long as its
// call of the remote shell. On one node no remote shell is used and nothing
// needs to resolve but what /etc/hosts always has.
//
// For None the result has no Argv: gangway starts the ranks itself.
func Build(f Facts, l Layout, program []string) (Launch, error) {
	if err := l.check(); err != nil {
		return Launch{}, err
	}
	if err := f.check(len(l.Nodes)); err != nil {
		return Launch{}, err
	}
	if f.Launcher.Flavour == None {
		return newHostfile(f, l, "hostfile", hydraLine), nil
	}
	if len(program) == 0 {
		return Launch{}, fmt.Errorf("no program to launch")
	}
	if slices.Contains(program, ":") {
		return Launch{}, fmt.Errorf("the command has an argument %q, with which every mpirun begins another program: put the command into a script", ":")
	}
	if err := absolute("launcher", f.Launcher.Path, f.Launcher.Flavour); err != nil {
		return Launch{}, err
	}
	if err := absolute("rank wrapper", f.RankWrapper, f.Launcher.Flavour); err != nil {
		return Launch{}, err
	}
	var out Launch
	switch f.Launcher.Flavour {
	case MPICH:
		out = buildMPICH(f, l)
	case Intel:
		out = buildIntel(f, l)
	case OpenMPI:
		out = buildOpenMPI(f, l)
	case MSMPI:
		if err := l.msmpiOrder(); err != nil {
			return Launch{}, err
		}
		out = buildMSMPI(f, l)
	default:
		return Launch{}, fmt.Errorf("no rules for the MPI flavour %q: choose one of %s", f.Launcher.Flavour, flavourNames())
	}
	out.Argv = append(out.Argv, f.RankWrapper)
	out.Argv = append(out.Argv, program...)
	slices.Sort(out.Env)
	return out, nil
}

// hostName is what the hostfile calls node i.
func (l Layout) hostName(i int) string {
	if len(l.Nodes) == 1 {
		return "localhost" // the one name that needs no network
	}
	return l.Nodes[i].Name
}

func hydraLine(name string, ranks int) string { return name + ":" + strconv.Itoa(ranks) }
func ompiLine(name string, ranks int) string  { return name + " slots=" + strconv.Itoa(ranks) }
func msmpiLine(name string, ranks int) string { return name + " " + strconv.Itoa(ranks) }

func nodefileLine(name string, ranks int) string {
	return strings.TrimSuffix(strings.Repeat(name+"\n", ranks), "\n")
}

func newHostfile(f Facts, l Layout, name string, line func(string, int) string) Launch {
	file := hostfile(f, l, name, line)
	return Launch{Files: []File{file}, Hostfile: file.Path}
}

func hostfile(f Facts, l Layout, name string, line func(string, int) string) File {
	var b strings.Builder
	for i, n := range l.Nodes {
		b.WriteString(line(l.hostName(i), n.Ranks) + "\n")
	}
	return File{Path: join(f, name), Mode: 0o644, Content: b.String()}
}

func join(f Facts, name string) string {
	if f.Launcher.Flavour == MSMPI && strings.Contains(f.Dir, `\`) {
		return strings.TrimSuffix(f.Dir, `\`) + `\` + name
	}
	return strings.TrimSuffix(f.Dir, "/") + "/" + name
}

// buildMPICH: without -localhost the proxies dial back to what the primary
// calls itself, which need not resolve elsewhere; Hydra then hangs. An
// address there is better than -iface, which is a name of the primary's alone.
// With the rsh launcher nothing is put before HOST (ssh would get -x).
// Hydra binds only if it is told to; -bind-to none is not said, because the Hydra
// of MPICH 5 passes it on twice to a process that a rank spawns, and fails.
func buildMPICH(f Facts, l Layout) Launch {
	out := newHostfile(f, l, "hostfile", hydraLine)
	out.Argv = []string{f.Launcher.Path}
	if len(l.Nodes) == 1 {
		out.Argv = append(out.Argv, "-launcher", "fork", "-localhost", "127.0.0.1")
	} else {
		out.Argv = append(out.Argv, "-launcher", "rsh", "-launcher-exec", f.Rsh)
		if p := l.Nodes[0]; p.Address.IsValid() {
			out.Argv = append(out.Argv, "-localhost", p.Address.String())
		} else if p.Interface != "" {
			out.Argv = append(out.Argv, "-iface", p.Interface)
		}
	}
	out.hydraOrder(f, l)
	out.Argv = append(out.Argv, "-rmk", "user", "-f", out.Hostfile, "-n", strconv.Itoa(l.Ranks()))
	return out
}

// buildIntel: Intel's Hydra takes -localhost but dials back by name all the
// same; only -iface makes it use an address. The name is passed on to the
// other nodes, where it matters only to those that start further ones: they
// fail if they have no such interface. So the tree, 16 wide by itself, is made
// as wide as the gang. The primary, too, is started by the remote shell.
func buildIntel(f Facts, l Layout) Launch {
	out := newHostfile(f, l, "hostfile", hydraLine)
	out.Argv = []string{f.Launcher.Path}
	if len(l.Nodes) == 1 {
		out.Argv = append(out.Argv, "-launcher", "fork", "-iface", "lo")
	} else {
		out.Argv = append(out.Argv, "-launcher", "rsh", "-launcher-exec", f.Rsh)
		if name := l.Nodes[0].Interface; name != "" {
			out.Argv = append(out.Argv, "-iface", name)
		}
	}
	out.hydraOrder(f, l)
	out.Argv = append(out.Argv, "-rmk", "user", "-machinefile", out.Hostfile, "-n", strconv.Itoa(l.Ranks()))
	out.Env = []string{"I_MPI_HYDRA_BRANCH_COUNT=" + strconv.Itoa(len(l.Nodes)), "I_MPI_PIN=0"}
	out.Unset = []string{"I_MPI_PIN_*"}
	return out
}

// ompiRuntime is what differs between the runtimes of Open MPI: both take the
// same parameters under names of their own.
type ompiRuntime struct {
	option  string // that sets a parameter
	plm     string // module, and part of its parameters' names
	session string // keeps the daemons attached
	oob     string // networks of the runtime's own messages
}

// ompiRuntimeOf: ORTE up to 4, PRRTE from 5 on.
func ompiRuntimeOf(v Version) ompiRuntime {
	if v.Major >= 5 {
		return ompiRuntime{"--prtemca", "ssh", "prte_leave_session_attached", "prte_if_include"}
	}
	return ompiRuntime{"--mca", "rsh", "orte_leave_session_attached", "oob_tcp_if_include"}
}

// buildOpenMPI: without tree spawn the daemons detach themselves and the remote
// shell returns at once; leave_session_attached keeps it. Then mpirun refuses
// more nodes than it may call at a time.
func buildOpenMPI(f Facts, l Layout) Launch {
	out := newHostfile(f, l, "hostfile", ompiLine)
	out.Argv = []string{f.Launcher.Path}
	if f.Root {
		out.Argv = append(out.Argv, "--allow-run-as-root")
	}
	rt := ompiRuntimeOf(f.Launcher.Version)
	set := func(name, value string) { out.Argv = append(out.Argv, rt.option, name, value) }
	if len(l.Nodes) > 1 {
		set("plm", rt.plm)
		set("plm_"+rt.plm+"_agent", f.Rsh)
		set("plm_"+rt.plm+"_no_tree_spawn", "1")
		set("plm_"+rt.plm+"_num_concurrent", strconv.Itoa(max(128, len(l.Nodes))))
		set(rt.session, "1")
		if f.Subnet.IsValid() {
			set(rt.oob, f.Subnet.Masked().String())
		}
	}
	out.ompiPlacement(f, l)
	return out
}

// ompiPlacement is the library's and the mapping's part, alike everywhere.
func (out *Launch) ompiPlacement(f Facts, l Layout) {
	if len(l.Nodes) > 1 && f.Subnet.IsValid() && !chosen(f.Env, ompiInterfaces...) {
		out.Argv = append(out.Argv, "--mca", "btl_tcp_if_include", f.Subnet.Masked().String())
	}
	mapBy := out.ompiOrder(l)
	if f.Oversubscribed {
		mapBy += ":OVERSUBSCRIBE"
		out.Argv = append(out.Argv, "--mca", "mpi_yield_when_idle", "1")
	}
	out.Argv = append(out.Argv, "--bind-to", "none", "--map-by", mapBy,
		"--hostfile", out.Hostfile, "-n", strconv.Itoa(l.Ranks()))
}

// ompiInterfaces: with one of these the user has chosen; include and exclude
// together would be refused by the library.
var ompiInterfaces = []string{"OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_btl_tcp_if_exclude"}

func chosen(env []string, names ...string) bool {
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if slices.Contains(names, name) {
			return true
		}
	}
	return false
}

// buildMSMPI comes from MS-MPI's documentation and source, without a run: smpd
// must already listen on every node (there is no remote shell), and the
// machinefile is "host count".
func buildMSMPI(f Facts, l Layout) Launch {
	out := newHostfile(f, l, "hostfile", msmpiLine)
	out.Argv = []string{f.Launcher.Path}
	if len(l.Nodes) > 1 {
		out.Argv = append(out.Argv, "-machinefile", out.Hostfile)
		if f.Subnet.IsValid() && f.Subnet.Addr().Is4() {
			out.Env = []string{"MPICH_NETMASK=" + netmask(f.Subnet)}
		}
	}
	out.Argv = append(out.Argv, "-n", strconv.Itoa(l.Ranks()))
	return out
}
