package topology

import (
	"fmt"
	"slices"
	"strings"
)

// MatchHosts renames the fabric's hosts to those of a cluster where they differ
// only in case or in a domain behind the name (N1.hpc.example for n1), and says
// which hosts of the cluster are not on the fabric and which were renamed or
// could mean several. Hosts that are not in the cluster stay.
func (f *Fabric) MatchHosts(cluster []string) (notes []string) {
	exact := map[string]bool{}
	short := map[string][]string{} // hosts of the cluster by what is compared
	for _, c := range cluster {
		exact[c] = true
		k := shortName(c)
		short[k] = append(short[k], c)
	}
	found := map[string]bool{}
	for _, h := range f.Hosts {
		found[h.Name] = exact[h.Name]
	}
	renamed := map[string]string{}
	for i, h := range f.Hosts {
		if exact[h.Name] {
			continue
		}
		names := short[shortName(h.Name)]
		switch {
		case len(names) == 0:
		case len(names) > 1:
			notes = append(notes, fmt.Sprintf("host %s of the fabric could be %s: it keeps its name", h.Name, strings.Join(names, " or ")))
		case found[names[0]]:
			notes = append(notes, fmt.Sprintf("host %s of the fabric would be %s too: it keeps its name", h.Name, names[0]))
		default:
			renamed[h.Name] = names[0]
			found[names[0]] = true
			f.Hosts[i].Name = names[0]
		}
	}
	for _, b := range f.Blocks {
		for i, h := range b.Hosts {
			if to, ok := renamed[h]; ok {
				b.Hosts[i] = to
			}
		}
	}
	f.Sort()
	var missing []string
	for _, c := range cluster {
		if !found[c] {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		slices.SortFunc(missing, CompareNatural)
		missing = slices.Compact(missing)
		notes = append(notes, fmt.Sprintf("%d hosts are not on the fabric: %s", len(missing), CompactHosts(missing)))
	}
	return notes
}

// shortName is a host's name without case and domain; addresses stay whole.
func shortName(s string) string {
	s = strings.ToLower(s)
	first, _, _ := strings.Cut(s, ".")
	if strings.Trim(first, "0123456789") == "" {
		return s
	}
	return first
}
