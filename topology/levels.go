package topology

import (
	"cmp"
	"slices"
)

// Sort brings the fabric's slices into their order, and Blocks' hosts; the order
// of Blocks itself has a meaning and stays.
func (f *Fabric) Sort() {
	slices.SortFunc(f.Switches, func(a, b Switch) int { return CompareNatural(a.Name, b.Name) })
	for _, s := range f.Switches {
		slices.SortFunc(s.Links, func(a, b SwitchLink) int {
			return cmp.Or(CompareNatural(a.To, b.To), compareSpeed(a.Gbps, b.Gbps))
		})
	}
	slices.SortFunc(f.Hosts, func(a, b FabricHost) int { return CompareNatural(a.Name, b.Name) })
	for _, h := range f.Hosts {
		slices.SortFunc(h.Ports, comparePorts)
	}
	slices.SortFunc(f.Unnamed, comparePorts)
	for _, b := range f.Blocks {
		slices.SortFunc(b.Hosts, CompareNatural)
	}
}

func comparePorts(a, b FabricPort) int {
	return cmp.Or(CompareNatural(a.HCA, b.HCA), cmp.Compare(a.Port, b.Port), CompareNatural(a.Switch, b.Switch),
		cmp.Compare(a.SwitchPort, b.SwitchPort), cmp.Compare(a.GUID, b.GUID))
}

func compareSpeed(a, b *float64) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return cmp.Compare(*a, *b)
}

// SetLevels fills in each switch's Level: 0 for every switch that has a port of
// a host; where no switch states a parent, the number of hops from the nearest
// leaf; otherwise one more than the highest level below.
func (f *Fabric) SetLevels() {
	at := f.switchIndex()
	var queue []int
	stated := false
	for i := range f.Switches {
		f.Switches[i].Level = -1
		stated = stated || f.Switches[i].Parent != ""
	}
	leaf := func(ports []FabricPort) {
		for _, p := range ports {
			if i, ok := at[p.Switch]; ok && f.Switches[i].Level < 0 {
				f.Switches[i].Level = 0
				queue = append(queue, i)
			}
		}
	}
	for _, h := range f.Hosts {
		leaf(h.Ports)
	}
	leaf(f.Unnamed)
	if stated {
		f.raise(at, queue)
		return
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, l := range f.Switches[i].Links {
			if j, ok := at[l.To]; ok && f.Switches[j].Level < 0 {
				f.Switches[j].Level = f.Switches[i].Level + 1
				queue = append(queue, j)
			}
		}
	}
}

// raise lifts the parents of leaves above their children, once per child that
// has become higher; parents in a circle end at the number of switches.
func (f *Fabric) raise(at map[string]int, queue []int) {
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		j, ok := at[f.Switches[i].Parent]
		level := f.Switches[i].Level + 1
		if ok && f.Switches[j].Level < level && level < len(f.Switches) {
			f.Switches[j].Level = level
			queue = append(queue, j)
		}
	}
}

func (f *Fabric) switchIndex() map[string]int {
	at := make(map[string]int, len(f.Switches))
	for i, s := range f.Switches {
		at[s.Name] = i
	}
	return at
}
