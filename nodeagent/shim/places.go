package shim

import (
	"os"
	"slices"
	"strings"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/topology"
	"gangway/topology/bind"
)

// grantedGPUs are the GPUs that are this node's part of the task. It is never
// nil: a task that asked for none is given none, whatever the node has.
func (s *shim) grantedGPUs() []int {
	out := make([]int, 0, len(s.a.GetGpus()))
	for _, g := range s.a.GetGpus() {
		out = append(out, int(g))
	}
	return out
}

// mapRanks gives this node's ranks their places within what was granted.
func (s *shim) mapRanks(cpus topology.CPUSet) ([]bind.Place, error) {
	a := s.a
	return bind.Map(bind.Request{
		Node: s.node, Granted: cpus, Ranks: int(a.GetNodeRanks()), CoresPerRank: int(a.GetCoresPerRank()),
		Mode: bind.Mode(a.GetBind()), Oversubscribe: a.GetOversubscribe(),
		Threads: int(a.GetThreads()), SMT: int(a.GetSmt()), Optimize: bind.Optimize(a.GetOptimize()), NoGreedy: a.GetNoGreedy(),
		GPUs: s.grantedGPUs(), GPUsPerRank: int(a.GetGpusPerRank()),
	})
}

// primaryVars tell a command that places its ranks itself which GPUs are its
// task's on this node. How many threads a rank is to have is its own affair.
func (s *shim) primaryVars(env []string) ([]string, error) {
	gpus := s.grantedGPUs()
	if len(gpus) == 0 {
		return nil, nil
	}
	places, err := bind.Map(bind.Request{Node: s.node, Ranks: 1, Mode: bind.None, GPUs: gpus, GPUsPerRank: len(gpus)})
	if err != nil {
		return nil, err
	}
	vars := bind.Env(s.node, places[0], s.tasksOwn(env))
	return slices.DeleteFunc(vars, func(v string) bool {
		return strings.HasPrefix(v, "OMP_") || strings.HasPrefix(v, "UCX_") || strings.HasPrefix(v, "NCCL_")
	}), nil
}

// tasksOwn leaves out of an environment what this process's own says of GPUs: a
// site may hide them that way from tasks that were granted none.
func (s *shim) tasksOwn(env []string) []string {
	if len(s.a.GetEnvBase()) > 0 {
		return env // it does not come from this process's
	}
	own := os.Environ()
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK":
			return slices.Contains(own, v) && !slices.Contains(s.a.GetEnv(), v)
		}
		return false
	})
}

// placeVars is what a place sets in a rank's environment; what env has stays,
// but for an empty number of threads, which means nothing to anybody.
//
// A task of one rank that named no number of threads gets that number alone: it
// may be a script that starts several programs, and the first thread of each
// would be bound to the first of the OpenMP places.
func (s *shim) placeVars(p bind.Place, env []string) []string {
	if getEnv(env, "OMP_NUM_THREADS") == "" {
		env = slices.DeleteFunc(slices.Clone(env), func(v string) bool { return v == "OMP_NUM_THREADS=" })
	}
	vars := bind.Env(s.node, p, s.tasksOwn(env))
	if s.a.GetTotalRanks() == 1 && s.a.GetThreads() == 0 {
		vars = slices.DeleteFunc(vars, func(v string) bool {
			return strings.HasPrefix(v, "OMP_PLACES=") || strings.HasPrefix(v, "OMP_PROC_BIND=")
		})
	}
	return vars
}

// wirePlaces are the places as the launcher is told of them.
func (s *shim) wirePlaces(p *prepared) []*wire.RankPlace {
	var out []*wire.RankPlace
	numbers, err := ownRanks(s.a)
	if err != nil || len(numbers) < len(p.places) { // prepare has refused it
		return nil
	}
	for i, pl := range p.places {
		rp := &wire.RankPlace{Rank: numbers[i], Cpus: pl.CPUs.String(), Threads: uint32(pl.Threads), Gpus: pl.GPUs, Nics: pl.NICs}
		for _, n := range pl.MemNodes {
			rp.MemNodes = append(rp.MemNodes, uint32(n))
		}
		if s.a.GetPlanOnly() { // a thousand ranks need not tell what nobody asked for
			rp.Env = s.placeVars(pl, p.env)
		}
		out = append(out, rp)
	}
	return out
}

// confine keeps what runs for the task on the granted cpus, also when it sets
// its affinity anew. Where cgroups don't allow it, affinity is all there is: that
// is how most nodes are, and no warning. A task that has the whole node can leave
// nothing.
func (s *shim) confine() {
	if s.prep.cpus.IsEmpty() || !s.node.Online.IsEmpty() && s.node.Online.Minus(s.prep.cpus).IsEmpty() {
		return
	}
	g, err := proc.NewCPUGroup("gangway-"+s.a.GetId(), s.prep.cpus, s.memory)
	if err != nil {
		s.notice(false, "%s: %v", s.nodeName(), err)
		return
	}
	s.cpuset = g
}
