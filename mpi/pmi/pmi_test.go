package pmi

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseLine(t *testing.T) {
	for _, c := range []struct {
		line, cmd string
		fields    map[string]string
	}{
		{"cmd=init pmi_version=1 pmi_subversion=1", "init", map[string]string{"cmd": "init", "pmi_version": "1", "pmi_subversion": "1"}},
		{"cmd=barrier_in ", "barrier_in", map[string]string{"cmd": "barrier_in"}},
		{"cmd=put kvsname=k key=a value=b c=d ", "put", map[string]string{"cmd": "put", "kvsname": "k", "key": "a", "value": "b c=d"}},
		{"cmd=put kvsname=k key=a value=b key=c", "put", map[string]string{"cmd": "put", "kvsname": "k", "key": "a", "value": "b key=c"}},
		{"value=b c key=a kvsname=k cmd=put", "put", map[string]string{"cmd": "put", "kvsname": "k", "key": "a", "value": "b c"}},
		{"cmd=abort exitcode=7 message=bad thing: x=1", "abort", map[string]string{"cmd": "abort", "exitcode": "7", "message": "bad thing: x=1"}},
		{"mcmd=spawn", "mcmd spawn", map[string]string{"mcmd": "spawn"}},
		{"cmd=put value= key=a", "put", map[string]string{"cmd": "put", "value": "", "key": "a"}},
	} {
		r, err := parseLine(c.line)
		if err != nil || r.cmd != c.cmd {
			t.Errorf("%q: %q, %v", c.line, r.cmd, err)
		}
		if d := cmp.Diff(c.fields, r.fields); d != "" {
			t.Errorf("%q: %s", c.line, d)
		}
	}
	for _, line := range []string{"", "init", "cmd", "=x", "cmd=a cmd=b", "key=x", "cmd=", "a b=c"} {
		if r, err := parseLine(line); err == nil {
			t.Errorf("%q became %v", line, r)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, s := range []string{"cmd=init pmi_version=1 pmi_subversion=1", "cmd=put kvsname=k key=a value=b c=d", "mcmd=spawn", "=", "cmd=\xff value="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseLine(line)
		if err != nil {
			return
		}
		n := 0
		for k, v := range r.fields {
			n += len(k) + len(v)
		}
		if r.cmd == "" || n > len(line) {
			t.Errorf("%q became %v", line, r)
		}
	})
}

// cards are keys and values as MPICH's ranks put them.
func cards(n int) []pair {
	var out []pair
	for r := range n {
		u := fmt.Sprintf("%016X", uint64(r+1)*0x9E3779B97F4A7C15)
		out = append(out, pair{fmt.Sprintf("-allgather-shm-1-%d", r), "20" + u + "2000637577CC2B3200F8D74F00000000004F030088" + u + "21120102C3BE07E05B4417B3F9FFFFEF00000000CF1917B75138539E3E4BD7E037370113230082" + u[:4] +
			"21060002C0000202CF1917B751389763344BD7E037370013230082" + u[4:8] + "4288C3BE07E05B441733A7D377CC2B32004C3E5077CCAB33004F230088" + u[2:4] + "7B0080030000C0"},
			pair{fmt.Sprintf("bc-%d", r), "mpi#0200" + u[:4] + "C00002020000000000000000$"})
	}
	return out
}

func encoded(pairs []pair) []byte {
	var e encoder
	for _, p := range pairs {
		e.add(p.key, p.value)
	}
	return e.part()
}

func bytesOf(of *rapid.Generator[byte], most int) *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(of, 0, most), func(b []byte) string { return string(b) })
}

// Whatever is put comes out again, in its order, whatever the nodes' number.
func TestParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := func(most int) *rapid.Generator[string] {
			return rapid.OneOf(bytesOf(rapid.Byte(), most), bytesOf(rapid.SampledFrom([]byte("0123456789ABCDEF")), most),
				rapid.SampledFrom([]string{"", "A", "AB12", "AB12CD", "AB13CD", "ab12cd", "0123456789", "0123x56789"}))
		}
		var all []byte
		var want, got []pair
		for range rapid.IntRange(0, 4).Draw(t, "nodes") {
			var part []pair
			for range rapid.IntRange(0, 6).Draw(t, "pairs") {
				part = append(part, pair{text(MaxKey).Draw(t, "key"), text(MaxValue).Draw(t, "value")})
			}
			all = append(all, encoded(part)...)
			want = append(want, part...)
		}
		if err := readParts(all, func(k, v string) error { got = append(got, pair{k, v}); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %q, put were %q", got, want)
		}
	})
}

func FuzzReadParts(f *testing.F) {
	f.Add([]byte{})
	f.Add(encoded(cards(3)))
	f.Add(append(encoded([]pair{{"a", "b"}, {"", ""}, {"a", "c"}}), encoded(cards(1))...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []pair
		err := readParts(b, func(k, v string) error {
			if len(k) > MaxKey || len(v) > MaxValue {
				t.Errorf("%d and %d bytes", len(k), len(v))
			}
			got = append(got, pair{k, v})
			return nil
		})
		if err != nil {
			return
		}
		var again []pair
		if err := readParts(encoded(got), func(k, v string) error { again = append(again, pair{k, v}); return nil }); err != nil || !slices.Equal(again, got) {
			t.Errorf("%q became %q: %v", got, again, err)
		}
	})
}

// BenchmarkParts reports how much is exchanged of what 8 ranks put, and reads the
// parts of 1,024 such nodes.
func BenchmarkParts(b *testing.B) {
	pairs := cards(8)
	plain := 0
	for _, p := range pairs {
		plain += len(p.key) + len(p.value)
	}
	part := encoded(pairs)
	var all []byte
	for range 1024 {
		all = append(all, part...)
	}
	for b.Loop() {
		dict := map[string]string{}
		if err := readParts(all, func(k, v string) error { dict[k] = v; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(part))/float64(plain), "size")
}

func TestMapping(t *testing.T) {
	for _, c := range []struct {
		nodes []int
		want  string
	}{
		{nil, ""},
		{[]int{0}, "(vector,(0,1,1))"},
		{[]int{0, 0, 1, 1}, "(vector,(0,2,2))"},
		{[]int{0, 1, 0, 1}, "(vector,(0,2,1),(0,2,1))"},
		{[]int{0, 0, 1}, "(vector,(0,1,2),(1,1,1))"},
		{[]int{1, 0}, "(vector,(1,1,1),(0,1,1))"},
	} {
		if got := Mapping(c.nodes); got != c.want {
			t.Errorf("%v: %s, want %s", c.nodes, got, c.want)
		}
	}
	long := make([]int, 4096)
	for i := range long {
		long[i] = i * 7 % 64
	}
	if got := Mapping(long); got != "" {
		t.Errorf("a mapping of %d bytes", len(got))
	}
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 60).Draw(t, "nodes")
		var back []int
		s := Mapping(nodes)
		for _, part := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(s, "(vector,"), ")"), "),") {
			var first, n, ranks int
			if _, err := fmt.Sscanf(strings.TrimSuffix(part, ")")+")", "(%d,%d,%d)", &first, &n, &ranks); err != nil {
				t.Fatalf("%s: %q: %v", s, part, err)
			}
			for i := range n {
				for range ranks {
					back = append(back, first+i)
				}
			}
		}
		if d := cmp.Diff(nodes, back); d != "" {
			t.Fatalf("%s: %s", s, d)
		}
	})
}

// rank is a client's end.
type rank struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	end  chan error
}

func serve(t *testing.T, s *Server, local int) *rank {
	t.Helper()
	ours, theirs := net.Pipe()
	r := &rank{t: t, conn: ours, r: bufio.NewReader(ours), end: make(chan error, 1)}
	go func() { r.end <- s.Serve(local, theirs) }()
	t.Cleanup(func() { _ = ours.Close() })
	return r
}

func (r *rank) tell(line string) {
	r.t.Helper()
	if _, err := fmt.Fprintln(r.conn, line); err != nil {
		r.t.Errorf("%q: %v", line, err)
	}
}

func (r *rank) hear() string {
	r.t.Helper()
	line, err := r.r.ReadString('\n')
	if err != nil {
		r.t.Errorf("no answer: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (r *rank) ask(line, want string) {
	r.t.Helper()
	r.tell(line)
	if got := r.hear(); got != want {
		r.t.Errorf("%q was answered with %q, want %q", line, got, want)
	}
}

func (r *rank) init() {
	r.t.Helper()
	r.ask("cmd=init pmi_version=1 pmi_subversion=2", "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1")
}

func server(t *testing.T, c Config) *Server {
	t.Helper()
	if c.KVS == "" {
		c.KVS = "kvs"
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Wait)
	return s
}

func TestAnswers(t *testing.T) {
	s := server(t, Config{Size: 1, Ranks: []int{0}, Mapping: Mapping([]int{0}), Hosts: []Host{{"n1", []int{0}}}})
	r := serve(t, s, 0)
	r.init()
	for _, c := range [][2]string{
		{"cmd=get_maxes", "cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024"},
		{"cmd=get_universe_size", "cmd=universe_size rc=0 size=1"},
		{"cmd=get_appnum", "cmd=appnum rc=0 appnum=0"},
		{"cmd=get_my_kvsname", "cmd=my_kvsname rc=0 kvsname=kvs"},
		{"cmd=get kvsname=kvs key=PMI_process_mapping", "cmd=get_result rc=0 msg=success value=(vector,(0,1,1))"},
		{"cmd=get kvsname=kvs key=PMI_dead_processes", "cmd=get_result rc=-1 msg=key_PMI_dead_processes_not_found"},
		{"cmd=put kvsname=kvs key=PMI_x value=1", "cmd=put_result rc=-1 msg=reserved_key"},
		{"cmd=put kvsname=other key=x value=1", "cmd=put_result rc=-1 msg=no_such_kvsname"},
		{"cmd=put kvsname=kvs key=" + strings.Repeat("k", 65) + " value=1", "cmd=put_result rc=-1 msg=key_length"},
		{"cmd=put kvsname=kvs key=k value=" + strings.Repeat("v", 1025), "cmd=put_result rc=-1 msg=value_length"},
		{"cmd=put kvsname=kvs key=a value=one two", "cmd=put_result rc=0"},
		{"cmd=put kvsname=kvs key=a value=later", "cmd=put_result rc=0"},
		{"cmd=barrier_in", "cmd=barrier_out rc=0"},
		{"cmd=get kvsname=kvs key=a", "cmd=get_result rc=0 msg=success value=one two"},
		{"cmd=get kvsname=other key=a", "cmd=get_result rc=-1 msg=key_a_not_found"},
		{"cmd=publish_name service=x port=y", "cmd=publish_result rc=-1 msg=published_names_are_not_offered_here"},
		{"cmd=lookup_name service=x", "cmd=lookup_result rc=-1 msg=published_names_are_not_offered_here"},
		{"cmd=unpublish_name service=x", "cmd=unpublish_result rc=-1 msg=published_names_are_not_offered_here"},
		{"mcmd=spawn\nnprocs=2\nexecname=x\nendcmd", "cmd=spawn_result rc=-1 msg=spawning_is_not_offered_here"},
		{"cmd=get_ranks2hosts", "put_ranks2hosts 9 1"},
	} {
		r.ask(c[0], c[1])
	}
	if got := r.hear(); got != "2 n1 0, " {
		t.Errorf("hosts %q", got)
	}
	r.ask("cmd=finalize", "cmd=finalize_ack rc=0")
	_ = r.conn.Close()
	if err := <-r.end; err != nil {
		t.Error(err)
	}
}

func TestWrong(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{[]string{"cmd=barrier_in"}, `rank 5 said "cmd=barrier_in" over PMI: it has not said init`},
		{[]string{"hello world"}, `rank 5 said "hello world" over PMI: no name=value at "hello world"`},
		{[]string{"INIT", "cmd=dance"}, `rank 5 said "cmd=dance" over PMI: no such request is known`},
		{[]string{"INIT", "cmd=barrier_in", "cmd=barrier_in"}, `rank 5 said "cmd=barrier_in" over PMI: it is in a barrier`},
		{[]string{"cmd=" + strings.Repeat("x", 2*maxLine)}, "the line is longer than 8192 bytes"},
		{[]string{"INIT"}, "rank 5: " + ErrUnfinished.Error()},
		{[]string{"INIT", "mcmd=spawn\nnprocs=1"}, "rank 5: " + ErrUnfinished.Error()},
	} {
		s := server(t, Config{Size: 7, Ranks: []int{3, 5}})
		r := serve(t, s, 1)
		for _, l := range c.lines {
			if l == "INIT" {
				r.init()
				continue
			}
			// The server may hang up in the middle of a line.
			_, _ = fmt.Fprintln(r.conn, l)
		}
		_ = r.conn.Close()
		var re *RankError
		if err := <-r.end; !errors.As(err, &re) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: %v", c.lines, err)
		}
	}
	s := server(t, Config{Size: 1, Ranks: []int{0}})
	r := serve(t, s, 0)
	r.ask("cmd=init pmi_version=2 pmi_subversion=0", "cmd=response_to_init rc=-1 pmi_version=1 pmi_subversion=1")
	_ = r.conn.Close()
	if err := <-r.end; err != nil { // it never began
		t.Error(err)
	}
	for _, c := range []Config{{}, {KVS: "a b", Size: 1, Ranks: []int{0}}, {KVS: "a", Size: 1}, {KVS: "a", Size: 2, Ranks: []int{1, 1}},
		{KVS: "a", Size: 2, Ranks: []int{2}}, {KVS: "a", Size: 1, Ranks: []int{0}, Mapping: strings.Repeat("m", 1024)}} {
		if _, err := New(c); err == nil {
			t.Errorf("%v made a server", c)
		}
	}
}

// Two nodes: what is put on one is there on the other after the barrier; of two
// values of a key the first node's counts, on both.
func TestExchange(t *testing.T) {
	parts, all := make(chan []byte, 2), [2]chan []byte{make(chan []byte, 1), make(chan []byte, 1)}
	var nodes [2]*Server
	for i := range nodes {
		nodes[i] = server(t, Config{Size: 2, Ranks: []int{i}, Exchange: func(part []byte) ([]byte, error) {
			if i == 0 {
				whole := append(part[:len(part):len(part)], <-parts...)
				all[1] <- whole
				return whole, nil
			}
			parts <- part
			return <-all[1], nil
		}})
	}
	a, b := serve(t, nodes[0], 0), serve(t, nodes[1], 0)
	for i, r := range []*rank{a, b} {
		r.init()
		r.ask("cmd=put kvsname=kvs key=same value=of"+strconv.Itoa(i), "cmd=put_result rc=0")
		r.ask("cmd=put kvsname=kvs key=own"+strconv.Itoa(i)+" value=x", "cmd=put_result rc=0")
		r.ask("cmd=get kvsname=kvs key=own"+strconv.Itoa(1-i), "cmd=get_result rc=-1 msg=key_own"+strconv.Itoa(1-i)+"_not_found")
	}
	a.tell("cmd=barrier_in")
	b.tell("cmd=barrier_in")
	for _, r := range []*rank{a, b} {
		if got := r.hear(); got != "cmd=barrier_out rc=0" {
			t.Error(got)
		}
		for _, k := range []string{"own0 x", "own1 x", "same of0"} {
			key, value, _ := strings.Cut(k, " ")
			r.ask("cmd=get kvsname=kvs key="+key, "cmd=get_result rc=0 msg=success value="+value)
		}
	}
}

func TestExchangeFails(t *testing.T) {
	for _, c := range []struct {
		all []byte
		err error
	}{{nil, errors.New("n2 was lost")}, {[]byte{200}, nil}} {
		told := make(chan error, 1)
		s := server(t, Config{Size: 1, Ranks: []int{0}, Failed: func(err error) { told <- err },
			Exchange: func([]byte) ([]byte, error) { return c.all, c.err }})
		r := serve(t, s, 0)
		r.init()
		r.tell("cmd=barrier_in")
		if c.err == nil { // seen when it is read
			if got := r.hear(); got != "cmd=barrier_out rc=0" {
				t.Error(got)
			}
			r.ask("cmd=get kvsname=kvs key=k", "cmd=get_result rc=-1 msg=key_k_not_found")
		}
		if err := <-told; err == nil || c.err != nil && !errors.Is(err, c.err) {
			t.Error(err)
		}
		_ = r.conn.Close()
		if err := <-r.end; !errors.Is(err, ErrUnfinished) {
			t.Error(err)
		}
	}
}

func TestAbort(t *testing.T) {
	type call struct {
		Rank, Code int
		Message    string
	}
	var got []call
	s := server(t, Config{Size: 3, Ranks: []int{1, 2}, Abort: func(rank, code int, message string) { got = append(got, call{rank, code, message}) }})
	for i, line := range []string{"cmd=abort exitcode=7 message=out of luck", "cmd=abort exitcode=x"} {
		r := serve(t, s, i)
		r.init()
		r.tell(line)
		r.tell("cmd=get_maxes") // unanswered: a rank that is let go on runs past its MPI_Abort
		_ = r.conn.Close()
		if err := <-r.end; !errors.Is(err, ErrAborted) {
			t.Error(err)
		}
	}
	if d := cmp.Diff([]call{{1, 7, "out of luck"}, {2, 1, ""}}, got); d != "" {
		t.Error(d)
	}
}

func TestPhase(t *testing.T) {
	now := time.Unix(0, 0)
	s := server(t, Config{Size: 1, Ranks: []int{0}, Now: func() time.Time { return now }})
	r := serve(t, s, 0)
	is := func(want Phase) {
		t.Helper()
		if p := s.Phase(0); p != want {
			t.Errorf("%s, want %s", p, want)
		}
	}
	is(Start)
	r.init()
	now = now.Add(silent)
	is(Init) // it may be waiting for the hardware
	r.ask("cmd=barrier_in", "cmd=barrier_out rc=0")
	is(Init)
	r.ask("cmd=get kvsname=kvs key=a", "cmd=get_result rc=-1 msg=key_a_not_found")
	now = now.Add(silent)
	is(Running)
	r.ask("cmd=put kvsname=kvs key=a value=1", "cmd=put_result rc=0")
	is(Init) // a long pause in MPI_Init
	r.ask("cmd=barrier_in", "cmd=barrier_out rc=0")
	now = now.Add(silent)
	r.ask("cmd=barrier_in", "cmd=barrier_out rc=0")
	is(Finalize)
	now = now.Add(longSilent)
	is(Running)
	r.ask("cmd=finalize", "cmd=finalize_ack rc=0")
	is(Done)
	_ = r.conn.Close()
	<-r.end
}

// A rank that puts without end is told no.
func TestBounded(t *testing.T) {
	s := server(t, Config{Size: 1, Ranks: []int{0}})
	value, n := strings.Repeat("v", MaxValue), 0
	for s.keep(s.clients[0], "kvs", strconv.Itoa(n), value) == "" {
		if n++; n*MaxValue > 2*maxPending {
			t.Fatal("no bound")
		}
	}
	if n*MaxValue < maxPending/2 {
		t.Errorf("only %d values", n)
	}
}
