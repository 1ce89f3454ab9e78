package main

import (
	"os"
	"strings"

	"gangway/launcher/sched"
	"gangway/topology"
	"gangway/topology/fabric"
)

// readFabric reads the file of --fabric for a launcher whose nodes have these
// names; none: they are not known yet. "" is no fabric.
func readFabric(file string, entries []topology.HostEntry, warn func(string)) (*sched.Fabric, error) {
	if file == "" {
		return nil, nil
	}
	r, err := os.Open(file)
	if err != nil {
		return nil, usagef("give what ibnetdiscover printed, a topology.conf or YAML", "--fabric: %v", err)
	}
	defer r.Close()
	f, err := fabric.Read(r, file)
	if err != nil {
		return nil, usagef("see gangway fabric show --from "+file, "--fabric: %v", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	const shown = 10
	notes := f.Warnings
	if len(names) > 0 {
		notes = append(notes, f.MatchHosts(names)...)
	}
	for i, w := range notes {
		if i == shown {
			warn("fabric: and more; see gangway fabric show --from " + file)
			break
		}
		warn("fabric: " + w)
	}
	ready := sched.NewFabric(f.Domains())
	if ready == nil {
		return nil, usagef("see gangway fabric show --from "+file, "--fabric: %s names no host", strings.TrimSpace(file))
	}
	return ready, nil
}
