package launcher

import (
	"context"
	"errors"
	"path"
	"strings"
	"sync"
	"time"

	"gangway/launcher/agents"
	"gangway/launcher/state"
	"gangway/nodeagent/wire"
)

const (
	// clearAtOnce is how many nodes are asked to clear a folder at a time.
	clearAtOnce = 16
	// clearTries is how often a node that is there and does not do it is asked.
	clearTries = 5
)

// clear deletes a folder of what was forgotten on every node. A node that is
// away tells when it is back that it has the folder still; see clearUnknown.
func (b *backend) clear(folder string) {
	var nodes []string
	if err := b.read(b.life, func(c *state.Cluster) error {
		for _, n := range c.Nodes() {
			nodes = append(nodes, n.Row.Name)
		}
		return nil
	}); err != nil {
		return
	}
	var some sync.WaitGroup
	slots := make(chan struct{}, clearAtOnce)
	for _, n := range nodes {
		slots <- struct{}{}
		some.Go(func() {
			b.clearOn(n, folder)
			<-slots
		})
	}
	some.Wait()
}

// clearOn deletes a folder on a node that has a session.
func (b *backend) clearOn(node, folder string) {
	for range clearTries {
		ctx, cancel := context.WithTimeout(b.life, 30*time.Second)
		r, err := b.fleet.Files(ctx, node, &wire.FileRequest{Op: wire.FileOp_FILE_OP_DELETE, Path: folder, Recursive: true})
		cancel()
		switch {
		case errors.Is(err, agents.ErrNoSession), errors.Is(err, agents.ErrOldAgent):
			return
		case err == nil && (r.GetCode() == wire.FileError_FILE_ERROR_NONE || r.GetCode() == wire.FileError_FILE_ERROR_NOT_FOUND):
			return
		}
		select {
		case <-b.life.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// clearUnknown deletes the folders on a node of jobs that are no more: they were
// deleted while it was away.
func (b *backend) clearUnknown(node string, folders []string) {
	var unknown []string
	if err := b.read(b.life, func(c *state.Cluster) error {
		for _, f := range folders {
			uid, ok := strings.CutPrefix(path.Base(f), "job-")
			if !ok {
				continue // not of this version's making
			}
			if !c.Owns(f, uid) {
				unknown = append(unknown, f)
			}
		}
		return nil
	}); err != nil {
		return
	}
	for _, f := range unknown {
		b.clearOn(node, f)
	}
}
