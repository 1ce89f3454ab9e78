package shim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gangway/nodeagent/wire"
)

func TestRanksOfPeers(t *testing.T) {
	peers := []*wire.Peer{
		{Index: 0, Name: "a", FirstRank: 0, Ranks: 3, RankList: "0,3,5"},
		{Index: 1, Name: "b", FirstRank: 1, Ranks: 1},
		{Index: 2, Name: "nothing"},
		{Index: 3, Name: "c", FirstRank: 2, Ranks: 2, RankList: "2,4"},
	}
	if err := checkPeers(peers, 6); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{0, 1, 3, 0, 3, 0}, nodeOfRank(peers)); d != "" {
		t.Errorf("nodes of ranks: -want +got\n%s", d)
	}
	if d := cmp.Diff([]int{0, 1, 2, 0, 2, 0}, layoutOrder(peers)); d != "" {
		t.Errorf("layout: -want +got\n%s", d)
	}
	if got := ranksText(peers[0]) + "; " + ranksText(peers[1]); got != "0,3,5; 1" {
		t.Errorf("ranks in words: %s", got)
	}
}

func TestPeersThatDoNotFit(t *testing.T) {
	for _, c := range []struct {
		peers []*wire.Peer
		want  string
	}{
		{[]*wire.Peer{{Name: "a", Ranks: 2}, {Name: "b", FirstRank: 1, Ranks: 1}}, "rank 1 of b is another node's too"},
		{[]*wire.Peer{{Name: "a", Ranks: 2}}, "the nodes have 2 ranks, the gang 3"},
		{[]*wire.Peer{{Name: "a", Ranks: 4}}, "rank 3 of a"},
		{[]*wire.Peer{{Name: "a", Ranks: 2, RankList: "0-2"}}, "is not of 2 ranks"},
		{[]*wire.Peer{{Name: "a", Ranks: 3, RankList: "0,x"}}, "the ranks of a: rank list \"0,x\", column 3"},
		{[]*wire.Peer{{Name: "a", Ranks: 4_000_000_000}}, "more than a gang may have"},
	} {
		if err := checkPeers(c.peers, 3); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, not %q", c.peers, err, c.want)
		}
	}
}
