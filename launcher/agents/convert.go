package agents

import (
	"encoding/json"
	"fmt"
	"time"

	"gangway/launcher/job"
	"gangway/launcher/state"
	"gangway/nodeagent/wire"
	"gangway/topology"
)

// handle turns an agent's message into an event, traffic, or an error that ends
// the session.
func (f *Fleet) handle(node string, m *wire.AgentMessage) error {
	switch m := m.GetM().(type) {
	case *wire.AgentMessage_Inventory:
		claims, err := claimsOf(m.Inventory.GetForeign())
		if err != nil {
			return err
		}
		f.cfg.Inbox.Post(state.NodeClaims{Node: node, Claims: claims})
	case *wire.AgentMessage_NodeUpdate:
		var topo topology.Node
		if err := json.Unmarshal(m.NodeUpdate.GetNodeJson(), &topo); err != nil {
			return fmt.Errorf("the agent's new description of its node can't be read: %w", err)
		}
		f.cfg.Inbox.Post(state.NodeProbed{Node: node, Topology: topo, GPUs: topo.GPUSlotIDs()})
	case *wire.AgentMessage_ShimGone:
		f.cfg.Inbox.Post(state.ShimGone{ID: m.ShimGone.GetId(), Node: node, Why: m.ShimGone.GetReason(), Unread: m.ShimGone.GetUnread()})
	case *wire.AgentMessage_Error:
		f.cfg.Inbox.Post(refusalOf(node, m.Error))
	case *wire.AgentMessage_FromShim:
		if b := m.FromShim.GetBlock(); b != nil {
			what, err := blockOf(m.FromShim.GetId(), node, b)
			if err != nil {
				return fmt.Errorf("the crew %s sent block %d: %w", m.FromShim.GetId(), b.GetSeq(), err)
			}
			f.cfg.Inbox.Post(what)
			return nil
		}
		if what := eventOf(node, m.FromShim); what != nil {
			// Traffic first: whoever acts on the event finds the output.
			f.cfg.Traffic.FromShim(node, m.FromShim)
			f.cfg.Inbox.Post(what)
			return nil
		}
		f.cfg.Traffic.FromShim(node, m.FromShim)
	default:
		return fmt.Errorf("the agent sent a message that is not for a running session: %T", m)
	}
	return nil
}

// eventOf returns nil for messages that the state has no part in.
func eventOf(node string, m *wire.FromShim) state.What {
	switch x := m.GetM().(type) {
	case *wire.FromShim_Ready:
		return state.ShimReady{ID: m.GetId(), Node: node, MeshPort: uint16(x.Ready.GetMeshPort()), Failure: reasonOf(x.Ready.GetFailure(), node)}
	case *wire.FromShim_Plan:
		b, err := json.Marshal(PlanOf(x.Plan))
		if err != nil { // strings alone: it can't fail
			return nil
		}
		return state.LaunchPlanned{ID: m.GetId(), Node: node, Plan: b}
	case *wire.FromShim_Started:
		return state.ShimStarted{ID: m.GetId(), Node: node}
	case *wire.FromShim_Result:
		return state.AttemptResult{ID: m.GetId(), Node: node, Result: resultOf(x.Result, node)}
	}
	return nil
}

func refusalOf(node string, e *wire.AgentError) state.AttemptRefused {
	code := job.FailNodeAgent
	hint := ""
	switch e.GetCode() {
	case wire.ErrorCode_ERROR_STALE_EPOCH:
		code, hint = job.FailStaleEpoch, "another launcher has taken over"
	case wire.ErrorCode_ERROR_CLAIMED:
		code = job.WaitClaimed
	}
	return state.AttemptRefused{
		ID: e.GetId(), Node: node, Claimed: e.GetCode() == wire.ErrorCode_ERROR_CLAIMED,
		Failure: job.Reason{Code: code, Detail: "node " + node + ": " + e.GetMessage(), Hint: hint},
	}
}

var failCodes = map[wire.FailureCode]job.Code{
	wire.FailureCode_FAILURE_NOT_FOUND:       job.FailNotFound,
	wire.FailureCode_FAILURE_NOT_EXECUTABLE:  job.FailNotExecutable,
	wire.FailureCode_FAILURE_MPI_MISMATCH:    job.FailMPIMismatch,
	wire.FailureCode_FAILURE_MPI_MISSING:     job.FailMPIMissing,
	wire.FailureCode_FAILURE_WORKDIR:         job.FailWorkDir,
	wire.FailureCode_FAILURE_SETUP:           job.FailSetup,
	wire.FailureCode_FAILURE_DISK:            job.FailDisk,
	wire.FailureCode_FAILURE_NETWORK:         job.FailNetwork,
	wire.FailureCode_FAILURE_LAUNCH_DEADLINE: job.FailLaunchDeadline,
	wire.FailureCode_FAILURE_RANK:            job.FailRank,
	wire.FailureCode_FAILURE_PEER_LOST:       job.FailPeerLost,
	wire.FailureCode_FAILURE_TIME_LIMIT:      job.FailTimeLimit,
	wire.FailureCode_FAILURE_CANCELLED:       job.FailCancelled,
	wire.FailureCode_FAILURE_LEASE:           job.FailLease,
	wire.FailureCode_FAILURE_SHIM_LOST:       job.FailShimLost,
	wire.FailureCode_FAILURE_BINDING:         job.FailBinding,
	wire.FailureCode_FAILURE_INTERNAL:        job.FailInternal,
	wire.FailureCode_FAILURE_MPIRUN:          job.FailMPIRun,
	wire.FailureCode_FAILURE_MEMORY:          job.FailMemory,
	wire.FailureCode_FAILURE_PREFLIGHT:       job.FailPreflight,
}

func reasonOf(f *wire.Failure, node string) *job.Reason {
	if f == nil {
		return nil
	}
	code, ok := failCodes[f.GetCode()]
	if !ok {
		code = job.FailUnknown
	}
	if f.GetNode() != "" {
		node = f.GetNode()
	}
	detail := f.GetMessage()
	return &job.Reason{Code: code, Detail: detail, Hint: f.GetHint(), Nodes: []job.NodeShort{{Node: node}}}
}

func resultOf(r *wire.Result, node string) job.Result {
	out := job.Result{
		Range:    job.Range{Lo: r.GetRange().GetLo(), Hi: r.GetRange().GetHi()},
		ExitCode: int(r.GetExitCode()), Signal: int(r.GetSignal()), Failure: reasonOf(r.GetFailure(), node),
		Start: time.Unix(0, r.GetStartNs()).UTC(), End: time.Unix(0, r.GetEndNs()).UTC(), MaxRSS: r.GetMaxRssBytes(),
		User: time.Duration(r.GetUserUs()) * time.Microsecond, System: time.Duration(r.GetSystemUs()) * time.Microsecond,
		OutputEnd: r.GetOutputEnd(), FirstRank: int(r.GetFirstRank()), FirstNode: r.GetFirstNode(),
		Warnings: r.GetWarnings(), Autopsy: autopsyOf(r.GetAutopsy()),
	}
	for _, x := range r.GetRanks() {
		out.Ranks = append(out.Ranks, job.RankExit{Rank: int(x.GetRank()), ExitCode: int(x.GetExitCode()), Signal: int(x.GetSignal()),
			Killed: x.GetKilledByGangway(), LastStderr: x.GetLastStderr(), End: time.Unix(0, x.GetEndNs()).UTC(), Phase: x.GetPhase()})
	}
	return out
}

// Plan is what the primary runs, as it is stored and shown.
type Plan struct {
	MPI         string   `json:"mpi"`
	MPIVersion  string   `json:"mpi_version,omitempty"`
	MPILauncher string   `json:"mpi_launcher,omitempty"`
	Linked      string   `json:"linked,omitempty"`
	Via         string   `json:"via"`
	Program     string   `json:"program,omitempty"`
	Argv        []string `json:"argv"`
	Env         []string `json:"env"`
	Unset       []string `json:"unset,omitempty"`
	Hostfile    string   `json:"hostfile"`
	HostfileAt  string   `json:"hostfile_path,omitempty"`
}

// PlanOf reads a launch plan off the wire.
func PlanOf(p *wire.LaunchPlan) Plan {
	return Plan{MPI: p.GetMpi(), MPIVersion: p.GetMpiVersion(), MPILauncher: p.GetMpiLauncher(), Linked: p.GetLinked(),
		Via: p.GetVia(), Program: p.GetProgram(), Argv: p.GetArgv(), Env: p.GetEnv(), Unset: p.GetUnset(),
		Hostfile: p.GetHostfile(), HostfileAt: p.GetHostfilePath()}
}

func shimsOf(in []*wire.ShimState) []state.Shim {
	out := make([]state.Shim, 0, len(in))
	for _, s := range in {
		out = append(out, state.Shim{ID: s.GetId(), Phase: state.ShimPhase(s.GetPhase())})
	}
	return out
}

func claimsOf(in []*wire.Claim) ([]job.Claim, error) {
	out := make([]job.Claim, 0, len(in))
	for _, c := range in {
		cpus, err := topology.ParseCPUSet(c.GetCpus())
		if err != nil {
			return nil, fmt.Errorf("the agent's claim %s: %w", c.GetId(), err)
		}
		out = append(out, job.Claim{ID: c.GetId(), Who: c.GetWho(), CPUs: cpus, Memory: c.GetMemoryBytes(), GPUs: c.GetGpus(), Shared: c.GetShared()})
	}
	return out, nil
}

func peerOf(q state.Peer) *wire.Peer {
	return &wire.Peer{Index: uint32(q.Index), Name: q.Node, Hostname: q.Hostname, Address: addrText(q.Address),
		Port: uint32(q.Port), Interface: q.Interface, FirstRank: uint32(q.FirstRank), Ranks: uint32(q.Ranks), RankList: q.RankList, Cpus: q.CPUs.String()}
}
