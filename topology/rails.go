package topology

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Rail is one plane of a rail-optimised fabric: the leaves to which all hosts
// have cabled the same one of their HCAs.
type Rail struct {
	Index  int      `json:"index"`            // from 0, in the order of the HCAs
	HCAs   []string `json:"hcas"`             // names of the HCAs on it, all ways of writing them
	Leaves []string `json:"leaves"`           // in natural order
	Strays []string `json:"strays,omitempty"` // "host hca" whose other hosts' like are on another rail
}

// Rails returns the rails of a rail-optimised fabric, nil if it is none. A
// fabric is rail-optimised when most hosts go to several leaves, and nine of
// ten of their ports go to a leaf where most ports are of the same HCA, counted
// in the natural order of a host's HCAs.
func (f Fabric) Rails() []Rail {
	at := f.switchIndex()
	type port struct{ host, index, leaf, key int }
	var ports []port
	several, widest := 0, 0
	numbers := map[int]bool{}
	numbered := true
	for h, host := range f.Hosts {
		leaves := map[int]bool{}
		first := len(ports)
		order := make([]int, 0, len(host.Ports))
		for i := range host.Ports {
			order = append(order, i)
		}
		slices.SortStableFunc(order, func(a, b int) int {
			x, okx := HCANumber(host.Ports[a].HCA)
			y, oky := HCANumber(host.Ports[b].HCA)
			if okx && oky {
				return cmp.Compare(x, y)
			}
			return CompareNatural(host.Ports[a].HCA, host.Ports[b].HCA)
		})
		for k, i := range order {
			if leaf, ok := at[host.Ports[i].Switch]; ok {
				leaves[leaf] = true
				ports = append(ports, port{h, i, leaf, k})
			}
		}
		if len(leaves) < 2 {
			ports = ports[:first] // a host on one leaf says nothing of rails
			continue
		}
		several++
		widest = max(widest, len(ports)-first)
		for _, p := range ports[first:] {
			n, ok := HCANumber(host.Ports[p.index].HCA)
			numbered = numbered && ok
			numbers[n] = true
		}
	}
	if several*2 <= len(f.Hosts) {
		return nil
	}
	// A host that lacks an HCA has the others in their places only by number.
	if numbered && len(numbers) <= widest {
		for i, p := range ports {
			ports[i].key, _ = HCANumber(f.Hosts[p.host].Ports[p.index].HCA)
		}
	}
	votes := make(map[int]map[int]int, len(f.Switches))
	for _, p := range ports {
		if votes[p.leaf] == nil {
			votes[p.leaf] = map[int]int{}
		}
		votes[p.leaf][p.key]++
	}
	of := map[int]int{} // the key of a leaf
	agree := 0
	var keys []int
	for leaf, v := range votes {
		best, n := 0, 0
		for key, count := range v {
			if count > n || count == n && key < best {
				best, n = key, count
			}
		}
		of[leaf] = best
		agree += n
		keys = append(keys, best)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if agree*10 < len(ports)*9 || len(keys) < 2 {
		return nil
	}
	rails := make([]Rail, len(keys))
	for leaf, key := range of {
		r := slices.Index(keys, key)
		rails[r].Leaves = append(rails[r].Leaves, f.Switches[leaf].Name)
	}
	for _, p := range ports {
		r := &rails[slices.Index(keys, of[p.leaf])]
		hca := f.Hosts[p.host].Ports[p.index].HCA
		if p.key == of[p.leaf] {
			if !slices.Contains(r.HCAs, hca) {
				r.HCAs = append(r.HCAs, hca)
			}
		} else {
			r.Strays = append(r.Strays, strings.TrimSpace(f.Hosts[p.host].Name+" "+hca))
		}
	}
	for i := range rails {
		rails[i].Index = i
		slices.SortFunc(rails[i].HCAs, CompareNatural)
		slices.SortFunc(rails[i].Leaves, CompareNatural)
		slices.SortFunc(rails[i].Strays, CompareNatural)
	}
	return rails
}

// HCANumber is an HCA's place among those of its host, from 0, as its name
// tells: mlx5_4 and HCA-5 are both 4. Names by PCI address tell none.
func HCANumber(name string) (int, bool) {
	i := len(name)
	for i > 0 && isDigit(name[i-1]) {
		i--
	}
	n, err := strconv.Atoi(name[i:])
	if err != nil || n > 1<<20 || i == 0 {
		return 0, false
	}
	switch prefix := strings.ToLower(name[:i]); {
	case prefix == "hca-" || prefix == "hca":
		return n - 1, n > 0
	case strings.HasSuffix(prefix, "_"), prefix == "mthca", prefix == "qib", prefix == "ipath":
		return n, true
	}
	return 0, false
}
