package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"modernc.org/sqlite"

	"gangway/launcher/job"
)

// The files of a data directory. SQLite keeps two more beside each database
// while it is open, -wal and -shm; a backup of the directory needs them all.
const (
	dataFile  = "gangway.db"
	lockFile  = "gangway.lock"
	ownerFile = "gangway.owner"
)

// Options of Open.
type Options struct {
	// Version is the program's. It is kept with the data and named to versions
	// that are too old to read it.
	Version string
	// MaxBytes bounds the size of the database file, 0 not at all. A Commit
	// that needs more fails as on a full disk.
	MaxBytes int64
}

// SQLite is a Store in one SQLite database. A commit is on the disk, also after
// a loss of power, when Commit returns.
type SQLite struct {
	dir     string
	lock    *holder
	readers *sql.DB

	life   sync.RWMutex // held for reading by each call, for writing by Close
	closed bool

	write  sync.Mutex // guards what follows
	writer *sql.DB
	conn   *sql.Conn // the writer's only one
	stmts  statements
	mine   uint64 // epoch
}

// statements are those of the writer, prepared once.
type statements struct{ begin, put, drop, epoch, commit, rollback *sql.Stmt }

// Open opens the data in a directory, which it makes when it is not there, and
// brings data of an older version up to this one. It refuses a directory that
// others may read, one on a network file system, one that another launcher uses
// (ErrInUse), data of a newer version (ErrNewer) and damaged data (ErrDamaged).
func Open(dir string, o Options) (*SQLite, error) { return open(dir, o, migrations) }

func open(dir string, o Options, steps []string) (_ *SQLite, err error) {
	dir, err = prepareDir(dir)
	if err != nil {
		return nil, err
	}
	s := &SQLite{dir: dir}
	defer func() {
		if err != nil {
			_ = s.shut() // the first error says more
		}
	}()
	if s.lock, err = hold(dir); err != nil {
		return nil, err
	}
	if err := complete(filepath.Join(dir, dataFile)); err != nil {
		return nil, err
	}
	if err := prepareFile(filepath.Join(dir, dataFile)); err != nil {
		return nil, err
	}
	if err := s.openWriter(o, steps); err != nil {
		return nil, s.explain(err)
	}
	s.readers, err = connect(filepath.Join(dir, dataFile), 4, "busy_timeout(5000)", "query_only(1)", "cache_size(-16384)")
	if err != nil {
		return nil, s.explain(err)
	}
	return s, nil
}

// connect returns a pool of up to n connections to a file, each with the pragmas.
func connect(file string, n int, pragmas ...string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(file)}
	if !strings.HasPrefix(u.Path, "/") { // a drive
		u.Path = "/" + u.Path
	}
	u.RawQuery = url.Values{"_pragma": pragmas}.Encode()
	c, err := sqlite.NewConnector(u.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

func (s *SQLite) openWriter(o Options, steps []string) error {
	ctx := context.Background()
	var err error
	// The log is folded into the database every 16 MiB: a commit seldom pays
	// for it, and a start has little to read twice.
	s.writer, err = connect(filepath.Join(s.dir, dataFile), 1,
		"busy_timeout(5000)", "synchronous(FULL)", "wal_autocheckpoint(4096)", "journal_size_limit(67108864)", "cache_size(-32768)")
	if err != nil {
		return err
	}
	if s.conn, err = s.writer.Conn(ctx); err != nil {
		return err
	}
	if err := migrate(ctx, s.conn, s.dir, o.Version, steps); err != nil {
		return err
	}
	if o.MaxBytes > 0 {
		var size int64
		if err := s.conn.QueryRowContext(ctx, "PRAGMA page_size").Scan(&size); err != nil {
			return err
		}
		if _, err := s.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count=%d", max(1, o.MaxBytes/size))); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&s.stmts.begin, "BEGIN IMMEDIATE"},
		{&s.stmts.put, "INSERT INTO row (tab, key, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"},
		{&s.stmts.drop, "DELETE FROM row WHERE tab = ? AND key = ?"},
		{&s.stmts.epoch, "SELECT epoch FROM fence"},
		{&s.stmts.commit, "COMMIT"},
		{&s.stmts.rollback, "ROLLBACK"},
	} {
		if *p.to, err = s.conn.PrepareContext(ctx, p.text); err != nil {
			return err
		}
	}
	return nil
}

// enter begins a call; leave ends it.
func (s *SQLite) enter() (leave func(), err error) {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return nil, ErrClosed
	}
	return s.life.RUnlock, nil
}

// Begin implements Store.
func (s *SQLite) Begin(epoch uint64) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	s.write.Lock()
	defer s.write.Unlock()
	err = s.transact(func(newest uint64) error {
		if epoch <= newest {
			return stale(epoch, newest)
		}
		_, err := s.conn.ExecContext(context.Background(), "UPDATE fence SET epoch = ?", int64(epoch))
		return err
	})
	if err == nil {
		s.mine = epoch
	}
	return err
}

// Epoch returns the highest epoch that was begun. A launcher that ended before
// its first commit has left no other trace of its own.
func (s *SQLite) Epoch() (uint64, error) {
	leave, err := s.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	var newest int64
	if err := s.readers.QueryRow("SELECT epoch FROM fence").Scan(&newest); err != nil {
		return 0, s.explain(err)
	}
	return uint64(newest), nil
}

// Commit implements Store.
func (s *SQLite) Commit(rows []job.Row) error {
	for i, r := range rows {
		if err := CheckRow(r); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	s.write.Lock()
	defer s.write.Unlock()
	if len(rows) == 0 {
		return nil
	}
	return s.transact(func(newest uint64) error {
		if newest > s.mine {
			return stale(s.mine, newest)
		}
		for _, r := range rows {
			var err error
			if r.Prefix {
				err = s.dropUnder(r.Table, r.Key)
			} else if r.Value == nil {
				_, err = s.stmts.drop.Exec([]byte(r.Table), []byte(r.Key))
			} else {
				_, err = s.stmts.put.Exec([]byte(r.Table), []byte(r.Key), r.Value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// dropUnder deletes the rows of a table whose keys begin with prefix.
func (s *SQLite) dropUnder(table job.Table, prefix string) error {
	text, args := "DELETE FROM row WHERE tab = ? AND key >= ?", []any{[]byte(table), []byte(prefix)}
	if end := after(prefix); end != nil {
		text, args = text+" AND key < ?", append(args, end)
	}
	_, err := s.conn.ExecContext(context.Background(), text, args...)
	return err
}

// after is the least key greater than all that begin with prefix, nil if there
// is none.
func after(prefix string) []byte {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return b[:i+1]
		}
	}
	return nil
}

// transact runs do inside one transaction, with the data set's epoch as it is
// in that transaction.
func (s *SQLite) transact(do func(newest uint64) error) error {
	if _, err := s.stmts.begin.Exec(); err != nil {
		return s.explain(err)
	}
	var newest int64
	err := s.stmts.epoch.QueryRow().Scan(&newest)
	if err == nil {
		err = do(uint64(newest))
	}
	if err == nil {
		if _, err = s.stmts.commit.Exec(); err == nil {
			return nil
		}
	}
	// SQLite ends some failed transactions by itself; then this fails, and
	// there is nothing left to undo.
	_, _ = s.stmts.rollback.Exec()
	return s.explain(err)
}

// Load implements Store.
func (s *SQLite) Load(except ...job.Table) ([]job.Row, error) {
	text, args := "SELECT tab, key, value FROM row", []any{}
	if len(except) > 0 {
		text += " WHERE tab NOT IN (?" + strings.Repeat(", ?", len(except)-1) + ")"
		for _, t := range except {
			args = append(args, []byte(t))
		}
	}
	out, err := s.read(text, args...)
	slices.SortFunc(out, job.CompareRows)
	return out, err
}

// Get implements Store.
func (s *SQLite) Get(table job.Table, key string) ([]byte, error) {
	out, err := s.read("SELECT tab, key, value FROM row WHERE tab = ? AND key = ?", []byte(table), []byte(key))
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, notFound(table, key)
	}
	return out[0].Value, nil
}

// getChunk is how many keys one query asks for.
const getChunk = 500

// GetAll implements Store.
func (s *SQLite) GetAll(table job.Table, keys []string) (map[string][]byte, error) {
	out := make(map[string][]byte, len(keys))
	for part := range slices.Chunk(keys, getChunk) {
		args := []any{[]byte(table)}
		for _, k := range part {
			args = append(args, []byte(k))
		}
		rows, err := s.read("SELECT tab, key, value FROM row WHERE tab = ? AND key IN (?"+strings.Repeat(",?", len(part)-1)+")", args...)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			out[r.Key] = r.Value
		}
	}
	return out, nil
}

// Scan implements Store.
func (s *SQLite) Scan(table job.Table, from string, limit int) ([]job.Row, error) {
	if err := checkLimit(limit); err != nil {
		return nil, err
	}
	return s.read("SELECT tab, key, value FROM row WHERE tab = ? AND key >= ? ORDER BY key LIMIT ?", []byte(table), []byte(from), limit)
}

// read returns the rows that a query finds.
func (s *SQLite) read(text string, args ...any) ([]job.Row, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	found, err := s.readers.Query(text, args...)
	if err != nil {
		return nil, s.explain(err)
	}
	defer found.Close()
	var out []job.Row
	var table job.Table
	for found.Next() {
		var tab, key sql.RawBytes
		var value []byte
		if err := found.Scan(&tab, &key, &value); err != nil {
			return nil, s.explain(err)
		}
		if string(tab) != string(table) { // one string for all rows of a table
			table = job.Table(tab)
		}
		out = append(out, job.Row{Table: table, Key: string(key), Value: value})
	}
	if err := cmp.Or(found.Err(), found.Close()); err != nil {
		return nil, s.explain(err)
	}
	return out, nil
}

// Close implements Store. It waits for the calls under way.
func (s *SQLite) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	return s.explain(s.shut())
}

// shut closes what is open; the lock goes last.
func (s *SQLite) shut() error {
	var errs []error
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	// SQLite keeps a closed database open, its log in place, while one of its
	// statements is.
	for _, st := range []*sql.Stmt{s.stmts.begin, s.stmts.put, s.stmts.drop, s.stmts.epoch, s.stmts.commit, s.stmts.rollback} {
		if st != nil {
			errs = append(errs, st.Close())
		}
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.release())
	}
	return errors.Join(errs...)
}
