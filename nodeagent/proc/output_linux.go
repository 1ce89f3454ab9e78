package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// killWait is how long killed processes may take to end.
const killWait = 2 * time.Second

// Output runs a program in a session of its own until it has ended or ctx has,
// and returns what it wrote, at most limit bytes of each stream. Afterwards nothing
// of it is left: what it started and left behind, or all of it when ctx ends
// first, is killed. The error then wraps ctx's; one that wraps a *StuckError names
// processes that can't be ended. An exit status other than 0 is an error too.
func Output(ctx context.Context, start func(Cmd) (*Process, error), c Cmd, limit int64) (stdout, stderr []byte, err error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer outR.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		_ = outW.Close()
		return nil, nil, err
	}
	defer errR.Close()
	c.NewSession, c.Stdout, c.Stderr = true, outW, errW
	p, err := start(c)
	_ = outW.Close()
	_ = errW.Close()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var out, diag bytes.Buffer
	var readers sync.WaitGroup
	for _, s := range []struct {
		r   *os.File
		buf *bytes.Buffer
	}{{outR, &out}, {errR, &diag}} {
		readers.Go(func() {
			if n, _ := io.Copy(s.buf, io.LimitReader(s.r, limit)); n == limit {
				var one [1]byte
				if k, _ := s.r.Read(one[:]); k > 0 {
					cancel(fmt.Errorf("it wrote more than %d bytes", limit))
				}
			}
		})
	}
	type end struct {
		st  Status
		err error
	}
	ended := make(chan end, 1)
	go func() {
		// Its number stays its group's until it is reaped.
		_ = retryEINTR(func() error {
			return unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		})
		_ = unix.Kill(-p.pid, unix.SIGKILL)
		st, err := p.Wait()
		ended <- end{st, err}
	}()
	var e end
	select {
	case e = <-ended:
	case <-ctx.Done():
		left, _ := KillTree(p.pid, killWait)
		select {
		case e = <-ended:
		case <-time.After(killWait):
			err = &StuckError{PIDs: append(left, p.pid)}
		}
		err = errors.Join(context.Cause(ctx), err)
	}
	// Whoever else may hold the pipes gets no more time.
	late := time.Now().Add(killWait / 2)
	_ = outR.SetReadDeadline(late)
	_ = errR.SetReadDeadline(late)
	readers.Wait()
	if cause := context.Cause(ctx); err == nil && cause != nil {
		err = cause
	}
	switch {
	case err != nil:
	case e.err != nil:
		err = e.err
	case e.st.Signal != 0:
		err = fmt.Errorf("it was ended by signal %d", e.st.Signal)
	case e.st.ExitCode != 0:
		err = fmt.Errorf("exit status %d", e.st.ExitCode)
	}
	return out.Bytes(), diag.Bytes(), err
}
