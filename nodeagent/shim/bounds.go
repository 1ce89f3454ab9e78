package shim

import (
	"cmp"
	"fmt"
	"slices"

	"gangway/nodeagent/wire"
)

// The primary keeps the results of all members, and one frame carries the
// gang's: what ranks last said must not grow with their number. In bytes:
const (
	gangTails   = 8 << 20   // of all members' results at the primary, about
	memberTails = 256 << 10 // of one member's result, at most
	minTails    = 4 << 10   // of one member's result, however many there are
	resultTails = 4 << 20   // of the gang's result
	maxWarnings = 200       // of the gang's result
)

// Of the last lines in a gang's result, bytes.
const (
	lastWordsLimit = 64 << 10 // of those that differ
	sameWordsLimit = 1 << 20  // of their repetitions
)

// tailsOf is how many bytes of last words a member of a gang of n may report.
func tailsOf(n int) int { return min(memberTails, max(minTails, gangTails/max(1, n))) }

// bound limits what a result says in words. The last words of ranks that failed
// by themselves come first, the earliest of them before all; what does not fit
// is cut to its end or left out.
func bound(r *wire.Result, tails int) {
	order := slices.Clone(r.GetRanks())
	slices.SortStableFunc(order, func(a, b *wire.RankExit) int {
		if x, y := guiltless(a), guiltless(b); x != y {
			if x {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.GetEndNs(), b.GetEndNs())
	})
	for _, k := range order {
		if n := len(k.LastStderr); n > tails {
			k.LastStderr = validEnd(k.LastStderr[n-tails:])
		}
		tails -= len(k.LastStderr)
	}
	if n := len(r.Warnings); n > maxWarnings {
		r.Warnings = append(r.Warnings[:maxWarnings-1:maxWarnings-1], fmt.Sprintf("and %d warnings more", n-maxWarnings+1))
	}
}

// guiltless says that a rank ended well, or because the gang was ended.
func guiltless(k *wire.RankExit) bool {
	return k.GetKilledByGangway() || k.GetExitCode() == 0 && k.GetSignal() == 0
}

// validEnd drops the rest of a character that was cut in two: protobuf takes
// whole ones only.
func validEnd(s string) string {
	for len(s) > 0 && s[0]&0xc0 == 0x80 {
		s = s[1:]
	}
	return s
}

// boundWords leaves out last lines beyond the limits, those of the first rank
// last.
func boundWords(ranks []*wire.RankExit, first int32) {
	left, again := lastWordsLimit, sameWordsLimit
	seen := map[string]bool{}
	pass := func(k *wire.RankExit) {
		text := k.GetLastStderr()
		budget := &left
		if seen[text] {
			budget = &again
		}
		if *budget -= len(text); *budget < 0 {
			*budget += len(text)
			k.LastStderr = ""
			return
		}
		seen[text] = true
	}
	for _, k := range ranks {
		if int32(k.GetRank()) == first {
			pass(k)
		}
	}
	for _, k := range ranks {
		if int32(k.GetRank()) != first && k.GetLastStderr() != "" {
			pass(k)
		}
	}
}
