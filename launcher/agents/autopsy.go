package agents

import (
	"time"

	"gangway/launcher/job"
	"gangway/nodeagent/wire"
)

// autopsyOf reads an autopsy off the wire; nil stays nil.
func autopsyOf(a *wire.Autopsy) *job.Autopsy {
	if a == nil {
		return nil
	}
	out := &job.Autopsy{Death: deathOf(a.GetDeath()), Rank: int(a.GetRank()), Node: a.GetNode(), How: a.GetHow(), Phase: a.GetPhase(),
		Said: a.GetSaid(), Told: int(a.GetTold())}
	if ns := a.GetAtNs(); ns != 0 {
		out.At = time.Unix(0, ns).UTC()
	}
	for _, s := range a.GetSuspects() {
		out.Suspects = append(out.Suspects, job.Suspect{Node: s.GetNode(), Why: s.GetWhy()})
	}
	return out
}

func deathOf(d wire.Death) job.Death {
	switch d {
	case wire.Death_DEATH_EXIT:
		return job.DeathExit
	case wire.Death_DEATH_ABORT:
		return job.DeathAbort
	case wire.Death_DEATH_CRASH:
		return job.DeathCrash
	case wire.Death_DEATH_MEMORY:
		return job.DeathMemory
	case wire.Death_DEATH_KILLED:
		return job.DeathKilled
	case wire.Death_DEATH_SHIM:
		return job.DeathShim
	case wire.Death_DEATH_SILENT:
		return job.DeathSilent
	case wire.Death_DEATH_LAUNCH:
		return job.DeathLaunch
	case wire.Death_DEATH_PREFLIGHT:
		return job.DeathPreflight
	case wire.Death_DEATH_LIMIT:
		return job.DeathLimit
	case wire.Death_DEATH_CANCELLED:
		return job.DeathCancelled
	case wire.Death_DEATH_MPIRUN:
		return job.DeathMPIRun
	}
	return job.DeathUnknown
}
