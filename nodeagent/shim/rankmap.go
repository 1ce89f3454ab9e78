package shim

import (
	"fmt"

	"gangway/nodeagent/wire"
	"gangway/topology"
)

// rankLimit is above every rank's number: what a launcher admits to one gang.
const rankLimit = 1 << 20

// rankNumbers lists a node's ranks, ascending, so that the index is the local
// rank: from its list if it has one, else n from first on.
func rankNumbers(list string, first, n uint32) ([]uint32, error) {
	if uint64(first)+uint64(n) > rankLimit {
		return nil, fmt.Errorf("%d ranks from %d on are more than a gang may have (%d)", n, first, rankLimit)
	}
	out := make([]uint32, 0, n)
	if list == "" {
		for i := range n {
			out = append(out, first+i)
		}
		return out, nil
	}
	ranks, err := topology.ParseRanks(list, rankLimit)
	if err != nil {
		return nil, err
	}
	if len(ranks) != int(n) || ranks[0] != int(first) {
		return nil, fmt.Errorf("the rank list %q is not of %d ranks that begin with %d", list, n, first)
	}
	for _, r := range ranks {
		out = append(out, uint32(r))
	}
	return out, nil
}

// ownRanks lists the ranks of the assignment's node, by local rank.
func ownRanks(a *wire.Assignment) ([]uint32, error) {
	return rankNumbers(a.GetRankList(), a.GetFirstRank(), a.GetNodeRanks())
}

// peerRanks lists the ranks of a node of the gang, by local rank; none if its
// list can't be read, which checkPeers has refused.
func peerRanks(p *wire.Peer) []uint32 {
	out, err := rankNumbers(p.GetRankList(), p.GetFirstRank(), p.GetRanks())
	if err != nil {
		return nil
	}
	return out
}

// checkPeers reports whether the peers have every rank of the gang once.
func checkPeers(peers []*wire.Peer, total uint32) error {
	seen := make([]bool, min(total, rankLimit))
	n := 0
	for _, p := range peers {
		ranks, err := rankNumbers(p.GetRankList(), p.GetFirstRank(), p.GetRanks())
		if err != nil {
			return fmt.Errorf("the ranks of %s: %w", p.GetName(), err)
		}
		for _, r := range ranks {
			if r >= total || seen[r] {
				return fmt.Errorf("rank %d of %s is another node's too, or not below %d", r, p.GetName(), total)
			}
			seen[r] = true
		}
		n += len(ranks)
	}
	if n != int(total) {
		return fmt.Errorf("the nodes have %d ranks, the gang %d", n, total)
	}
	return nil
}

// nodeOfRank gives for each rank of the gang its node's index in the gang; -1
// for one that no node has.
func nodeOfRank(peers []*wire.Peer) []int {
	var out []int
	for _, p := range peers {
		for _, r := range peerRanks(p) {
			for len(out) <= int(r) {
				out = append(out, -1)
			}
			out[r] = int(p.GetIndex())
		}
	}
	return out
}

// localRank is a rank's number on this node; false if it is another node's.
func (s *shim) localRank(n int64) (int, bool) {
	for i, r := range s.ranks {
		if int64(r.n) == n {
			return i, true
		}
	}
	return 0, false
}

// ranksHere lists this node's ranks when the gang is launched. What the launcher
// says of the gang must fit together: nothing can be started otherwise.
func (s *shim) ranksHere() ([]uint32, error) {
	if err := checkPeers(s.peers, s.a.GetTotalRanks()); err != nil {
		return nil, err
	}
	return ownRanks(s.a)
}

// ranksText names a node's ranks in a message: "3", "4 to 7", "0-12/4".
func ranksText(p *wire.Peer) string {
	switch first, n := p.GetFirstRank(), p.GetRanks(); {
	case p.GetRankList() != "":
		return p.GetRankList()
	case n == 1:
		return fmt.Sprint(first)
	default:
		return fmt.Sprintf("%d to %d", first, first+n-1)
	}
}

// layoutOrder is mpi.Layout.Order for those of the peers that have ranks.
func layoutOrder(peers []*wire.Peer) []int {
	at := make(map[int]int) // by index in the gang
	for _, p := range peers {
		if p.GetRanks() > 0 {
			at[int(p.GetIndex())] = len(at)
		}
	}
	out := nodeOfRank(peers)
	for r, i := range out {
		out[r] = at[i]
	}
	return out
}
