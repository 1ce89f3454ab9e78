package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var (
	// ErrNewer reports data that a newer version has written.
	ErrNewer = errors.New("the data is of a newer version")
	// ErrDamaged reports data that can't be read.
	ErrDamaged = errors.New("the data is damaged")
)

// applicationID marks the file as gangway's ("GANG") in SQLite's header.
const applicationID = 0x47414e47

// migrations bring the data from each version to the next; the data's version
// is the number of those done. One that was released is never changed.
//
// The table writer stays as it is for ever: versions that can't read the rest
// tell from it which version can.
var migrations = []string{
	`CREATE TABLE writer (version TEXT NOT NULL);
	INSERT INTO writer VALUES ('');
	CREATE TABLE fence (epoch INTEGER NOT NULL);
	INSERT INTO fence VALUES (0);
	CREATE TABLE row (tab BLOB NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (tab, key)) WITHOUT ROWID`,
	// Blocks of format 2 come in, which versions before can't read.
	`UPDATE writer SET version = version`,
}

// migrate brings the data up to the last of the steps, each in a transaction of
// its own, and leaves the version of the program in it.
func migrate(ctx context.Context, c *sql.Conn, dir, version string, steps []string) error {
	var id, have int
	if err := c.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	file := filepath.Join(dir, dataFile)
	if id == 0 && have == 0 {
		var things int
		if err := c.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&things); err != nil {
			return err
		}
		if things > 0 {
			id = -1
		}
	}
	switch {
	case id != applicationID && (id != 0 || have != 0):
		return fmt.Errorf("%s is a database of another program: name another directory", file)
	case have > len(steps):
		var wrote string
		if err := c.QueryRowContext(ctx, "SELECT version FROM writer").Scan(&wrote); err != nil {
			return err
		}
		return fmt.Errorf("%s was written by gangway %s (data version %d, this one knows %d): use that version or a newer one: %w",
			file, wrote, have, len(steps), ErrNewer)
	}
	var mode string
	if err := c.QueryRowContext(ctx, "PRAGMA journal_mode=WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("%s can't have a write-ahead log here (journal mode %s): name a directory on a local disk", file, mode)
	}
	for n := have; n < len(steps); n++ {
		text := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT", steps[n], applicationID, n+1)
		if _, err := c.ExecContext(ctx, text); err != nil {
			_, _ = c.ExecContext(ctx, "ROLLBACK") // fails if SQLite has done so
			return fmt.Errorf("bringing %s from data version %d to %d: %w", file, n, n+1, err)
		}
	}
	_, err := c.ExecContext(ctx, "UPDATE writer SET version = ? WHERE version <> ?", version, version)
	return err
}

// code is SQLite's primary result code of an error, 0 if it is of another kind.
func code(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code() & 0xff
}

// explain says where an error of SQLite happened and what to do.
func (s *SQLite) explain(err error) error {
	if err == nil {
		return nil
	}
	file := filepath.Join(s.dir, dataFile)
	switch code(err) {
	case 0: // not SQLite's
		return err
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%s: %w (%w): restore the directory from a backup", file, ErrDamaged, err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%s: the disk is full, nothing was written (%w): make room", file, err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("%s: another program keeps it locked (%w): end that program", file, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("%s can't be opened for writing (%w): see who owns it and whether its file system is read-only", file, err)
	case sqlite3.SQLITE_IOERR:
		return fmt.Errorf("%s can't be read or written (%w): see whether its disk is full, failing or a network file system", file, err)
	}
	return fmt.Errorf("%s: %w", file, err)
}
