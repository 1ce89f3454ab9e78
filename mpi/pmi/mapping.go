package pmi

import (
	"fmt"
	"strings"
)

// Mapping returns the value of PMI_process_mapping: on which node every rank is,
// "(vector,(first,nodes,ranks),…)", each part saying that the nodes from first on
// have that many consecutive ranks each. nodeOfRank[r] is rank r's node, from 0.
//
// It is "" when it would be longer than MaxValue, which a client could not read:
// a gang whose ranks lie on its nodes without any rule. MPICH then finds out by
// the nodes' names; others may refuse to start.
func Mapping(nodeOfRank []int) string {
	if len(nodeOfRank) == 0 {
		return ""
	}
	type run struct{ node, ranks int }
	var runs []run
	for _, n := range nodeOfRank {
		if k := len(runs); k > 0 && runs[k-1].node == n {
			runs[k-1].ranks++
			continue
		}
		runs = append(runs, run{n, 1})
	}
	var b strings.Builder
	b.WriteString("(vector")
	for i := 0; i < len(runs); {
		j := i + 1
		for j < len(runs) && runs[j].ranks == runs[i].ranks && runs[j].node == runs[j-1].node+1 {
			j++
		}
		fmt.Fprintf(&b, ",(%d,%d,%d)", runs[i].node, j-i, runs[i].ranks)
		i = j
	}
	b.WriteString(")")
	if b.Len() >= MaxValue {
		return ""
	}
	return b.String()
}
