package bind

import (
	"strconv"
	"strings"

	"gangway/topology"
)

// Env returns the variables, as NAME=VALUE, that tell a rank's runtimes of its
// place; those that user, a list of the same form, sets are left out: what the
// user says wins.
//
//   - OMP_NUM_THREADS: Place.Threads.
//   - OMP_PLACES, for a bound rank: its PUs, one place a thread as far as they
//     go, by the operating system's numbers; OMP_PROC_BIND=spread: a thread
//     keeps to its place.
//   - CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES or ZE_AFFINITY_MASK: the rank's
//     GPUs, by vendor; for NVIDIA's also CUDA_DEVICE_ORDER=PCI_BUS_ID, without
//     which CUDA counts in an order of its own. A rank without GPUs gets none.
//   - UCX_NET_DEVICES: the active ports of the rank's HCAs, "mlx5_0:1". Not for
//     Omni-Path, whose ports UCX is not the way to.
//   - NCCL_IB_HCA, with GPUs only: the same ports as exact names, "=mlx5_0:1".
//     RCCL reads it too.
func Env(n topology.Node, p Place, user []string) []string {
	set := map[string]bool{}
	for _, v := range user {
		name, _, _ := strings.Cut(v, "=")
		set[name] = true
	}
	var out []string
	add := func(name, value string) {
		if !set[name] {
			out = append(out, name+"="+value)
		}
	}
	add("OMP_NUM_THREADS", strconv.Itoa(max(p.Threads, 1)))
	if !p.CPUs.IsEmpty() && !set["OMP_PLACES"] && !set["OMP_PROC_BIND"] {
		add("OMP_PLACES", ompPlaces(n, p))
		add("OMP_PROC_BIND", "spread")
	}
	if len(p.GPUs) > 0 {
		g, _ := gpuOf(n, p.GPUs[0])
		switch {
		case g.Vendor == "nvidia" && !set["CUDA_VISIBLE_DEVICES"]:
			add("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
			add("CUDA_VISIBLE_DEVICES", strings.Join(p.GPUs, ","))
		case g.Vendor == "amd" && !set["HIP_VISIBLE_DEVICES"] && !set["CUDA_VISIBLE_DEVICES"]:
			// HIP counts among the devices that ROCr leaves: either, not both.
			add("ROCR_VISIBLE_DEVICES", strings.Join(p.GPUs, ","))
		case g.Vendor == "intel":
			add("ZE_AFFINITY_MASK", strings.Join(p.GPUs, ","))
		}
	}
	if ports := activePorts(n, p.NICs); len(ports) > 0 {
		add("UCX_NET_DEVICES", strings.Join(ports, ","))
		if len(p.GPUs) > 0 {
			add("NCCL_IB_HCA", "="+strings.Join(ports, ","))
		}
	}
	return out
}

// ompPlaces lists the PUs of a place, "{0,4},{1,5}". Threads share a core's
// PUs only where there are more threads than cores.
func ompPlaces(n topology.Node, p Place) string {
	var units []topology.CPUSet
	var known topology.CPUSet
	for _, c := range inTreeOrder(n, p.CPUs) {
		units = append(units, c.PUs)
		known = known.Union(c.PUs)
	}
	for _, pu := range p.CPUs.Minus(known).Slice() {
		units = append(units, topology.NewCPUSet(pu))
	}
	threads := max(p.Threads, 1)
	if threads > len(units) {
		var pus []topology.CPUSet
		if threads >= p.CPUs.Count() {
			for _, u := range units {
				for _, pu := range u.Slice() {
					pus = append(pus, topology.NewCPUSet(pu))
				}
			}
		} else {
			for i, k := range share(threads, len(units)) {
				pus = append(pus, deal(units[i].Slice(), min(k, units[i].Count()))...)
			}
		}
		units = pus
	}
	var b strings.Builder
	at := 0
	for _, k := range share(len(units), min(threads, len(units))) {
		var place topology.CPUSet
		for _, u := range units[at : at+k] {
			place = place.Union(u)
		}
		at += k
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString("{" + commas(place) + "}")
	}
	return b.String()
}

// commas lists a set without ranges, which OpenMP writes in another way.
func commas(c topology.CPUSet) string {
	var s []string
	for _, pu := range c.Slice() {
		s = append(s, strconv.Itoa(pu))
	}
	return strings.Join(s, ",")
}

// activePorts names the active ports of HCAs as verbs programs do: mlx5_0:1.
func activePorts(n topology.Node, names []string) []string {
	var out []string
	for _, name := range names {
		if strings.HasPrefix(name, "hfi1") {
			continue
		}
		for _, h := range n.HCAs {
			if h.Name != name {
				continue
			}
			for _, p := range h.Ports {
				if p.State == "ACTIVE" {
					out = append(out, name+":"+strconv.Itoa(p.Number))
				}
			}
		}
	}
	return out
}
