package pmi

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of one request to spawn.
const (
	MaxSpawn     = 1024    // processes
	maxSpawnText = 1 << 20 // bytes, all lines together
	maxSpawnLine = 128 << 10
)

// SpawnRequest is what MPI_Comm_spawn or MPI_Comm_spawn_multiple asks for: one
// world of new ranks, numbered in the order of its programs.
type SpawnRequest struct {
	Programs []SpawnProgram // one at least
	// Preput are pairs that the new world's dictionary has from the start: how
	// its ranks find those that spawned them.
	Preput map[string]string
}

// SpawnProgram is one program of a request.
type SpawnProgram struct {
	Ranks int    // 1 to MaxSpawn
	Path  string // as given: a name, or a path
	Args  []string
	Info  map[string]string // the MPI_Info's pairs, such as wdir and path
}

// Size is how many ranks the request asks for.
func (r SpawnRequest) Size() int {
	n := 0
	for _, p := range r.Programs {
		n += p.Ranks
	}
	return n
}

// Apps tells every new rank's number of its program, for Config.Apps.
func (r SpawnRequest) Apps() []int {
	var apps []int
	for i, p := range r.Programs {
		for range p.Ranks {
			apps = append(apps, i)
		}
	}
	return apps
}

// errEndless is a request that has no end: nothing after it can be understood.
var errEndless = errors.New("a request of several lines does not end")

// readSpawn reads a request whose first line, mcmd=spawn, is read: lines
// name=value up to endcmd, and the like again for each further program, until
// spawnssofar is totspawns. refused says why it can't be met, though it has been
// read to its end; err says that it can't be read.
//
// A value runs to the end of its line. MPICH tells preput pairs with the first
// program only, Intel MPI with every one.
func readSpawn(r *bufio.Reader) (req SpawnRequest, refused, err error) {
	req.Preput = map[string]string{}
	left := maxSpawnText
	no := func(format string, args ...any) {
		if refused == nil {
			refused = fmt.Errorf(format, args...)
		}
	}
	for {
		fields := map[string]string{}
		for {
			line, long, err := readLong(r)
			if err != nil {
				return req, nil, fmt.Errorf("%w: %w", errEndless, err)
			}
			if line == "endcmd" && !long {
				break
			}
			if left -= len(line) + 1; long || left < 0 {
				no("it is longer than %d bytes, or a line of it than %d", maxSpawnText, maxSpawnLine)
				continue
			}
			name, value, ok := strings.Cut(line, "=")
			switch _, twice := fields[name]; {
			case name == "mcmd" && value == "spawn":
				// the first line of a further program
			case !ok || name == "":
				no("no name=value at %q", clip(line))
			case twice:
				no("%s= stands twice", clip(name))
			default:
				fields[name] = value
			}
		}
		p, err := programOf(fields, req.Preput)
		if err != nil {
			no("%w", err)
		}
		if refused == nil {
			req.Programs = append(req.Programs, p)
			if n := req.Size(); n > MaxSpawn {
				no("it asks for %d processes at least, at most %d can be spawned at once", n, MaxSpawn)
			}
		}
		so, total := field(fields, "spawnssofar", 1), field(fields, "totspawns", 1)
		if so < 1 || total < so {
			no("program %d of %d", so, total)
		}
		if so >= total {
			return req, refused, nil
		}
	}
}

// readLong reads a line of up to maxSpawnLine bytes, without its end. Of a longer
// one it keeps the beginning, and says so.
func readLong(r *bufio.Reader) (line string, long bool, err error) {
	var b []byte
	for {
		part, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return "", false, err
		}
		if len(b)+len(part) > maxSpawnLine {
			long = true
		} else {
			b = append(b, part...)
		}
		if err == nil {
			return strings.TrimSuffix(string(b), "\n"), long, nil
		}
	}
}

// field reads a number; absent or not one: otherwise.
func field(fields map[string]string, name string, otherwise int) int {
	n, err := strconv.Atoi(strings.TrimSpace(fields[name]))
	if err != nil {
		return otherwise
	}
	return n
}

// programOf puts one program's fields together, and its preput pairs to preput.
func programOf(fields, preput map[string]string) (SpawnProgram, error) {
	p := SpawnProgram{Path: fields["execname"], Ranks: field(fields, "nprocs", -1), Info: map[string]string{}}
	switch {
	case p.Path == "":
		return p, errors.New("it names no program")
	case p.Ranks < 1 || p.Ranks > MaxSpawn:
		return p, fmt.Errorf("nprocs=%s: 1 to %d processes can be spawned at once", clip(fields["nprocs"]), MaxSpawn)
	}
	// No list is longer than there are fields.
	count := func(name string) (int, error) {
		n := field(fields, name, 0)
		if n < 0 || n > len(fields) {
			return 0, fmt.Errorf("%s=%s, but there are not so many", name, clip(fields[name]))
		}
		return n, nil
	}
	n, err := count("argcnt")
	if err != nil {
		return p, err
	}
	for i := range n {
		arg, ok := fields["arg"+strconv.Itoa(i+1)]
		if !ok {
			return p, fmt.Errorf("arg%d of %d is missing", i+1, n)
		}
		p.Args = append(p.Args, arg)
	}
	for _, list := range []struct {
		name string
		into map[string]string
	}{{"info", p.Info}, {"preput", preput}} {
		if n, err = count(list.name + "_num"); err != nil {
			return p, err
		}
		for i := range n {
			at := strconv.Itoa(i)
			key, value := fields[list.name+"_key_"+at], fields[list.name+"_val_"+at]
			switch {
			case key == "":
				return p, fmt.Errorf("%s_key_%d of %d is missing", list.name, i, n)
			case list.name == "preput" && (len(key) > MaxKey || len(value) > MaxValue || strings.HasPrefix(key, "PMI_")):
				return p, fmt.Errorf("the key %s can't be put: it is reserved, or it or its value is too long", clip(key))
			}
			list.into[key] = value
		}
	}
	return p, nil
}

// spawn answers a request whose first line is read.
func (c *client) spawn(r *bufio.Reader) error {
	s := c.s
	s.mu.Lock()
	started, waits := c.phase != Start, c.inBarrier
	c.phase, c.last = c.now(), s.c.Now()
	s.mu.Unlock()
	req, refused, err := readSpawn(r)
	switch {
	case err != nil:
		return errWrite // it has died in the middle of it
	case waits:
		return errBarrier
	case !started:
		return errors.New("it has not said init")
	case s.c.Spawn == nil:
		refused = errors.New("spawning is not offered here")
	case refused == nil:
		refused = s.c.Spawn(c.rank, req)
	case s.c.Refused != nil:
		s.c.Refused(c.rank, refused)
	}
	if refused != nil {
		return c.say("cmd=spawn_result rc=-1 msg=%s", word(refused))
	}
	return c.say("cmd=spawn_result rc=0")
}

// word makes one word of an error: a client takes no more.
func word(err error) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == '=' {
			return '_'
		}
		return r
	}, clip(err.Error()))
}
