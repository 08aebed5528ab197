package cairn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// What protects a blob is counted in its row, in the transaction that changes it
// (see the triggers of the schema), so a collection has little to find out: that
// the sequences which protect others can be read, and which blobs nothing
// protects. It looks for these in a snapshot, and looks at each of them again in
// the transaction that removes it, where nothing can come in between.

// expireTags are deleted in one transaction at most.
const expireTags = 1024

// promptSequence is the size up to which a sequence is read in the snapshot that has
// found it.
const promptSequence = 1 << 20

// GCOptions configure a garbage collection. Nil is the default.
type GCOptions struct {
	// DryRun has nothing deleted, only reported.
	DryRun bool
	// Budget is about how long looking for blobs and sweeping them may take; the next collection goes on
	// where it has ended. Default (and if ≤ 0): as long as it takes.
	Budget time.Duration
	// Protect, if not nil, is called once, before anything is swept. What it
	// hands to add, which must not be called later or by several goroutines at once,
	// is protected, as by a [TempTag], until the collection ends. An
	// error of it ends the collection, and nothing is swept.
	Protect func(ctx context.Context, add func(HashAndFormat)) error
}

// GCTotal is how many blobs, and how many bytes they had in the database.
type GCTotal struct{ Blobs, Bytes int64 }

// A GCReport tells what a garbage collection has done, or would have.
type GCReport struct {
	Marked     int64 // blobs that stay
	Swept      int64 // blobs that do not
	SweptBytes int64 // what they had in the database
	// Unprotected and Partial are what was swept, by reason: complete blobs that
	// nothing protects, and partial ones.
	Unprotected, Partial GCTotal
	ExpiredTags          int64 // tags that were deleted
	DryRun               bool
	Done                 bool // false if the budget was used up before the end
}

// GC deletes the blobs that nothing protects: no [Tag] and no [TempTag], also not
// through a sequence, no open reader, no [Pin], no piece and no owner. Complete
// and partial ones are treated alike. Tags that have expired protect nothing, and are
// deleted first. What has been added, completed or read since it began stays, and what
// comes to be protected while it runs does: who protects something before its last
// protection ends, or before [GCOptions.Protect] is called, cannot lose it.
//
// It asks [GCOptions.Protect], and reads all sequences that protect others. One that
// is damaged, or of a length that none has, ends it before anything is deleted
// ([ErrCorrupt], [ErrMismatch]); of one that is absent or partial, what is there
// counts, and what was there. Then it sweeps in small transactions, between which others write; when it returns nil,
// all of them are durable. A crash leaves some blobs swept, and others not.
//
// One collection runs at a time; a second one waits, and so must not be begun by
// Protect. Memory does not grow with the number of blobs; with Protect, it does with
// the number of those that are let go while it runs. Other errors: those of ctx and
// Protect, [ErrReadOnly], [ErrClosed], [ErrFull]. The report tells what was done before
// an error.
func (s *Store) GC(ctx context.Context, opts *GCOptions) (GCReport, error) {
	if opts == nil {
		opts = &GCOptions{}
	}
	c := collector{s: s, ctx: ctx, GCOptions: opts, report: GCReport{DryRun: opts.DryRun}}
	if err := c.run(); err != nil {
		return c.report, fmt.Errorf("gc: %w", err)
	}
	return c.report, nil
}

// A collector is one garbage collection.
type collector struct {
	*GCOptions
	s      *Store
	ctx    context.Context
	began  int64 // of the clock of uses
	now    int64 // the same moment, for expiries
	report GCReport
	roots  []*TempTag // of Protect
}

func (c *collector) run() error {
	if c.s.writer == nil {
		return ErrReadOnly
	}
	if err := c.s.pool.open(); err != nil {
		return err
	}
	select {
	case c.s.collecting <- struct{}{}:
		defer func() { <-c.s.collecting }()
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
	defer func() {
		for _, t := range c.roots {
			t.Release()
		}
	}()
	c.now = time.Now().UnixNano()
	// The first of two commits has the holds forgotten that have been let go, and
	// the second what only these have kept from being so.
	for range 2 {
		if err := c.settle(); err != nil {
			return err
		}
	}
	c.began = c.s.uses.now()
	if c.Protect != nil {
		// Who holds something now may have it protected from then on by what Protect
		// tells, and let it go: that is too late for this collection.
		c.s.guard.noteReleases()
		defer c.s.guard.forgetReleases()
		if err := c.protect(); err != nil {
			return err
		}
	}
	if err := c.readSequences(); err != nil {
		return err
	}
	if err := c.expire(); err != nil {
		return err
	}
	if c.DryRun {
		// What was held to be read is not held any more.
		if err := c.settle(); err != nil {
			return err
		}
		return c.count()
	}
	return c.sweepAll()
}

// expire deletes the tags whose time is over.
func (c *collector) expire() (err error) {
	err = c.s.pool.read(c.ctx, func(conn *sqlite.Conn) error {
		stmt := prep(conn, "tag_expired")
		stmt.SetInt64(":now", c.now)
		c.report.ExpiredTags, err = stepInt(stmt)
		return err
	})
	if err != nil || c.DryRun || c.report.ExpiredTags == 0 {
		return err
	}
	c.report.ExpiredTags = 0
	for {
		n := 0
		err := c.s.changeTags(c.ctx, func(conn *sqlite.Conn) error {
			stmt := prep(conn, "tag_expire")
			stmt.SetInt64(":now", c.now)
			stmt.SetInt64(":limit", expireTags)
			err := exec(stmt)
			n = conn.Changes()
			return err
		})
		if err != nil {
			return err
		}
		c.report.ExpiredTags += int64(n)
		if n < expireTags {
			return nil
		}
	}
}

// protect asks the caller what else is to stay.
func (c *collector) protect() error {
	var wrong error
	add := func(content HashAndFormat) {
		if content.Format > HashSeq {
			wrong = fmt.Errorf("%w: %v", ErrMismatch, content.Format)
		}
		c.roots = append(c.roots, c.s.TempTag(content))
	}
	if err := errors.Join(c.Protect(c.ctx, add), wrong); err != nil {
		return fmt.Errorf("protect: %w", err)
	}
	return nil
}

// settle has the database forget what is not held any more, or what another program
// has taken the tags from. Its commit has the snapshots that follow show what that
// program has done.
func (c *collector) settle() error {
	for all := false; !all; {
		err := c.s.remove(c.ctx, func(conn *sqlite.Conn) (err error) {
			all, err = c.s.shed(conn)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A markedSequence is a sequence that protects its children.
type markedSequence struct {
	id   int64
	hash Hash
	lost bool // some of it was damaged before its children were known
}

// readSequences makes sure that all sequences that protect others can be read, and
// that their children are known.
func (c *collector) readSequences() error {
	if err := c.indexUnindexed(); err != nil {
		return err
	}
	for after, n := int64(0), listPage; n == listPage; {
		var later []markedSequence
		err := c.s.pool.read(c.ctx, func(conn *sqlite.Conn) error {
			page, err := listSequences(conn, after)
			if n = len(page); n > 0 {
				after = page[n-1].id
			}
			for _, seq := range page {
				read := false
				if err == nil {
					read, err = c.readNow(conn, seq)
				}
				if !read {
					later = append(later, seq)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, seq := range later {
			if err := c.readLater(seq); err != nil {
				return err
			}
		}
	}
	return nil
}

func listSequences(conn *sqlite.Conn, after int64) (page []markedSequence, err error) {
	stmt := prep(conn, "sequence_list")
	defer stmt.Reset()
	stmt.SetInt64(":after", after)
	stmt.SetInt64(":limit", listPage)
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return page, err
		}
		seq := markedSequence{id: stmt.GetInt64("id"), lost: stmt.GetInt64("lost") != 0}
		stmt.GetBytes("hash", seq.hash[:])
		page = append(page, seq)
	}
}

// indexUnindexed indexes the sequences that another program has tagged, and those
// that could not be when a temp tag began to hold them.
func (c *collector) indexUnindexed() error {
	for _, by := range c.s.guard.unnoted() {
		if err := c.s.holdChildren(c.ctx, by.hash); err != nil {
			return err
		}
	}
	for seq := (markedSequence{}); ; {
		err := c.s.pool.read(c.ctx, func(conn *sqlite.Conn) (err error) {
			stmt := prep(conn, "sequence_next")
			defer stmt.Reset()
			stmt.SetInt64(":after", seq.id)
			seq = markedSequence{}
			found, err := stmt.Step()
			if found {
				seq.id = stmt.GetInt64("id")
				stmt.GetBytes("hash", seq.hash[:])
			}
			return err
		})
		if err != nil || seq.id == 0 {
			return err
		}
		by := subject{hash: seq.hash, children: true}
		if err := c.s.guard.hold(c.ctx, by); err != nil {
			return err
		}
		err = c.s.holdChildren(c.ctx, seq.hash)
		c.s.guard.release(by)
		if err != nil {
			return err
		}
	}
}

// readNow reads a sequence in the snapshot, unless it is large or outside.
func (c *collector) readNow(conn *sqlite.Conn, seq markedSequence) (read bool, err error) {
	blob, err := findBlob(conn, seq.hash)
	if err != nil || blob.State == Absent {
		return true, err
	}
	if blob.Size > promptSequence || blob.External > 0 {
		return false, nil
	}
	present, err := presentChunks(conn, blob, bao.All())
	if err == nil {
		err = c.readable(seq, connBlob{c.s, conn, blob}, blob, present)
	}
	return true, err
}

// readable returns an error if what is there of a sequence cannot be read, or if
// what is not has been lost before anybody knew what it was.
func (c *collector) readable(seq markedSequence, r io.ReaderAt, blob blobRow, present bao.Ranges) error {
	err := blob.checkHashSeq()
	if err == nil && seq.lost && blob.State != Complete {
		err = fmt.Errorf("%w: it was damaged before its children were known", ErrCorrupt)
	}
	if err == nil {
		err = eachChild(r, blob, present, func(Hash) error { return nil })
	}
	if err != nil {
		return fmt.Errorf("sequence %v, which is tagged or held by a temp tag: %w", blob.hash, err)
	}
	return nil
}

// readLater reads a sequence by itself.
func (c *collector) readLater(seq markedSequence) error {
	b, err := c.s.openBlob(c.ctx, seq.hash, "sequence "+seq.hash.String())
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Close()
	blob, present, err := c.s.presence(c.ctx, seq.hash)
	if err != nil {
		return err
	}
	return c.readable(seq, b, blob, present)
}

// A found blob is one that nothing protects.
type found struct {
	id     int64
	hash   Hash
	state  State
	stored int64
}

// eachGarbage calls f with the blobs of the ids above after, up to to, that nothing
// protects, from one snapshot, and returns how many blobs that has.
func (c *collector) eachGarbage(after, to int64, f func(found) error) (blobs int64, err error) {
	r, err := c.s.pool.take(c.ctx)
	if err != nil {
		return 0, err
	}
	defer c.s.pool.put(r)
	r.SetInterrupt(c.ctx.Done())
	defer r.SetInterrupt(nil)
	usage := prep(r.Conn, "usage_get")
	if _, err := usage.Step(); err != nil {
		return 0, mapSQLite(err)
	}
	blobs = usage.GetInt64("blobs") + usage.GetInt64("partial")
	if err := usage.Reset(); err != nil {
		return 0, mapSQLite(err)
	}
	stmt := prep(r.Conn, "gc_garbage")
	defer stmt.Reset()
	stmt.SetInt64(":after", after)
	stmt.SetInt64(":to", to)
	stmt.SetInt64(":began", c.began)
	stmt.SetInt64(":now", c.now)
	stmt.SetBool(":expired", c.report.DryRun && c.report.ExpiredTags > 0)
	for {
		more, err := stmt.Step()
		if err != nil || !more {
			return blobs, mapSQLite(err)
		}
		g := found{id: stmt.ColumnInt64(0), state: State(stmt.ColumnInt64(2)), stored: stmt.ColumnInt64(3)}
		stmt.ColumnBytes(1, g.hash[:])
		if c.s.guard.isHeld(subject{hash: g.hash}) {
			continue
		}
		if err := f(g); err != nil {
			return blobs, err
		}
	}
}

// count reports what would be swept.
func (c *collector) count() error {
	blobs, err := c.eachGarbage(0, math.MaxInt64, func(g found) error {
		c.report.add(g)
		return nil
	})
	c.report.Marked = blobs - c.report.Swept
	c.report.Done = err == nil
	return err
}

// add counts a blob that is swept.
func (r *GCReport) add(g found) {
	total := &r.Unprotected
	if g.state == Partial {
		total = &r.Partial
	}
	total.Blobs++
	total.Bytes += g.stored
	r.Swept++
	r.SweptBytes += g.stored
}

// collect collects garbage from time to time, as opts say. What goes wrong is logged, and tried
// again the next time.
func (s *Store) collect(every time.Duration, opts *GCOptions) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.background.Done():
			return
		case <-tick.C:
		}
		report, err := s.GC(s.background, opts)
		switch {
		case s.background.Err() != nil:
			return
		case err != nil:
			s.log.Error("cairn: garbage collection", "err", err)
		case report.Swept > 0:
			s.log.Info("cairn: garbage collection", "swept", report.Swept, "bytes", report.SweptBytes)
		}
	}
}
