package job

import (
	"slices"

	"gangway/topology"
)

// RankNumbers lists the part's ranks, ascending; none if its list can't be read.
func (p *PartRow) RankNumbers() []int {
	if p.RankList != "" {
		out, err := topology.ParseRanks(p.RankList, MaxRanks)
		if err != nil {
			return nil
		}
		return out
	}
	out := make([]int, p.Ranks)
	for i := range out {
		out[i] = p.FirstRank + i
	}
	return out
}

// HasRank reports whether the rank is one of the part's.
func (p *PartRow) HasRank(rank int) bool {
	if p.RankList == "" {
		return rank >= p.FirstRank && rank < p.FirstRank+p.Ranks
	}
	_, ok := slices.BinarySearch(p.RankNumbers(), rank)
	return ok
}

// RankText writes the part's ranks for people: "rank 3", "ranks 4-7",
// "ranks 0-12/4" (every fourth).
func (p *PartRow) RankText() string {
	text := topology.FormatRanks(p.RankNumbers())
	if p.Ranks == 1 {
		return "rank " + text
	}
	return "ranks " + text
}

// Deal gives the parts of an attempt their ranks: blockwise, as they are, or in
// rounds.
func Deal(parts []PartRow, d Distribution) {
	if d != DistributionCyclic || len(parts) < 2 {
		return
	}
	counts := make([]int, len(parts))
	for i := range parts {
		counts[i] = parts[i].Ranks
	}
	for i, ranks := range topology.DealRanks(counts) {
		if len(ranks) == 0 {
			continue
		}
		p := &parts[i]
		p.FirstRank, p.RankList = ranks[0], ""
		if ranks[len(ranks)-1]-ranks[0] != len(ranks)-1 {
			p.RankList = topology.FormatRanks(ranks)
		}
	}
}
