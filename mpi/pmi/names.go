package pmi

import (
	"errors"
	"fmt"
	"sync"
)

// Names keeps what MPI_Publish_name tells MPI_Lookup_name. Its methods may block,
// and are called from any goroutine.
type Names interface {
	// Publish fails for a name that is published.
	Publish(name, port string) error
	// Unpublish and Lookup fail for one that isn't.
	Unpublish(name string) error
	Lookup(name string) (port string, err error)
}

// Limits of a NameTable.
const (
	maxNames    = 4096
	maxNameText = 4096 // bytes of a name, and of a port
)

// Errors of a NameTable.
var (
	ErrPublished    = errors.New("the name is published already")
	ErrNotPublished = errors.New("no such name is published")
)

// NameTable is Names in memory. The zero value is empty.
type NameTable struct {
	mu    sync.Mutex
	ports map[string]string
}

// Publish implements Names.
func (t *NameTable) Publish(name, port string) error {
	if name == "" || len(name) > maxNameText || len(port) > maxNameText {
		return fmt.Errorf("a name and a port have up to %d bytes", maxNameText)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, have := t.ports[name]; have {
		return ErrPublished
	}
	if len(t.ports) >= maxNames {
		return fmt.Errorf("%d names are published, there is no more room", maxNames)
	}
	if t.ports == nil {
		t.ports = map[string]string{}
	}
	t.ports[name] = port
	return nil
}

// Unpublish implements Names.
func (t *NameTable) Unpublish(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, have := t.ports[name]; !have {
		return ErrNotPublished
	}
	delete(t.ports, name)
	return nil
}

// Lookup implements Names.
func (t *NameTable) Lookup(name string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	port, have := t.ports[name]
	if !have {
		return "", ErrNotPublished
	}
	return port, nil
}

// named answers publish_name, unpublish_name and lookup_name.
func (c *client) named(r request) error {
	kind, names := r.cmd[:len(r.cmd)-len("_name")], c.s.c.Names
	name, port, err := r.fields["service"], r.fields["port"], errors.New("published names are not offered here")
	if names != nil {
		switch kind {
		case "publish":
			err = names.Publish(name, port)
		case "unpublish":
			err = names.Unpublish(name)
		default:
			port, err = names.Lookup(name)
		}
	}
	switch {
	case err != nil:
		return c.say("cmd=%s_result rc=-1 msg=%s", kind, word(err))
	case kind == "lookup":
		return c.say("cmd=lookup_result rc=0 port=%s", port)
	}
	return c.say("cmd=%s_result rc=0", kind)
}
