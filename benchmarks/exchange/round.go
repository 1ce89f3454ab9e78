package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"gangway/mpi/pmi"
)

// round is one start-up of all ranks: servers, and a client for each rank.
type round struct {
	s         settings
	servers   []*pmi.Server
	clients   []*client
	put       int          // bytes of keys and values of all ranks
	exchanged atomic.Int64 // bytes of all parts
}

// client speaks PMI-1 for a rank.
type client struct {
	rank  int
	conn  net.Conn
	r     *bufio.Reader
	value string
}

// card is a value as MPICH 4's ranks put it, of 290 bytes: an address of UCX in
// hexadecimal digits, random where those of one machine's ranks differ.
func card() string {
	digits := func(n int) string { return fmt.Sprintf("%016X", rand.Uint64())[:n] }
	return "20" + digits(16) + "2000637577CC2B3200F8D74F00000000004F030088" + digits(16) +
		"21120102C3BE07E05B4417B3F9FFFFEF00000000CF1917B75138539E3E4BD7E037370113230082" + digits(4) +
		"21060002C0000202CF1917B751389763344BD7E037370013230082" + digits(4) +
		"4288C3BE07E05B441733A7D377CC2B32004C3E5077CCAB33004F230088" + digits(2) + "7B0080030000C0"
}

func key(rank int) string { return fmt.Sprintf("-allgather-shm-1-%d", rank) }

// newRound brings all clients to where MPI_Init puts their addresses.
func newRound(s settings, g group) (*round, error) {
	r := &round{s: s}
	nodeOf := make([]int, s.members*s.ranks)
	for i := range nodeOf {
		nodeOf[i] = i / s.ranks
	}
	for m := range s.members {
		c := pmi.Config{Size: len(nodeOf), Mapping: pmi.Mapping(nodeOf), KVS: "kvs",
			Exchange: func(part []byte) ([]byte, error) {
				r.exchanged.Add(int64(len(part)))
				return g.exchange(m, part)
			},
			Failed: func(err error) { fail(err) }}
		for i := range s.ranks {
			c.Ranks = append(c.Ranks, m*s.ranks+i)
		}
		server, err := pmi.New(c)
		if err != nil {
			return nil, err
		}
		r.servers = append(r.servers, server)
		for i, rank := range c.Ranks {
			ours, theirs := net.Pipe()
			go func() { _ = server.Serve(i, ours) }()
			c := &client{rank: rank, conn: theirs, r: bufio.NewReader(theirs), value: card()}
			r.put += len(key(rank)) + len(c.value)
			r.clients = append(r.clients, c)
		}
	}
	return r, r.all(func(c *client) error {
		for _, q := range []string{"init pmi_version=1 pmi_subversion=1", "get_maxes", "get_universe_size", "get_appnum", "get_my_kvsname", "get kvsname=kvs key=PMI_process_mapping"} {
			if _, err := c.ask(q); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *round) all(f func(*client) error) error {
	errs := make([]error, len(r.clients))
	var wg sync.WaitGroup
	for i, c := range r.clients {
		wg.Go(func() { errs[i] = f(c) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ask sends a request and returns the answer's line.
func (c *client) ask(q string) (string, error) {
	if _, err := fmt.Fprintf(c.conn, "cmd=%s\n", q); err != nil {
		return "", fmt.Errorf("rank %d: %w", c.rank, err)
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("rank %d: %w", c.rank, err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

// putAll is what is measured: every rank puts its address and leaves the barrier
// behind which it may get all others'.
func (r *round) putAll() error {
	return r.all(func(c *client) error {
		if a, err := c.ask("put kvsname=kvs key=" + key(c.rank) + " value=" + c.value); err != nil || !strings.Contains(a, "rc=0") {
			return fmt.Errorf("rank %d: put: %q %w", c.rank, a, err)
		}
		if a, err := c.ask("barrier_in"); err != nil || !strings.HasPrefix(a, "cmd=barrier_out") {
			return fmt.Errorf("rank %d: barrier: %q %w", c.rank, a, err)
		}
		return nil
	})
}

// check lets a rank of the first, of a middle and of the last node get every
// address, and ends all. It returns the KiB put and exchanged.
func (r *round) check() (put, exchanged float64, err error) {
	for _, i := range []int{0, len(r.clients) / 2, len(r.clients) - 1} {
		c := r.clients[i]
		for _, other := range r.clients {
			a, err := c.ask("get kvsname=kvs key=" + key(other.rank))
			if err != nil {
				return 0, 0, err
			}
			if !strings.HasSuffix(a, "value="+other.value) {
				return 0, 0, fmt.Errorf("rank %d got %q of rank %d, put was %q", c.rank, a, other.rank, other.value)
			}
		}
	}
	err = r.all(func(c *client) error {
		_, err := c.ask("finalize")
		_ = c.conn.Close()
		return err
	})
	for _, s := range r.servers {
		s.Wait()
	}
	return float64(r.put) / 1024, float64(r.exchanged.Load()) / 1024, err
}
