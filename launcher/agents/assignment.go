package agents

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/nodeagent/wire"
)

// Defaults for what a task leaves open.
const (
	defaultBase     = "/tmp"
	defaultGrace    = 5 * time.Second
	defaultDeadline = 60 * time.Second
)

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// assignmentOf writes a part as the agent's order.
func assignmentOf(p *state.Part, cfg Config) *wire.Assignment {
	t := p.Task
	base := cfg.Base
	if base == "" {
		base = defaultBase
	}
	a := &wire.Assignment{
		Id: p.ID,
		Name: &wire.AttemptName{Cluster: p.Cluster, TaskUid: p.TaskUID,
			Range: &wire.Range{Lo: p.Range.Lo, Hi: p.Range.Hi}, Attempt: p.Attempt, Epoch: p.Epoch},
		Job: p.JobID, Task: t.ID, Node: p.Node,
		Command: t.Command, Workdir: t.WorkDir, Env: t.Env, EnvBase: t.EnvBase,
		Mpi: t.MPI, LaunchVia: t.Via, Bcast: t.Bcast, Stdin: t.Stdin && p.NodeIndex == 0, StdinTty: t.StdinTTY,
		SoftSignal: int32(t.SoftSignal), SoftBeforeMs: uint64(t.SoftBefore.Milliseconds()),
		TimeLimitMs: uint64(t.TimeLimit.Milliseconds()), MemoryBytes: p.Memory,
		LaunchDeadlineMs: uint64(orDefault(t.LaunchDeadline, defaultDeadline).Milliseconds()),
		KillGraceMs:      uint64(orDefault(t.KillGrace, defaultGrace).Milliseconds()),
		Session:          p.Session,
		NodeIndex:        uint32(p.NodeIndex), NodeCount: uint32(p.NodeCount),
		NodeDir: path.Join(base, "gangway-"+p.ID),
		Cpus:    p.CPUs.String(), Shared: p.Shared,
		FirstRank: uint32(p.FirstRank), NodeRanks: uint32(p.Ranks), RankList: p.RankList, TotalRanks: uint32(p.Total),
		CoresPerRank: uint32(t.CoresPerRank), Bind: t.Bind,
		Address: addrText(p.Address), Interface: p.Interface, MeshKey: p.MeshKey,
		Threads: uint32(t.Threads), Smt: uint32(t.SMT), Optimize: t.Optimize, NoGreedy: t.NoGreedy,
		Preflight:     t.Preflight,
		Oversubscribe: t.Oversubscribe, PlanOnly: t.PlanOnly, Gpus: p.GPUs, GpusPerRank: uint32(t.GPUsPerRank),
		Leased: p.Session || t.OnNodeLoss != job.NodeLossWait,
	}
	if !p.Session {
		a.RetentionMs = retentionOf(t)
		a.TaskDir, a.User, a.Pool = job.TaskFolder(p.JobID, p.JobUID, t.ID), p.User, cfg.Pool
	}
	if p.Crew != nil {
		a.Env = append(slices.Clip(a.Env), "GANGWAY_ARRAY_SIZE="+strconv.FormatUint(t.Range.Len(), 10))
		a.Crew = &wire.Crew{Slots: uint32(p.Crew.Slots), ElementMemory: t.MemPerRank}
		if s := p.Crew.Sweep; s != nil {
			a.Crew.SweepJson, a.Crew.First, a.Crew.Templates = s.JSON, t.Range.Lo, s.Fields
		}
	}
	if t.Launch == job.LaunchPrimary {
		a.Launch = wire.LaunchMode_LAUNCH_PRIMARY
	}
	if t.Setup != nil {
		a.SetupName, a.SetupScript = t.Setup.Name, t.Setup.Script
	}
	return a
}

// retentionOf is the wire's, for which 0 is no end.
func retentionOf(t *job.TaskSpec) uint64 {
	switch d := t.Retention; {
	case d < 0:
		return 0
	case d == 0:
		return uint64(job.DefaultRetention.Milliseconds())
	default:
		return uint64(max(d.Milliseconds(), 1))
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}
