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
	// Begin opens an epoch, which every later Commit of this store carries. An
	// epoch that is not above the data set's own is refused with ErrStale. A
	// store that has not begun one carries epoch 0.
	Begin(epoch uint64) error
	// Load returns the rows of all tables but those left out, sorted by table
	// and key. The values are the caller's.
	Load(except ...job.Table) ([]job.Row, error)
	// Get returns the value of a row, or ErrNotFound. It is the caller's.
	Get(table job.Table, key string) ([]byte, error)
	// GetAll returns those rows of a table that are there, by key; it is for
	// many keys at once.
	GetAll(table job.Table, keys []string) (map[string][]byte, error)
	// Scan returns the first limit rows of a table whose keys are not below
	// from, sorted by key. limit is 1…MaxScan. To go on, scan again from the
	// last key with a zero byte after it.
	Scan(table job.Table, from string, limit int) ([]job.Row, error)
	// Commit applies rows in order, all or none: a row with a value replaces
	// what was there, one with a nil value deletes it if it is there, with
	// Prefix all rows whose keys begin so. It
	// returns once the rows are as durable as the engine can make them, and
	// keeps no reference to them. It is refused with ErrStale once the data
	// set has an epoch above this store's.
	Commit(rows []job.Row) error
	// Close frees the engine. Later calls return ErrClosed.
	Close() error
}

// MaxScan is the largest number of rows that Scan returns.
const MaxScan = 10_000

var (
	// ErrClosed reports the use of a closed store.
	ErrClosed = errors.New("the store is closed")
	// ErrStale reports that another launcher has taken the data set over.
	ErrStale = errors.New("another launcher has taken the data over: stop this one")
	// ErrNotFound reports that there is no row under the key.
	ErrNotFound = errors.New("there is no such row")
)

func stale(mine, newest uint64) error {
	return fmt.Errorf("epoch %d, the data has %d: %w", mine, newest, ErrStale)
}

func checkLimit(limit int) error {
	if limit < 1 || limit > MaxScan {
		return fmt.Errorf("a scan of %d rows: want 1 to %d", limit, MaxScan)
	}
	return nil
}

func notFound(table job.Table, key string) error {
	return fmt.Errorf("row %s/%s: %w", table, key, ErrNotFound)
}

// Memory is a Store for launchers that live no longer than their jobs.
type Memory struct {
	mu   sync.Mutex
	rows map[place][]byte // nil: closed
	mine uint64           // epoch; nobody else can have a newer one
}

type place struct {
	table job.Table
	key   string
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{rows: map[place][]byte{}} }

// Begin implements Store.
func (m *Memory) Begin(epoch uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		return ErrClosed
	}
	if epoch <= m.mine {
		return stale(epoch, m.mine)
	}
	m.mine = epoch
	return nil
}

// Load implements Store.
func (m *Memory) Load(except ...job.Table) ([]job.Row, error) {
	return m.read(func(p place) bool { return !slices.Contains(except, p.table) })
}

// Get implements Store.
func (m *Memory) Get(table job.Table, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		return nil, ErrClosed
	}
	v, ok := m.rows[place{table, key}]
	if !ok {
		return nil, notFound(table, key)
	}
	return bytes.Clone(v), nil
}

// GetAll implements Store.
func (m *Memory) GetAll(table job.Table, keys []string) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		return nil, ErrClosed
	}
	out := make(map[string][]byte, len(keys))
	for _, k := range keys {
		if v, ok := m.rows[place{table, k}]; ok {
			out[k] = bytes.Clone(v)
		}
	}
	return out, nil
}

// Scan implements Store.
func (m *Memory) Scan(table job.Table, from string, limit int) ([]job.Row, error) {
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	out, err := m.read(func(p place) bool { return p.table == table && p.key >= from })
	return out[:min(limit, len(out))], err
}

// read returns the rows whose places are wanted, sorted.
func (m *Memory) read(want func(place) bool) ([]job.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows == nil {
		return nil, ErrClosed
	}
	out := make([]job.Row, 0, len(m.rows))
	for p, v := range m.rows {
		if want(p) {
			out = append(out, job.Row{Table: p.table, Key: p.key, Value: bytes.Clone(v)})
		}
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
