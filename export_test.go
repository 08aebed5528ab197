package cairn

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// Exported for the tests of package cairn_test.
var (
	ExecText    = execText
	MapSQLite   = mapSQLite
	PrefixRange = prefixRange
	PrefixEnd   = prefixEnd
	ParseOffset = parseOffset
	Queries     = queries
	Migrations  = migrations
	EncodeNames = Collection.encodeNames
	DecodeNames = decodeNames
	InodeOf     = inodeOf
)

const (
	WALLimit        = walLimit
	CheckpointBytes = checkpointBytes
	BatchBytes      = batchBytes
	QueueBytes      = queueBytes
	BulkMin         = bulkMin
	SegmentSize     = segmentSize
	DropGroups      = dropGroups
	GroupBits       = groupBits
	PageSize        = pageSize
	ApplicationID   = applicationID
)

// OnWriter runs f as a request of its own.
func (s *Store) OnWriter(ctx context.Context, f func(conn *sqlite.Conn) error) error {
	return s.write(ctx, 0, f)
}

// CompleteAtOnce is CompleteBlocks without its other way, in two commits.
func (p *Piece) CompleteAtOnce(ctx context.Context, blocks ...Block) (Hash, error) {
	w, err := p.newWrite(blocks)
	if err != nil {
		return Hash{}, err
	}
	return p.completeWith(ctx, w)
}

// BlobID returns the id of a blob.
func (s *Store) BlobID(ctx context.Context, hash Hash) (int64, error) {
	blob, err := s.findBlob(ctx, hash)
	return blob.id, err
}

// A Throttle lets bytes pass at a rate.
type Throttle struct{ t throttle }

// NewThrottle returns one of so many bytes a second.
func NewThrottle(rate int64) *Throttle { return &Throttle{throttle{rate: rate}} }

// Wait returns when n bytes may pass.
func (t *Throttle) Wait(ctx context.Context, n int64) error { return t.t.wait(ctx, n) }

// NoteUse notes a use of a blob, as a reader does.
func (s *Store) NoteUse(id int64) { s.uses.read(id) }

// ExecScript runs statements on the writing connection.
func (s *Store) ExecScript(ctx context.Context, text string) error {
	return s.write(ctx, 0, func(conn *sqlite.Conn) error { return sqlitex.ExecuteScript(conn, text, nil) })
}

// Exec runs one statement on the writing connection.
func (s *Store) Exec(ctx context.Context, text string) error {
	return s.write(ctx, 0, func(conn *sqlite.Conn) error { return execText(conn, text) })
}

// BreakSync makes every further sync of the WAL fail.
func (s *Store) BreakSync() error { return s.writer.wal.close() }

// Queued returns how many requests wait for the writer.
func (s *Store) Queued() int { return len(s.writer.queue) }

// Swept waits until what a crash left has been removed.
func (s *Store) Swept() { <-s.swept }

// IdleReaders returns how many reading connections are not in use.
func (s *Store) IdleReaders() int {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	return len(s.pool.idle)
}

// Guarded returns how many hashes are protected.
func (s *Store) Guarded() int {
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	return len(s.guard.entries)
}

// QueryPlan returns SQLite's plan for one of the queries.
func (s *Store) QueryPlan(ctx context.Context, name string) (plan []string, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		stmt, _, err := conn.PrepareTransient("explain query plan " + queries[name])
		if err != nil {
			return err
		}
		defer stmt.Finalize()
		for {
			found, err := stmt.Step()
			if err != nil || !found {
				return err
			}
			plan = append(plan, stmt.GetText("detail"))
		}
	})
	return plan, err
}

// SchemaObjects returns the SQL of the database's schema.
func (s *Store) SchemaObjects(ctx context.Context) (objects map[string]string, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		objects, err = schemaObjects(conn)
		return err
	})
	return objects, err
}

// Count returns the number of a table's rows.
func (s *Store) Count(ctx context.Context, table string) (n int64, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		n, err = queryInt(conn, "select count(*) from "+table)
		return err
	})
	return n, err
}

// Observers returns how many loops observe.
func (s *Store) Observers() (n int) {
	s.observers.mu.Lock()
	defer s.observers.mu.Unlock()
	for _, set := range s.observers.byHash {
		n += len(set)
	}
	return n
}

// BreakBegin has every further batch fail to begin, or not any more.
func (s *Store) BreakBegin(broken bool) {
	if broken {
		err := errBroken
		s.writer.failed.Store(&err)
	} else {
		s.writer.failed.Store(nil)
	}
}

var errBroken = errors.New("broken")

// OutsideTransaction runs a statement on the writing connection between two
// transactions, where alone some pragmas have an effect.
func (s *Store) OutsideTransaction(ctx context.Context, text string) error {
	return s.write(ctx, 0, func(conn *sqlite.Conn) error {
		return errors.Join(execText(conn, "rollback"), execText(conn, text), execText(conn, "begin immediate"))
	})
}

// A Span is a range of bytes inside a group.
type Span = struct{ From, To int }

// AddSpans adds spans one after the other.
func AddSpans(add []Span) (list []Span) {
	var spans []span
	for _, s := range add {
		spans = addSpan(spans, span{s.From, s.To})
	}
	return exported(spans)
}

// ParseSpans parses the text of a fragment.
func ParseSpans(text string) ([]Span, error) {
	spans, err := parseSpans(text)
	return exported(spans), err
}

// FormatSpans returns the text of a fragment.
func FormatSpans(list []Span) string {
	spans := make([]span, len(list))
	for i, s := range list {
		spans[i] = span{s.From, s.To}
	}
	return formatSpans(spans)
}

// NewHashReader reads what AddHashSeq stores of hashes.
func NewHashReader(next func() (Hash, bool)) io.Reader { return &hashReader{next: next} }

func exported(spans []span) []Span {
	list := make([]Span, len(spans))
	for i, s := range spans {
		list[i] = Span{s.from, s.to}
	}
	return list
}

// Paths returns the files outside that have a blob's bytes.
func (s *Store) Paths(ctx context.Context, hash Hash) (paths []string, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		blob, err := findBlob(conn, hash)
		if err != nil {
			return err
		}
		files, err := readPaths(conn, blob.id)
		for _, f := range files {
			paths = append(paths, f.path)
		}
		return err
	})
	return paths, err
}

// OpenFiles returns how many files outside are open, and by how many they are
// being read.
func (s *Store) OpenFiles() (files, users int) {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	for e := s.files.order.Front(); e != nil; e = e.Next() {
		files++
		users += e.Value.(*openFile).users
	}
	return files, users
}

// StalePaths returns how many files outside are not as they are recorded.
func (s *Store) StalePaths(ctx context.Context) (n int, err error) {
	err = s.pool.read(ctx, func(conn *sqlite.Conn) error {
		stmt := prep(conn, "check_blobs")
		defer stmt.Reset()
		stmt.SetInt64(":after", 0)
		stmt.SetInt64(":limit", -1)
		for {
			found, err := stmt.Step()
			if err != nil || !found {
				return err
			}
			files, err := readPaths(conn, stmt.GetInt64("id"))
			if err != nil {
				return err
			}
			for _, f := range files {
				if f.unchanged() != nil {
					n++
				}
			}
		}
	})
	return n, err
}

// TidyFiles closes files outside that have not been used since it was called last.
func (s *Store) TidyFiles() { s.files.tidy() }

// OpenRegular is openRegular.
func OpenRegular(path string) error {
	f, _, err := openRegular(path)
	if err == nil {
		f.Close()
	}
	return err
}

// HoldNaming has everybody wait who names a file, until release is called.
func (s *Store) HoldNaming() (release func()) {
	s.naming <- struct{}{}
	return s.unlockNaming
}

// EachSegment is eachSegment.
func EachSegment(ctx context.Context, r io.Reader, f func(data []byte) error) error {
	return eachSegment(ctx, r, f)
}

// Hidden returns how many blobs there are whose rows are to go.
func (s *Store) Hidden(ctx context.Context) (int64, error) {
	return s.Count(ctx, `"blob" where "state" = 0`)
}

// Recheck is recheck.
func (s *Store) Recheck(ctx context.Context, hash Hash) (bao.Ranges, error) {
	return s.recheck(ctx, hash)
}

// CloneBy puts another function in the place of the system's call that clones a
// file, until restore is called.
func CloneBy(clone func(dst, src *os.File) error) (restore func()) {
	old := cloneFile
	cloneFile = clone
	return func() { cloneFile = old }
}
