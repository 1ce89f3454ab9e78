package agents

import (
	"errors"
	"fmt"
)

// ErrTwice is wrapped by the error of a session that was refused because the
// same agent has one already, as another node.
var ErrTwice = errors.New("this machine is in the pool already")

// claim takes an agent for a node. An agent holds one session of a launcher: a
// machine that is connected to and joins as well would, under two names, have
// each of its sessions end the other, and its cores be given out twice.
func (f *Fleet) claim(agent, node string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if has := f.agents[agent]; agent != "" && has != "" && has != node {
		how := "it joined under that name"
		if n := f.nodes[has]; n != nil && n.kept {
			how = "the launcher connects to it"
		}
		return fmt.Errorf("%w, as node %s (%s): take it out of the launcher's --hosts, or end the agent that joins", ErrTwice, has, how)
	}
	f.agents[agent] = node
	return nil
}

func (f *Fleet) release(agent, node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.agents[agent] == node {
		delete(f.agents, agent)
	}
}
