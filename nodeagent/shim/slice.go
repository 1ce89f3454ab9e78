package shim

import (
	"strings"
	"time"

	"gangway/nodeagent/proc"
	"gangway/topology"
)

// crowdedSlice is the scheduling slice of ranks that share cores. MPI's barriers
// at the start spin: a rank that waits takes its whole slice from the one that it
// waits for. Programs that compute without waiting only switch more often.
const crowdedSlice = 100 * time.Microsecond

// sliceVar switches that off, or sets another slice: off, or a duration.
const sliceVar = "GANGWAY_SLICE"

// crowded says whether n ranks are more than the cpus that they have.
func crowded(n int, cpus topology.CPUSet) bool {
	return n > 1 && !cpus.IsEmpty() && n > cpus.Count()
}

// slice is what this node's processes get; 0: nothing special.
func (s *shim) slice() time.Duration {
	if s.prep == nil || !crowded(int(s.a.GetNodeRanks()), s.prep.cpus) {
		return 0
	}
	return wantedSlice(s.prep.env)
}

// wantedSlice is crowdedSlice, or what the user has chosen.
func wantedSlice(env []string) time.Duration {
	v := getEnv(env, sliceVar)
	if v == "" {
		return crowdedSlice
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < crowdedSlice || d > 100*time.Millisecond {
		return 0 // off, or nothing that a kernel would take, see saySlice
	}
	return d
}

// saySlice tells once, on the primary, which nodes' ranks share cores and what was
// done about it.
func (s *shim) saySlice() {
	d := wantedSlice(s.prep.env)
	if v := getEnv(s.prep.env, sliceVar); d == 0 && v != "off" {
		s.notice(true, "%s=%s is left aside, slices are not shortened: give a time from %v to 100ms, or off", sliceVar, v, crowdedSlice)
	}
	if d == 0 {
		return
	}
	var names []string
	for _, p := range s.peers {
		if cpus, err := topology.ParseCPUSet(p.GetCpus()); err == nil && crowded(int(p.GetRanks()), cpus) {
			names = append(names, p.GetName())
		}
	}
	if len(names) == 0 || proc.CheckSlice(d) != nil {
		return
	}
	if len(names) > 4 {
		names = append(names[:4], "…")
	}
	s.notice(false, "more ranks than cores on %s: they run in slices of %v, so that ranks which wait for others do not hold them up (%s=off to leave that)",
		strings.Join(names, ", "), d, sliceVar)
}
