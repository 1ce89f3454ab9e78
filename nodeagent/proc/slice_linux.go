package proc

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// setSlice gives the calling thread a scheduling slice of d, which what it forks
// inherits, over exec too. restore gives it back the one that it had.
func setSlice(d time.Duration) (restore func(), err error) {
	old, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return nil, fmt.Errorf("scheduling slice: %w", err)
	}
	if old.Policy != unix.SCHED_NORMAL && old.Policy != unix.SCHED_BATCH {
		return nil, fmt.Errorf("scheduling slice: policy %d has none: %w", old.Policy, errors.ErrUnsupported)
	}
	attr := *old
	attr.Runtime = uint64(d)
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return nil, fmt.Errorf("scheduling slice: %w", err)
	}
	restore = func() { _ = unix.SchedSetAttr(0, old, 0) }
	now, err := unix.SchedGetAttr(0, 0)
	if err == nil && now.Runtime != uint64(d) {
		err = fmt.Errorf("scheduling slice: %w", errors.ErrUnsupported) // ignored before Linux 6.12
	}
	if err != nil {
		restore()
		return nil, err
	}
	return restore, nil
}

// CheckSlice says why this machine gives no scheduling slice of d (0.1 to 100 ms)
// to a process; nil: it does.
func CheckSlice(d time.Duration) error {
	errs := make(chan error, 1)
	go ownThread(func() {
		_, err := setSlice(d)
		errs <- err
	})
	return <-errs
}
