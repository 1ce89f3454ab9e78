package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
)

// MainSpare is the life of a shim that was started before there was work for it
// (wire.SpareArg). It does once what the first use of things costs, and waits for
// its first frame; from then on it is what Main is, under the name that every shim
// has. An agent that ends before it has work for it is no error.
func MainSpare(ctx context.Context, first net.Conn) error {
	// Found out now, not when an attempt depends on it.
	title, err := proc.OpenTitle()
	if err == nil {
		defer title.Close()
		err = errors.Join(title.Replace(wire.SpareArg, wire.SpareArg), title.Replace(wire.SpareMark, wire.SpareMark))
	}
	if err != nil {
		_ = first.Close()
		return err
	}
	if err := warmUp(); err != nil {
		_ = first.Close()
		return fmt.Errorf("warming up: %w", err)
	}
	// The thread from which the attempt's processes are started.
	s := &shim{forker: proc.NewForker()}
	defer s.forker.Close()
	for {
		f, err := link.ReadFrame(first)
		if errors.Is(err, io.EOF) {
			return first.Close()
		}
		if err != nil {
			_ = first.Close()
			return fmt.Errorf("reading the assignment: %w", err)
		}
		start := f.GetStart()
		if start != nil && start.GetAssignment() == nil { // the node alone: most of what is to be read
			s.start = start
			if err := s.readNode(); err != nil {
				_ = first.Close()
				return err
			}
			continue
		}
		mark := "GANGWAY_ID=" + start.GetAssignment().GetId()
		if err := errors.Join(title.Replace(wire.SpareMark, mark), title.Replace(wire.SpareArg, "shim"), os.Unsetenv("GANGWAY_SPARE"),
			os.Setenv("GANGWAY_ID", start.GetAssignment().GetId())); err != nil {
			_ = first.Close()
			return err
		}
		return s.serve(ctx, first, f)
	}
}
