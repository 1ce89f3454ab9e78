package pmi

import (
	"errors"
	"fmt"
	"strings"
)

var (
	errWrite   = errors.New("the rank does not take its answer")
	errBarrier = errors.New("it is in a barrier")
)

// say writes one answer.
func (c *client) say(format string, args ...any) error {
	c.wm.Lock()
	defer c.wm.Unlock()
	if _, err := fmt.Fprintf(c.w, format+"\n", args...); err != nil {
		return errWrite
	}
	return nil
}

// answer does what one request asks for.
func (c *client) answer(r request) error {
	s := c.s
	s.mu.Lock()
	waits, started := c.inBarrier, c.phase != Start
	if r.cmd != "barrier_in" { // it looks how long the silence was
		c.phase, c.last = c.now(), s.c.Now()
	}
	s.mu.Unlock()
	switch {
	case waits && r.cmd != "abort":
		return errBarrier
	case !started && r.cmd != "init" && r.cmd != "abort":
		return errors.New("it has not said init")
	}
	switch r.cmd {
	case "init":
		if r.fields["pmi_version"] != "1" {
			return c.say("cmd=response_to_init rc=-1 pmi_version=1 pmi_subversion=1")
		}
		c.enter(Init)
		s.begin()
		return c.say("cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1")
	case "get_maxes":
		return c.say("cmd=maxes rc=0 kvsname_max=%d keylen_max=%d vallen_max=%d", MaxKVS, MaxKey, MaxValue)
	case "get_universe_size":
		return c.say("cmd=universe_size rc=0 size=%d", s.c.Universe)
	case "get_appnum":
		app := 0
		if s.c.Apps != nil {
			app = s.c.Apps[c.local]
		}
		return c.say("cmd=appnum rc=0 appnum=%d", app)
	case "get_my_kvsname":
		return c.say("cmd=my_kvsname rc=0 kvsname=%s", s.c.KVS)
	case "put":
		return c.put(r)
	case "get":
		return c.get(r)
	case "barrier_in":
		return c.barrier()
	case "get_ranks2hosts":
		return c.ranksToHosts()
	case "publish_name", "unpublish_name", "lookup_name":
		return c.named(r)
	case "abort":
		code, err := r.number("exitcode")
		if err != nil {
			code = 1
		}
		if s.c.Abort != nil {
			message := r.fields["message"]
			if message == "" {
				message = r.fields["error_msg"]
			}
			s.c.Abort(c.rank, code, message)
		}
		return ErrAborted
	case "finalize":
		c.enter(Done)
		return c.say("cmd=finalize_ack rc=0")
	}
	return fmt.Errorf("no such request is known")
}

// begin tells of the first init.
func (s *Server) begin() {
	s.mu.Lock()
	first := !s.began
	s.began = true
	s.mu.Unlock()
	if first && s.c.Began != nil {
		s.c.Began()
	}
}

func (c *client) enter(p Phase) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.phase = p
}

// put keeps a pair until the next barrier. The first of several values of a key
// counts, on this node and, in the order of the nodes, between them: as under
// Hydra, which does not tell the second either.
func (c *client) put(r request) error {
	key, value := r.fields["key"], r.fields["value"]
	if why := c.s.keep(c, r.fields["kvsname"], key, value); why != "" {
		return c.say("cmd=put_result rc=-1 msg=%s", why)
	}
	return c.say("cmd=put_result rc=0")
}

func (s *Server) keep(c *client, kvs, key, value string) (why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case kvs != "" && kvs != s.c.KVS:
		return "no_such_kvsname"
	case key == "" || len(key) > MaxKey:
		return "key_length"
	case len(value) > MaxValue:
		return "value_length"
	case strings.HasPrefix(key, "PMI_"):
		return "reserved_key"
	case s.pending.plain+len(key)+len(value) > maxPending || s.dictSize+s.pending.plain > maxDict:
		return "no_more_room"
	}
	c.use()
	if _, have := s.fresh[key]; have {
		return ""
	}
	s.fresh[key] = value
	s.pending.add(key, value)
	return ""
}

// get answers from what the last barrier made known, and from what this node's
// ranks have put since.
func (c *client) get(r request) error {
	key := r.fields["key"]
	s := c.s
	s.mu.Lock()
	s.read()
	value, ok := s.dict[key]
	if !ok {
		value, ok = s.fresh[key]
	}
	if key == "PMI_process_mapping" {
		value, ok = s.c.Mapping, s.c.Mapping != ""
	} else {
		c.use()
	}
	if kvs := r.fields["kvsname"]; kvs != "" && kvs != s.c.KVS {
		ok = false
	}
	s.mu.Unlock()
	if !ok {
		return c.say("cmd=get_result rc=-1 msg=key_%s_not_found", strings.ReplaceAll(clip(key), " ", "_"))
	}
	return c.say("cmd=get_result rc=0 msg=success value=%s", value)
}

// use notes that the rank exchanges pairs, which is done in MPI_Init only.
func (c *client) use() {
	c.phase = Init
}

// barrier lets the rank wait. The last one of this node starts the exchange.
func (c *client) barrier() error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.now() == Running {
		c.phase = Finalize
	}
	c.inBarrier, c.last = true, s.c.Now()
	s.in++
	if s.in < len(s.clients) {
		return nil
	}
	part := s.pending.part()
	s.pending, s.fresh = encoder{}, map[string]string{}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.exchange(part)
	}()
	return nil
}

// exchange makes the nodes' pairs known and lets this node's ranks go on.
func (s *Server) exchange(part []byte) {
	all, err := part, error(nil)
	if s.c.Exchange != nil {
		all, err = s.c.Exchange(part)
	}
	s.mu.Lock()
	if err == nil && len(all) > 0 {
		s.unread = append(s.unread, all)
	}
	if err != nil {
		s.mu.Unlock()
		if s.c.Failed != nil {
			s.c.Failed(fmt.Errorf("the exchange of the MPI's addresses failed: %w", err))
		}
		return
	}
	s.in = 0
	for _, c := range s.clients {
		c.inBarrier, c.last = false, s.c.Now()
		c.barriers++
	}
	s.mu.Unlock()
	for _, c := range s.clients {
		_ = c.say("cmd=barrier_out rc=0") // one that is gone is told of by its reader
	}
}

// read makes what the last barriers have brought known, at the first question: a
// node whose ranks ask nothing, or another node first, does not wait for it. s.mu
// is held.
func (s *Server) read() {
	for _, all := range s.unread {
		err := readParts(all, func(key, value string) error {
			if _, have := s.dict[key]; have {
				return nil
			}
			if s.dictSize += len(key) + len(value); s.dictSize > maxDict {
				return fmt.Errorf("more than %d bytes", maxDict)
			}
			s.dict[key] = value
			return nil
		})
		if err != nil && s.c.Failed != nil {
			go s.c.Failed(fmt.Errorf("the exchange of the MPI's addresses failed: %w", err))
		}
	}
	s.unread = nil
}

// ranksToHosts answers Intel MPI's question of before 2019: the only answer that
// is no cmd=.
func (c *client) ranksToHosts() error {
	if len(c.s.c.Hosts) == 0 {
		return c.say("put_ranks2hosts 0 0")
	}
	var b strings.Builder
	for _, h := range c.s.c.Hosts {
		fmt.Fprintf(&b, "%d %s ", len(h.Name), h.Name)
		for _, r := range h.Ranks {
			fmt.Fprintf(&b, "%d,", r)
		}
		b.WriteByte(' ')
	}
	return c.say("put_ranks2hosts %d %d\n%s", b.Len()+1, len(c.s.c.Hosts), b.String())
}
