package nodeagent

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/crew"
	"gangway/nodeagent/pack"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// A crew that was killed has results in its spool that the launcher may not have,
// and elements that it never began. The agent tells both in its place, and says
// that it is gone when they are acknowledged: whatever else it had was running.

// recoverCrew returns the blocks of a dead crew's spool and, with back, one more
// that gives back what it never began. before is that block as it was told
// already: it must not say anything else the next time, and what was told to the
// crew last is not known then.
func recoverCrew(recs []*wire.Frame, told *wire.Work, before []byte, back bool) ([]*wire.Block, []byte, error) {
	found, err := crew.Recover(recs, told)
	if err != nil {
		return found.Blocks, nil, fmt.Errorf("the crew's spool: %w", err)
	}
	if !back {
		return found.Blocks, nil, nil
	}
	b := found.Returned
	if len(before) > 0 {
		b = new(wire.Block)
		if err := proto.Unmarshal(before, b); err != nil {
			return found.Blocks, nil, fmt.Errorf("what the crew gives back: %w", err)
		}
	}
	if b == nil {
		return found.Blocks, nil, nil
	}
	text, err := proto.Marshal(b)
	if err != nil {
		return found.Blocks, nil, fmt.Errorf("what the crew gives back: %w", err)
	}
	return append(found.Blocks, b), text, nil
}

// ack drops the blocks up to and with seq.
func (sh *shim) ack(seq uint64) {
	sh.acked = max(sh.acked, seq)
	for len(sh.blocks) > 0 && sh.blocks[0].GetSeq() <= sh.acked {
		sh.blocks = sh.blocks[1:]
	}
}

// tellBlocks tells a dead crew's blocks.
func (sh *shim) tellBlocks(s *session) {
	for _, b := range sh.blocks {
		s.send(&wire.AgentMessage{M: &wire.AgentMessage_FromShim{FromShim: &wire.FromShim{
			Id: sh.e.ID, Name: sh.name(), M: &wire.FromShim_Block{Block: b}}}})
	}
}

// discardScratch removes the files that the elements of a dead crew wrote to.
// What had ended was packed before its result was recorded.
func (d Dir) discardScratch(e entry) error {
	if e.Crew == 0 || e.TaskDir == "" {
		return nil
	}
	root, err := d.openTasks()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = pack.Discard(root, path.Join(e.TaskDir, pack.Dir), e.ID)
		_ = root.Close()
	}
	if err != nil {
		return fmt.Errorf("the files of crew %s's elements: %w", e.ID, err)
	}
	return nil
}

// removeCrewGroups removes the control groups of a dead crew's slots.
func removeCrewGroups(e entry) {
	for i := range e.Crew {
		if proc.RemoveGroups(fmt.Sprintf("%s-%d", filepath.Base(e.NodeDir), i)) != nil {
			return
		}
	}
}
