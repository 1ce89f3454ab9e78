// Package store keeps rows. What is committed is the truth that a launcher
// starts from; launcher/state says what the rows mean. Engines differ only in
// where rows live: storetest.Run holds all of them to the same behaviour.
package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"gangway/launcher/job"
)

// Store keeps rows under their table and key. It is safe for concurrent use.
type Store interface {
	// Load returns every row, sorted by table and key. The values are the
	// caller's.
	Load() ([]job.Row, error)
	// Commit applies rows in order, all or none: a row with a value replaces
	// what was there, one with a nil value deletes it if it is there, with
	// Prefix all rows whose keys begin so. It
	// returns once the rows are as durable as the engine can make them, and
	// keeps no reference to them.
	Commit(rows []job.Row) error
	// Close frees the engine. Later calls return ErrClosed.
	Close() error
}

// ErrClosed reports the use of a closed store.
var ErrClosed = errors.New("the store is closed")

// Memory is a Store for launchers that live no longer than their jobs.
type Memory struct {
	mu   sync.Mutex
	rows map[place][]byte // nil: closed
}

type place struct {
	table job.Table
	key   string
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{rows: map[place][]byte{}} }

// Load implements Store.
func (m *Memory) Load() ([]job.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		return nil, ErrClosed
	}
	out := make([]job.Row, 0, len(m.rows))
	for p, v := range m.rows {
		out = append(out, job.Row{Table: p.table, Key: p.key, Value: bytes.Clone(v)})
	}
	slices.SortFunc(out, job.CompareRows)
	return out, nil
}

// Commit implements Store.
func (m *Memory) Commit(rows []job.Row) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		return ErrClosed
	}
	for i, r := range rows {
		if err := CheckRow(r); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	for _, r := range rows {
		if r.Prefix {
			for p := range m.rows {
				if p.table == r.Table && strings.HasPrefix(p.key, r.Key) {
					delete(m.rows, p)
				}
			}
		} else if r.Value == nil {
			delete(m.rows, place{r.Table, r.Key})
		} else {
			m.rows[place{r.Table, r.Key}] = bytes.Clone(r.Value)
		}
	}
	return nil
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		return ErrClosed
	}
	m.rows = nil
	return nil
}

// CheckRow refuses a row that no engine takes: without table or key, or with a
// value that is empty but not nil.
func CheckRow(r job.Row) error {
	switch {
	case r.Table == "":
		return fmt.Errorf("row %q names no table", r.Key)
	case r.Key == "":
		return fmt.Errorf("a row of table %s has no key", r.Table)
	case r.Value != nil && len(r.Value) == 0:
		return fmt.Errorf("row %s/%s has an empty value: use nil to delete it", r.Table, r.Key)
	case r.Value != nil && r.Prefix:
		return fmt.Errorf("row %s/%s is a prefix and has a value", r.Table, r.Key)
	}
	return nil
}
