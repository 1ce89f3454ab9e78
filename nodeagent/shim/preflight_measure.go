package shim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"gangway/mpi/preflight"
)

const (
	// measureRounds limits how many others a node measures with.
	measureRounds = 16
	measurePings  = 50
	// measureTime is how long each way is filled; measureBytes ends it sooner.
	measureTime  = 60 * time.Millisecond
	measureBytes = 64 << 20
	measureChunk = 64 << 10
	// pairLimit ends a measurement, roundLimit a round of them.
	pairLimit  = 8 * time.Second
	roundLimit = 10 * time.Second

	// measureMeta opens a stream for measuring: a remote shell's command has no NUL.
	measureMeta = "\x00measure"
)

// A measurement's stream: the one that opened it sends a byte measurePing and
// gets it back, often; then measureUp, chunks each after a byte measureMore,
// and measureEnd, which is answered with the 8 bytes of their sum when all are
// there; then measureDown, upon which it gets the same.
const (
	measurePing = 'p'
	measureUp   = 'u'
	measureDown = 'd'
	measureMore = 'm'
	measureEnd  = 'e'
)

var errMeasure = errors.New("the other end does not speak as a measurement should")

// nextRound lets the next pairs measure; each node is in one of them at most.
func (s *shim) nextRound() {
	c := &s.checks
	if len(c.rounds) == 0 {
		c.found = append(c.found, preflight.Judge(c.pairs, s.memberName)...)
		s.endChecks()
		return
	}
	now := c.rounds[0]
	c.rounds = c.rounds[1:]
	c.round++
	c.open = map[[2]int]bool{}
	for _, p := range now {
		c.open[p] = true
	}
	for _, p := range now {
		if p[0] == 0 {
			s.measure(p[1])
			continue
		}
		s.sayChecks(p[0], preflightMsg{Measure: &preflightMeasure{With: p[1]}})
	}
	this := c.round
	s.after(roundLimit, func() {
		if c.done || c.round != this || s.ending {
			return
		}
		for p := range c.open {
			c.pairs = append(c.pairs, preflight.Pair{A: p[0], B: p[1], Err: "no result within " + roundLimit.String()})
		}
		s.nextRound()
	})
}

func (s *shim) gotPair(p preflight.Pair) {
	c := &s.checks
	key := [2]int{p.A, p.B}
	if !c.open[key] || c.done {
		return
	}
	delete(c.open, key)
	c.pairs = append(c.pairs, p)
	if len(c.open) == 0 && !s.ending {
		s.nextRound()
	}
}

// measure measures with another member and tells the primary.
func (s *shim) measure(with int) {
	if s.mesh == nil {
		return
	}
	p := preflight.Pair{A: int(s.a.GetNodeIndex()), B: with}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), pairLimit)
		defer cancel()
		st, err := s.mesh.Open(ctx, with, []byte(measureMeta))
		if err == nil {
			_ = st.SetDeadline(time.Now().Add(pairLimit))
			p.Latency, p.Rate, err = measureOver(st)
			_ = st.Close()
		}
		if err != nil {
			p.Err = reason(err)
		}
		s.post(func() {
			if s.primary() {
				s.gotPair(p)
				return
			}
			s.sayChecks(0, preflightMsg{Pair: &p})
		})
	})
}

// measureOver returns the median of the round trips and the slower way's bytes
// a second.
func measureOver(c net.Conn) (time.Duration, float64, error) {
	var b [1]byte
	trips := make([]time.Duration, 0, measurePings)
	for range measurePings {
		b[0] = measurePing
		start := time.Now()
		if _, err := c.Write(b[:]); err != nil {
			return 0, 0, err
		}
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return 0, 0, err
		}
		trips = append(trips, time.Since(start))
	}
	slices.Sort(trips)
	if _, err := c.Write([]byte{measureUp}); err != nil {
		return 0, 0, err
	}
	up, err := fill(c)
	if err != nil {
		return 0, 0, err
	}
	if _, err := c.Write([]byte{measureDown}); err != nil {
		return 0, 0, err
	}
	down, err := drink(c)
	if err != nil {
		return 0, 0, err
	}
	return trips[len(trips)/2], min(up, down), nil
}

// serveMeasure is the other end.
func serveMeasure(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(pairLimit))
	var b [1]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return
		}
		var err error
		switch b[0] {
		case measurePing:
			_, err = c.Write(b[:])
		case measureUp:
			_, err = drink(c)
		case measureDown:
			_, err = fill(c)
		default:
			return
		}
		if err != nil {
			return
		}
	}
}

// fill sends for measureTime and returns the bytes a second that have arrived.
func fill(c net.Conn) (float64, error) {
	chunk := make([]byte, 1+measureChunk)
	chunk[0] = measureMore
	start := time.Now()
	var sent uint64
	for sent < measureBytes && time.Since(start) < measureTime {
		if _, err := c.Write(chunk); err != nil {
			return 0, err
		}
		sent += measureChunk
	}
	if _, err := c.Write([]byte{measureEnd}); err != nil {
		return 0, err
	}
	var sum [8]byte
	if _, err := io.ReadFull(c, sum[:]); err != nil {
		return 0, err
	}
	if n := binary.BigEndian.Uint64(sum[:]); n != sent {
		return 0, fmt.Errorf("%w: %d bytes arrived of %d", errMeasure, n, sent)
	}
	return float64(sent) / max(time.Since(start).Seconds(), 1e-9), nil
}

// drink takes what fill sends.
func drink(c net.Conn) (float64, error) {
	chunk := make([]byte, measureChunk)
	var n uint64
	start := time.Now()
	for {
		if _, err := io.ReadFull(c, chunk[:1]); err != nil {
			return 0, err
		}
		switch chunk[0] {
		case measureMore:
			if _, err := io.ReadFull(c, chunk); err != nil {
				return 0, err
			}
			if n += measureChunk; n > measureBytes {
				return 0, errMeasure
			}
		case measureEnd:
			rate := float64(n) / max(time.Since(start).Seconds(), 1e-9)
			_, err := c.Write(binary.BigEndian.AppendUint64(nil, n))
			return rate, err
		default:
			return 0, errMeasure
		}
	}
}
