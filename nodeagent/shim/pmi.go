package shim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"gangway/mpi"
	"gangway/mpi/pmi"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// pmiFD is a rank's end of its PMI connection: above the numbers that scripts
// give to files of their own, and shells to saved ones.
const pmiFD = 20

// pmiServer is what a gang that starts without an mpirun has of it.
type pmiServer struct {
	server *pmi.Server
	base   mpi.Launch // what every rank's environment has
	conns  []net.Conn // by local rank; nil: not started
}

// dictName names the gang's dictionary: the same on all its nodes, and no other
// attempt's, for MPICH calls its segments of shared memory after it.
func (s *shim) dictName() string {
	n := s.a.GetName()
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %d %d %d %d", s.a.GetId(), n.GetCluster(), n.GetTaskUid(), n.GetRange().GetLo(), n.GetAttempt(), n.GetEpoch(), s.peers[0].GetPort())
	h.Write(s.a.GetMeshKey())
	return "kvs_" + hex.EncodeToString(h.Sum(nil)[:12])
}

// newPMI makes this node's server.
func (s *shim) newPMI() (*pmiServer, error) {
	c := pmi.Config{Size: int(s.a.GetTotalRanks()), Mapping: pmi.Mapping(nodeOfRank(s.peers)), KVS: s.dictName(),
		Abort: func(rank, code int, message string) {
			s.post(func() { s.rankAborted(rank, code, message) })
		},
		Began: func() { s.post(func() { s.tellPrimary(msgInit, nil) }) },
		Failed: func(err error) {
			// Who was lost is told by the mesh, and says more.
			s.post(func() { s.after(5*failWindow, func() { s.exchangeFailed(err) }) })
		},
	}
	c.Spawn = func(n int, req pmi.SpawnRequest) error {
		return s.spawner(s.rankOf(n))(req)
	}
	c.Refused = func(n int, why error) {
		s.post(func() { s.refused(s.rankOf(n), why) })
	}
	c.Names = gangNames{s}
	for _, r := range s.ranks {
		c.Ranks = append(c.Ranks, int(r.n))
	}
	for _, p := range s.peers {
		h := pmi.Host{Name: p.GetHostname()}
		for _, r := range peerRanks(p) {
			h.Ranks = append(h.Ranks, int(r))
		}
		if h.Name == "" {
			h.Name = p.GetName()
		}
		if len(h.Ranks) > 0 {
			c.Hosts = append(c.Hosts, h)
		}
	}
	if s.mesh != nil {
		c.Exchange = s.mesh.Allgather
	}
	server, err := pmi.New(c)
	if err != nil {
		return nil, err
	}
	return &pmiServer{server: server, base: pmiBase(), conns: make([]net.Conn, len(s.ranks))}, nil
}

// pmiBase is what mpi.BuildPMI asks for; it needs none of the primary's facts.
func pmiBase() mpi.Launch {
	env, unset := mpi.PMIEnv()
	return mpi.Launch{Env: env, Unset: unset}
}

// startPMI starts this node's ranks, each connected with the server.
func (s *shim) startPMI() {
	if len(s.ranks) == 0 {
		// A node without ranks takes part in every exchange that the others have.
		s.joinExchanges()
		return
	}
	server, err := s.newPMI()
	if err != nil {
		s.end(failed(wire.FailureCode_FAILURE_INTERNAL, s.nodeName(), err.Error(), ""), false)
		return
	}
	s.pmi = server
	if s.shm != "" { // without the list they stay, as under mpiexec
		_ = proc.NoteSegments(s.shm, mpi.Segments(s.dictName()))
	}
	s.startRanks()
}

// joinExchanges gives empty parts until the gang is over.
func (s *shim) joinExchanges() {
	if s.mesh == nil {
		return
	}
	m := s.mesh
	s.wg.Go(func() {
		for {
			if _, err := m.Allgather(nil); err != nil {
				return
			}
		}
	})
}

// connect makes a rank's PMI connection: its end, and the variables that say where
// it is.
func (p *pmiServer) connect(s *shim, r *rank) (*os.File, []string, error) {
	ours, theirs, err := proc.SocketPair()
	if err != nil {
		return nil, nil, err
	}
	p.conns[r.local] = ours
	s.wg.Go(func() {
		err := p.server.Serve(r.local, ours)
		switch {
		case err == nil, errors.Is(err, pmi.ErrAborted), errors.Is(err, pmi.ErrUnfinished):
			// How the rank ended says the rest.
		default:
			s.post(func() { s.pmiBroken(err) })
		}
	})
	return theirs, pmiVars(int(r.n), int(s.a.GetTotalRanks()), r.local, len(s.ranks)), nil
}

// pmiVars tell a rank its place, as Hydra does.
func pmiVars(rank, size, local, locals int) []string {
	return []string{
		"PMI_FD=" + strconv.Itoa(pmiFD),
		"PMI_RANK=" + strconv.Itoa(rank),
		"PMI_SIZE=" + strconv.Itoa(size),
		"MPI_LOCALRANKID=" + strconv.Itoa(local),
		"MPI_LOCALNRANKS=" + strconv.Itoa(locals),
	}
}

// hangUp ends all connections: no rank is left.
func (p *pmiServer) hangUp() {
	if p == nil {
		return
	}
	for _, c := range p.conns {
		if c != nil {
			_ = c.Close()
		}
	}
}

// phaseOf is where a rank is in MPI; "" unknown.
func (s *shim) phaseOf(r *rank) string {
	if s.pmi == nil {
		return ""
	}
	return string(s.pmi.server.Phase(r.local))
}

// leftMPI says whether a rank that has ended well did so without MPI_Finalize.
func (s *shim) leftMPI(r *rank) bool {
	switch pmi.Phase(s.phaseOf(r)) {
	case pmi.Init, pmi.Running, pmi.Finalize:
		return true
	}
	return false
}

// rankAborted tells the primary of an MPI_Abort, which ends the gang at once.
func (s *shim) rankAborted(n, code int, message string) {
	i, ok := s.localRank(int64(n))
	if !ok || s.ranks[i].ended {
		return
	}
	s.aborted(n, code, message)
}

// pmiBroken ends an attempt of which a rank says what no server understands.
func (s *shim) pmiBroken(err error) {
	s.end(failed(wire.FailureCode_FAILURE_MPI_MISMATCH, s.nodeName(), err.Error(),
		"this MPI does not start over PMI-1: choose its own launcher with --launch mpirun"), false)
}

func (s *shim) exchangeFailed(err error) {
	s.end(failed(wire.FailureCode_FAILURE_NETWORK, s.nodeName(), err.Error(), ""), false)
}

// neverInMPI says whether a rank that has ended had not called MPI_Init.
func (s *shim) neverInMPI(r *rank) bool { return pmi.Phase(s.phaseOf(r)) == pmi.Start }

// watchAbsent tells the primary of a rank that has ended well without MPI_Init, if
// nothing that it has left behind calls it after all.
func (s *shim) watchAbsent(r *rank) {
	s.after(leftGrace, func() {
		if !s.ending && !s.finished && s.neverInMPI(r) {
			s.tellPrimary(msgAbsent, record{nums: []int64{int64(r.n)}}.encode())
		}
	})
}

// checkAbsent sees, on the primary, whether ranks have called MPI_Init and another
// never will: they would wait for it without end.
func (s *shim) checkAbsent() {
	if s.gang.began && s.gang.absent > 0 {
		s.after(leftGrace, s.blameAbsent)
	}
}

// blameAbsent ends a gang that waits in MPI_Init for a rank that has ended. Hydra
// lets it wait; Open MPI's mpirun ends it too.
func (s *shim) blameAbsent() {
	if s.ending || s.finished || s.complete() {
		return
	}
	e := s.gang.exits[uint32(s.gang.absent-1)]
	node := s.nameOf(e.node)
	s.verdict = verdict{code: 1, first: int32(e.rank), node: node}
	s.end(failed(wire.FailureCode_FAILURE_RANK, node,
		fmt.Sprintf("rank %d on %s ended with status 0 without MPI_Init, the others were waiting for it there", e.rank, node),
		"let every rank call MPI_Init, or none"), false)
}

// blameLeft ends a gang of which a rank has ended well in the middle of MPI: the
// others would wait for it without end. mpiexec kills at once; here ranks that all
// leave in that way have the time to.
func (s *shim) blameLeft(e gangExit) {
	if s.ending || s.finished || s.complete() {
		return
	}
	node := s.nameOf(e.node)
	s.verdict = verdict{code: 1, first: int32(e.rank), node: node}
	s.end(failed(wire.FailureCode_FAILURE_RANK, node,
		fmt.Sprintf("rank %d on %s ended with status 0 without MPI_Finalize, the others were still running", e.rank, node),
		"let every rank call MPI_Finalize, or MPI_Abort to end them all"), false)
}
