package mpi

import (
	"slices"
	"strconv"
	"strings"
)

// BuildPrimary returns the environment and the files with which any mpirun in
// a script on the primary uses the allocation, whichever flavour it is:
// variables for Hydra, Intel MPI, Open MPI 4 and 5 stand beside each other.
// `mpirun -np N` with fewer ranks than the layout holds takes the first nodes;
// more are the script's own doing. There is no Argv.
//
// For the script itself: GANGWAY_HOSTFILE (in the dialect of the detected
// flavour, else host:count), GANGWAY_NODEFILE (one line a rank),
// GANGWAY_NODES (names, comma-separated), GANGWAY_NNODES, GANGWAY_NRANKS, and
// GANGWAY_RSH when there are several nodes.
//
// Ranks that a script starts have no wrapper: they stay on the cores granted
// on their node (Open MPI's own binding, which does not know them, is off;
// Intel MPI's pinning keeps to the inherited mask).
func BuildPrimary(f Facts, l Layout) (Launch, error) {
	if err := l.check(); err != nil {
		return Launch{}, err
	}
	if err := f.check(len(l.Nodes)); err != nil {
		return Launch{}, err
	}
	hydra := hostfile(f, l, "hostfile", hydraLine)
	ompi := hostfile(f, l, "hostfile.openmpi", ompiLine)
	nodes := hostfile(f, l, "nodefile", nodefileLine)
	out := Launch{Files: []File{hydra, ompi, nodes}, Hostfile: hydra.Path}
	if f.Launcher.Flavour == OpenMPI {
		out.Hostfile = ompi.Path
	}
	var names []string
	for i := range l.Nodes {
		names = append(names, l.hostName(i))
	}
	set := func(name, value string) { out.Env = append(out.Env, name+"="+value) }

	set("GANGWAY_HOSTFILE", out.Hostfile)
	set("GANGWAY_NODEFILE", nodes.Path)
	set("GANGWAY_NODES", strings.Join(names, ","))
	set("GANGWAY_NNODES", strconv.Itoa(len(l.Nodes)))
	set("GANGWAY_NRANKS", strconv.Itoa(l.Ranks()))

	set("HYDRA_HOST_FILE", hydra.Path)
	set("HYDRA_RMK", "user")
	set("I_MPI_HYDRA_HOST_FILE", hydra.Path)
	set("I_MPI_HYDRA_RMK", "user")
	set("I_MPI_HYDRA_BRANCH_COUNT", strconv.Itoa(len(l.Nodes)))
	set("OMPI_MCA_orte_default_hostfile", ompi.Path)
	set("OMPI_MCA_hwloc_base_binding_policy", "none")
	set("OMPI_MCA_rmaps_base_mapping_policy", "slot")
	set("PRTE_MCA_prte_default_hostfile", ompi.Path)
	set("PRTE_MCA_hwloc_default_binding_policy", "none")
	set("PRTE_MCA_rmaps_default_mapping_policy", "slot")
	if f.Root {
		for _, name := range []string{"OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"} {
			set(name, "1")
			set(name+"_CONFIRM", "1")
		}
	}
	if len(l.Nodes) == 1 {
		set("HYDRA_LAUNCHER", "fork")
		set("HYDRA_IFACE", "lo")
		set("I_MPI_HYDRA_BOOTSTRAP", "fork")
		set("I_MPI_HYDRA_IFACE", "lo")
	} else {
		calls := strconv.Itoa(max(128, len(l.Nodes)))
		set("GANGWAY_RSH", f.Rsh)
		set("HYDRA_LAUNCHER", "rsh")
		set("HYDRA_LAUNCHER_EXEC", f.Rsh)
		set("I_MPI_HYDRA_BOOTSTRAP", "rsh")
		set("I_MPI_HYDRA_BOOTSTRAP_EXEC", f.Rsh)
		if name := l.Nodes[0].Interface; name != "" {
			set("HYDRA_IFACE", name)
			set("I_MPI_HYDRA_IFACE", name)
		}
		set("OMPI_MCA_plm", "rsh")
		set("OMPI_MCA_plm_rsh_agent", f.Rsh)
		set("OMPI_MCA_plm_rsh_no_tree_spawn", "1")
		set("OMPI_MCA_plm_rsh_num_concurrent", calls)
		set("OMPI_MCA_orte_leave_session_attached", "1")
		set("PRTE_MCA_plm", "ssh")
		set("PRTE_MCA_plm_ssh_agent", f.Rsh)
		set("PRTE_MCA_plm_ssh_no_tree_spawn", "1")
		set("PRTE_MCA_plm_ssh_num_concurrent", calls)
		set("PRTE_MCA_prte_leave_session_attached", "1")
		if f.Subnet.IsValid() {
			subnet := f.Subnet.Masked().String()
			set("OMPI_MCA_oob_tcp_if_include", subnet)
			set("PRTE_MCA_prte_if_include", subnet)
			if !chosen(f.Env, ompiInterfaces...) {
				set("OMPI_MCA_btl_tcp_if_include", subnet)
			}
		}
	}
	slices.Sort(out.Env)
	return out, nil
}
