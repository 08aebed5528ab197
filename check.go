package cairn

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// A Problem is something in the database that must not be.
type Problem struct {
	// Kind is "sqlite" (the file's structure), "schema", "usage" (the
	// accounting), "row" or "outboard" (there without a blob, missing, or of
	// a wrong length), "presence" (which groups a partial blob is said to
	// have), "blob" (its own fields), "piece", "owner" (who has what), "tag",
	// "path" (files outside).
	Kind string
	// Hash is the blob concerned, zero if it has none or it is unknown.
	Hash   Hash
	Detail string
}

// String returns the problem as one line.
func (p Problem) String() string {
	if p.Hash == (Hash{}) {
		return p.Kind + ": " + p.Detail
	}
	return fmt.Sprintf("%s: blob %v: %s", p.Kind, p.Hash, p.Detail)
}

// CheckOptions configure a check. Nil is the default.
type CheckOptions struct {
	// Limit is the most problems to report. Default (and if ≤ 0): all.
	Limit int
}

// Check looks at the structure of the database, not at the content of blobs:
// SQLite's own integrity check, the schema, the accounting, and that every
// blob has exactly the rows it must have. It yields each problem, and an error
// where it cannot go on. It reads one snapshot, which holds up the emptying of
// the write-ahead log until it is done, and keeps one reading connection: the
// loop's body must not wait for another ([Options.Readers]) and, in memory,
// must not write. It waits until what a crash left has been removed.
func (s *Store) Check(ctx context.Context, opts *CheckOptions) iter.Seq2[Problem, error] {
	return func(yield func(Problem, error) bool) {
		select {
		case <-s.swept:
		case <-ctx.Done():
			yield(Problem{}, fmt.Errorf("check: %w", context.Cause(ctx)))
			return
		}
		left := 0
		if opts != nil {
			left = opts.Limit
		}
		r, err := s.pool.take(ctx)
		if err != nil {
			yield(Problem{}, fmt.Errorf("check: %w", err))
			return
		}
		defer s.pool.put(r)
		r.SetInterrupt(ctx.Done())
		defer r.SetInterrupt(nil)
		c := checker{ctx: ctx, conn: r.Conn, yield: func(p Problem) bool {
			left--
			return yield(p, nil) && left != 0
		}}
		if err := c.run(); err != nil && err != errStopped {
			yield(Problem{}, fmt.Errorf("check: %w", mapSQLite(err)))
		}
	}
}

// errStopped ends a check whose caller wants no more.
var errStopped = fmt.Errorf("stopped")

type checker struct {
	ctx   context.Context
	conn  *sqlite.Conn
	yield func(Problem) bool
}

func (c *checker) report(kind string, hash Hash, format string, args ...any) error {
	if !c.yield(Problem{Kind: kind, Hash: hash, Detail: fmt.Sprintf(format, args...)}) {
		return errStopped
	}
	return nil
}

func (c *checker) run() error {
	for _, step := range []func() error{c.sqlite, c.schema, c.usage, c.claims, c.blobs} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// sqlite runs SQLite's integrity check, which names at most 100 problems.
func (c *checker) sqlite() error {
	return sqlitex.ExecuteTransient(c.conn, "pragma integrity_check", &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error {
			if text := stmt.ColumnText(0); text != "ok" {
				return c.report("sqlite", Hash{}, "%s", text)
			}
			return nil
		},
	})
}

// schema compares the database's schema with the one the migrations make.
func (c *checker) schema() error {
	want, err := migratedSchema()
	if err != nil {
		return err
	}
	got, err := schemaObjects(c.conn)
	if err != nil {
		return err
	}
	for name, sql := range want {
		if got[name] != sql {
			if err := c.report("schema", Hash{}, "%s is missing or changed", name); err != nil {
				return err
			}
		}
	}
	for name := range got {
		if _, known := want[name]; !known {
			if err := c.report("schema", Hash{}, "%s is not Cairn's", name); err != nil {
				return err
			}
		}
	}
	return nil
}

// schemaObjects returns the SQL of each table, index, trigger and view, by
// type and name.
func schemaObjects(conn *sqlite.Conn) (map[string]string, error) {
	objects := make(map[string]string)
	stmt := prep(conn, "schema_objects")
	defer stmt.Reset()
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return objects, err
		}
		objects[stmt.GetText("type")+" "+stmt.GetText("name")] = stmt.GetText("sql")
	}
}

// migratedSchema returns the schema that the migrations make of nothing.
var migratedSchema = sync.OnceValues(func() (map[string]string, error) {
	conn, err := newMemory().openWriter(context.Background())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return schemaObjects(conn)
})

func (c *checker) usage() error {
	kept, err := c.totals("usage_get")
	if err != nil {
		return err
	}
	counted, err := c.totals("check_usage")
	if err == nil && kept != counted {
		err = c.report("usage", Hash{}, "kept %+v, counted %+v", kept, counted)
	}
	return err
}

// totals are the columns of the usage table.
type totals struct{ Blobs, Partial, Bytes, StoredBytes, Pieces, Used, Tags, External int64 }

func (c *checker) totals(query string) (t totals, err error) {
	stmt := prep(c.conn, query)
	defer stmt.Reset()
	if _, err := stmt.Step(); err != nil {
		return t, err
	}
	return totals{
		Blobs:       stmt.GetInt64("blobs"),
		Partial:     stmt.GetInt64("partial"),
		Bytes:       stmt.GetInt64("bytes"),
		StoredBytes: stmt.GetInt64("stored_bytes"),
		Pieces:      stmt.GetInt64("pieces"),
		Used:        stmt.GetInt64("used"),
		Tags:        stmt.GetInt64("tags"),
		External:    stmt.GetInt64("external"),
	}, nil
}

// claims checks keys, owners and pins against each other, and against the blobs.
func (c *checker) claims() error {
	for _, query := range []string{"check_keys", "check_owners", "check_pins", "check_tags"} {
		if err := c.problems(query); err != nil {
			return err
		}
	}
	return nil
}

// problems reports each row of a query.
func (c *checker) problems(query string) error {
	stmt := prep(c.conn, query)
	defer stmt.Reset()
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return err
		}
		var hash Hash
		if !stmt.IsNull("hash") {
			stmt.GetBytes("hash", hash[:])
		}
		if err := c.report(stmt.GetText("kind"), hash, "%s", stmt.GetText("detail")); err != nil {
			return err
		}
	}
}
