package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// floor is the least that an exchange in the same tree costs: plain TCP, no
// proof of who is there, no signs of life, parts of one known size.
type floor struct {
	s        settings
	listener net.Listener
	up       []net.Conn   // by member
	down     [][]net.Conn // by member
	mu       sync.Mutex
}

func newFloor(s settings) (*floor, error) {
	if s.fanOut == 0 {
		s.fanOut = 32
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &floor{s: s, listener: l, up: make([]net.Conn, s.members), down: make([][]net.Conn, s.members)}, nil
}

func (f *floor) parent(i int) int { return (i - 1) / f.s.fanOut }

func (f *floor) join() error {
	errs := make(chan error, 2*f.s.members)
	var wg sync.WaitGroup
	for i := 1; i < f.s.members; i++ {
		wg.Go(func() {
			c, err := net.Dial("tcp", f.listener.Addr().String())
			if err == nil {
				f.up[i] = c
				_, err = c.Write(binary.BigEndian.AppendUint32(nil, uint32(i)))
			}
			errs <- err
		})
		wg.Go(func() {
			c, err := f.listener.Accept()
			var b [4]byte
			if err == nil {
				_, err = io.ReadFull(c, b[:])
			}
			if err == nil {
				p := f.parent(int(binary.BigEndian.Uint32(b[:])))
				f.mu.Lock()
				f.down[p] = append(f.down[p], c)
				f.mu.Unlock()
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// subtree counts the members from i downwards.
func (f *floor) subtree(i int) int {
	n := 1
	for c := i*f.s.fanOut + 1; c <= (i+1)*f.s.fanOut && c < f.s.members; c++ {
		n += f.subtree(c)
	}
	return n
}

func (f *floor) exchange(i int, part []byte) ([]byte, error) {
	whole := make([]byte, f.s.members*len(part))
	if i == 0 {
		n := copy(whole, part)
		for _, c := range f.down[0] { // of whoever: only the number counts here
			var h [4]byte
			if _, err := io.ReadFull(c, h[:]); err != nil {
				return nil, err
			}
			size := int(binary.BigEndian.Uint32(h[:]))
			if _, err := io.ReadFull(c, whole[n:n+size]); err != nil {
				return nil, err
			}
			n += size
		}
	} else {
		b := binary.BigEndian.AppendUint32(nil, uint32(f.subtree(i)*len(part)))
		b = append(b, part...)
		for _, c := range f.down[i] {
			var h [4]byte
			if _, err := io.ReadFull(c, h[:]); err != nil {
				return nil, err
			}
			n := len(b)
			b = append(b, make([]byte, binary.BigEndian.Uint32(h[:]))...)
			if _, err := io.ReadFull(c, b[n:]); err != nil {
				return nil, err
			}
		}
		if _, err := f.up[i].Write(b); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(f.up[i], whole); err != nil {
			return nil, err
		}
	}
	errs := make([]error, len(f.down[i]))
	var wg sync.WaitGroup
	for k, c := range f.down[i] {
		wg.Go(func() { _, errs[k] = c.Write(whole) })
	}
	wg.Wait()
	return whole, errors.Join(errs...)
}

func (f *floor) close() {
	_ = f.listener.Close()
	for i, c := range f.up {
		if c != nil {
			_ = c.Close()
		}
		for _, c := range f.down[i] {
			_ = c.Close()
		}
	}
}
