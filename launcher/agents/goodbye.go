package agents

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Goodbye ends all sessions in order and waits, until ctx is done, for the
// agents to say that nothing of this launcher's session jobs is left on their
// nodes. The error names every node for which nobody said so: those that had a
// session once and have none now, those whose session broke before the answer,
// and those that did not answer in time.
func (f *Fleet) Goodbye(ctx context.Context) error {
	var away, broken, mute []string
	open := map[string]*session{}
	f.mu.Lock()
	f.leaving = true
	for name, n := range f.nodes {
		switch {
		case n.session != nil:
			n.session.goodbye()
			open[name] = n.session
		case n.ever:
			away = append(away, name)
		}
	}
	f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(open)) {
		s := open[name]
		select {
		case <-s.gone:
			continue
		case <-s.ended:
		case <-ctx.Done():
		}
		// What is ready at the same time is chosen at random.
		switch {
		case closed(s.gone):
		case closed(s.ended):
			broken = append(broken, name)
		default:
			mute = append(mute, name)
		}
	}
	slices.Sort(away)
	lease := ""
	if f.cfg.Lease > 0 {
		lease = fmt.Sprintf(": what runs there ends by itself within %v", f.cfg.Lease)
	}
	return errors.Join(
		about(away, "can't be reached"+lease),
		about(broken, "went out of reach before everything there had ended"+lease),
		about(mute, "did not confirm that everything there has ended"),
	)
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// about returns nil when it concerns no node.
func about(nodes []string, what string) error {
	switch len(nodes) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("node %s %s", nodes[0], what)
	}
	return fmt.Errorf("nodes %s %s", strings.Join(nodes, ", "), what)
}
