package launcher

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
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
	b.clearEach(func(node string) { b.clearOn(node, folder) })
}

// clearElements deletes what nodes have of the elements of a task that was forgotten.
func (b *backend) clearElements(n state.Notice) {
	b.clearEach(func(node string) { b.clearTasks(node, path.Dir(n.Folder), n.Job) })
}

// clearEach does something for each node, several at a time.
func (b *backend) clearEach(do func(node string)) {
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
			do(n)
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

// clearUnknown deletes what a node has of jobs and tasks that are no more: they were
// deleted while it was away.
func (b *backend) clearUnknown(node string, folders []string) {
	var unknown []string
	thinned := map[string]string{} // jobs' folders, and the jobs' uids
	if err := b.read(b.life, func(c *state.Cluster) error {
		for _, f := range folders {
			uid, ok := strings.CutPrefix(path.Base(f), "job-")
			switch {
			case !ok: // not of this version's making
			case !c.Owns(f, uid):
				unknown = append(unknown, f)
			case c.Thinned(uid):
				thinned[f] = uid
			}
		}
		return nil
	}); err != nil {
		return
	}
	for _, f := range unknown {
		b.clearOn(node, f)
	}
	for _, f := range slices.Sorted(maps.Keys(thinned)) {
		b.clearTasks(node, f, thinned[f])
	}
}

// clearTasks deletes the folders in a job's folder that are no task's. What is there
// belongs to a task that was known before it was listed, so that what is not known
// after that is of a task that is no more.
func (b *backend) clearTasks(node, folder, uid string) {
	for cursor := ""; ; {
		ctx, cancel := context.WithTimeout(b.life, 30*time.Second)
		r, err := b.fleet.Files(ctx, node, &wire.FileRequest{Op: wire.FileOp_FILE_OP_LIST, Path: folder, Cursor: cursor})
		cancel()
		if err != nil || r.GetCode() != wire.FileError_FILE_ERROR_NONE {
			return // its next session begins with all of it
		}
		var unknown []string
		if err := b.read(b.life, func(c *state.Cluster) error {
			for _, e := range r.GetEntries() {
				if !c.OwnsTask(uid, path.Base(e.GetPath())) {
					unknown = append(unknown, e.GetPath())
				}
			}
			return nil
		}); err != nil {
			return
		}
		for _, f := range unknown {
			b.clearOn(node, f)
		}
		if cursor = r.GetCursor(); !r.GetMore() || cursor == "" {
			return
		}
	}
}
