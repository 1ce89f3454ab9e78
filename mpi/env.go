package mpi

import (
	"strconv"
	"strings"
)

// scrubbed are the variables of other schedulers and launchers: a launcher
// that finds them would take over their allocation, their remote shell or
// their rank. Names, or prefixes if they end in "*".
var scrubbed = []string{
	// schedulers
	"SLURM_*", "SLURMD_*", "SLURMCTLD_*", "SBATCH_*", "SALLOC_*", "SRUN_*",
	"PBS_*", "OAR_*", "COBALT_*", "LOADL_*", "LOADLBATCH", "PALS_*", "ALPS_*", "BASIL_*",
	"FLUX_JOB_*", "FLUX_TASK_*", "FLUX_PMI_*", "FLUX_KVS_*",
	"LSB_*", "LS_JOBPID", "LS_SUBCWD", "JSM_*",
	"SGE_*", "PE_HOSTFILE", // JOB_ID and their like may be the user's own
	"CCP_*", "QSUB_NODEINF",
	// process managers and the ranks they made
	"PMI_*", "PMI2_*", "PMIX_*", "PRTE_*", "PRRTE_*", "OMPI_*", "ORTE_*", "OPAL_USER_PARAMS_GIVEN", "OPAL_SYS_PARAMS_GIVEN",
	"HYDRA_*", "HYDI_*", "MPI_LOCALNRANKS", "MPI_LOCALRANKID", "MPIEXEC_*", "MPIRUN_*", "MV2_COMM_WORLD_*", "MPISPAWN_*",
	"I_MPI_HYDRA_*", "I_MPI_PMI*", "I_MPI_PERHOST", "I_MPI_JOB_*", "I_MPI_MPIRUN", "I_MPI_INTERNAL_*", "I_MPI_PROCESS_MANAGER",
}

// kept are the exceptions: tuning that a user or a site sets on purpose and
// that says nothing about where ranks go.
var kept = []string{
	// Where the schedulers' own commands find their servers.
	"SLURM_CONF", "PBS_CONF_FILE", "PBS_EXEC", "PBS_HOME", "PBS_SERVER",
	"MPIEXEC_PORT_RANGE", // the firewall's
	"I_MPI_JOB_TIMEOUT*",
	// Open MPI's frameworks of communication, memory and I/O.
	"OMPI_MCA_btl*", "OMPI_MCA_mtl*", "OMPI_MCA_pml*", "OMPI_MCA_bml*", "OMPI_MCA_coll*", "OMPI_MCA_osc*",
	"OMPI_MCA_io*", "OMPI_MCA_fs*", "OMPI_MCA_fcoll*", "OMPI_MCA_fbtl*", "OMPI_MCA_sharedfp*",
	"OMPI_MCA_topo_*", "OMPI_MCA_op", "OMPI_MCA_op_*", "OMPI_MCA_mpool*", "OMPI_MCA_rcache*", "OMPI_MCA_memory*", "OMPI_MCA_allocator*",
	"OMPI_MCA_smsc*", "OMPI_MCA_accelerator*", "OMPI_MCA_part*", "OMPI_MCA_vprotocol*", "OMPI_MCA_common_*", "OMPI_MCA_patcher*",
	"OMPI_MCA_mpi_*", "OMPI_MCA_opal_*", "OMPI_MCA_shmem_mmap*", "OMPI_MCA_shmem_posix*", "OMPI_MCA_shmem_sysv*", "OMPI_MCA_shmem",
	"OMPI_MCA_mca_base_component_*",
	// Open MPI's compiler wrappers.
	"OMPI_CC", "OMPI_CXX", "OMPI_FC", "OMPI_CFLAGS", "OMPI_CXXFLAGS", "OMPI_FCFLAGS", "OMPI_CPPFLAGS", "OMPI_LDFLAGS", "OMPI_LIBS",
	// Work-arounds for PMIx storage and security plugins, set by sites.
	"PMIX_MCA_gds*", "PMIX_MCA_psec*", "PMIX_MCA_pcompress*", "PMIX_MCA_psquash*",
	// Where a relocated installation lies.
	"PMIX_PREFIX", "PRTE_PREFIX",
}

// Scrub returns env (K=V) without the variables that other schedulers and
// launchers left in it: SLURM_*, PBS_*, LSB_*, PMI_*, PMIX_*, OMPI_*, PRTE_*,
// HYDRA_*, I_MPI_HYDRA_* and their like. What tunes communication stays:
// I_MPI_FABRICS and most of I_MPI_*, UCX_*, FI_*, MPIR_CVAR_*, OMPI_MCA_btl*,
// OMPI_MCA_pml*, OMPI_MCA_coll* and other frameworks of the library, and where
// an installation lies (I_MPI_ROOT, OPAL_PREFIX).
func Scrub(env []string) []string {
	out := make([]string, 0, len(env))
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if matchAny(scrubbed, name) && !matchAny(kept, name) {
			continue
		}
		out = append(out, kv)
	}
	return out
}

// RankOf returns the place that a launcher gave to the process with this
// environment: its rank, the number of ranks, and its rank on its node. ok is
// false if no launcher started it, or if what it left is not a place.
// localRank is -1 when the launcher doesn't tell.
func RankOf(env []string) (rank, size, localRank int, ok bool) {
	get := func(names ...string) int {
		for _, name := range names {
			for _, kv := range env {
				if v, found := strings.CutPrefix(kv, name+"="); found {
					if n, err := strconv.Atoi(v); err == nil && n >= 0 {
						return n
					}
					return -1
				}
			}
		}
		return -1
	}
	// Open MPI first: under it PMIX_RANK stands too, and a PMI_RANK could only
	// have been inherited.
	rank = get("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
	size = get("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
	localRank = get("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
	if rank < 0 || size <= rank {
		return 0, 0, 0, false
	}
	return rank, size, localRank, true
}
