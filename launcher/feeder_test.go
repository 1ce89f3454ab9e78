package launcher

import (
	"io"
	"strings"
	"sync"
	"testing"

	"gangway/nodeagent/wire"
)

// posted is a sender that keeps what each part was sent.
type posted struct {
	mu   sync.Mutex
	more *sync.Cond
	data map[string]string // by id
	eof  map[string]bool
}

func newPosted() *posted {
	p := &posted{data: map[string]string{}, eof: map[string]bool{}}
	p.more = sync.NewCond(&p.mu)
	return p
}

func (p *posted) Send(_ string, m *wire.ToShim) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, in := m.GetId(), m.GetStdin()
	if skip := len(p.data[id]) - int(in.GetOffset()); skip >= 0 && skip <= len(in.GetData()) {
		p.data[id] += string(in.GetData()[skip:])
	}
	p.eof[id] = p.eof[id] || in.GetEof()
	p.more.Broadcast()
}

// until waits for a part to have all of want, or the end.
func (p *posted) until(t *testing.T, id, want string, eof bool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.data[id]) < len(want) || eof && !p.eof[id] {
		p.more.Wait()
	}
	if p.data[id] != want || p.eof[id] != eof {
		t.Fatalf("%s got %q, end %v; want %q, %v", id, p.data[id], p.eof[id], want, eof)
	}
}

// beginning is a reader that tells when its first Read begins.
type beginning struct {
	io.Reader
	begun chan struct{}
	once  sync.Once
}

func (b *beginning) Read(p []byte) (int, error) {
	b.once.Do(func() { close(b.begun) })
	return b.Reader.Read(p)
}

func TestFeederMoves(t *testing.T) {
	t.Run("nothing was asked for", func(t *testing.T) {
		p := newPosted()
		f := newFeeder(strings.NewReader("input"), "n1", "a", p)
		defer f.stop()
		f.move("n2", "b")
		f.credit("a", stdinWindow) // late
		if f.used() {
			t.Error("it was used")
		}
		f.credit("b", stdinWindow)
		p.until(t, "b", "input", true)
		if !f.used() {
			t.Error("it was not used")
		}
	})
	t.Run("a read was under way", func(t *testing.T) {
		p := newPosted()
		r, w := io.Pipe()
		begun := make(chan struct{})
		f := newFeeder(&beginning{Reader: r, begun: begun}, "n1", "a", p)
		defer f.stop()
		f.credit("a", stdinWindow)
		<-begun
		f.move("n2", "b")
		_, _ = io.WriteString(w, "typed later") // returns once it was read
		if f.used() {
			t.Error("it was used")
		}
		f.credit("b", stdinWindow)
		_ = w.Close()
		p.until(t, "b", "typed later", true)
		if p.data["a"] != "" {
			t.Errorf("the first attempt got %q", p.data["a"])
		}
	})
	t.Run("an empty input can be read twice", func(t *testing.T) {
		p := newPosted()
		f := newFeeder(strings.NewReader(""), "n1", "a", p)
		defer f.stop()
		f.credit("a", stdinWindow)
		p.until(t, "a", "", true)
		f.move("n2", "b")
		f.credit("b", stdinWindow)
		p.until(t, "b", "", true)
		if f.used() {
			t.Error("it was used")
		}
	})
	t.Run("used", func(t *testing.T) {
		p := newPosted()
		f := newFeeder(strings.NewReader("input"), "n1", "a", p)
		f.credit("a", 3)
		p.until(t, "a", "inp", false)
		if !f.used() {
			t.Error("it was not used")
		}
		f.move("n2", "b")
		f.credit("b", stdinWindow)
		f.again("n2")
		if p.data["b"] != "" || p.eof["b"] {
			t.Errorf("the second attempt got %q, end %v", p.data["b"], p.eof["b"])
		}
	})
}
