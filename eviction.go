package cairn

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// The triggers in the schema decide what is evicted, from what SQL can see. What
// protects content in memory (open readers, pins, temp tags) is told to them by
// rows of the table pin, and only where it matters: a transaction evicts first;
// before it commits, the writer looks at what it has taken away, and if anybody
// holds some of that, rolls back, pins it, and runs the transaction again. So
// who adds and reads pays nothing for a protection that no eviction has met.

// A keeper does what each transaction of the writer needs beside its requests:
// it writes the uses that were noted in memory, keeps the table pin, and finds
// out what is gone. The writer's goroutine owns its fields, except where noted.
type keeper struct {
	guard     *guard
	uses      *uses
	events    *events
	observers *observers
	leftovers *leftovers

	// limited tells whether there is a capacity or a quota. Anybody may read it.
	limited atomic.Bool

	mark    chan struct{} // of the transaction: closed when it has ended
	marked  []subject
	news    []Event // of what the transaction takes away
	unnamed []Hash  // blobs that it makes pieces being written again
	// orphans are blobs that were kept by a pin only; true of those whose rows
	// are to be discarded.
	orphans map[int64]bool
	swept   map[int64]struct{} // blobs that go because nothing protects them
	pins    pinTable
	// sequences are those whose children are protected.
	sequences sequenceTable
	pinNext   []held          // to be pinned by the next transaction
	flushed   map[int64]int64 // uses that the transaction has written
	reruns    int             // of the transaction
	moved     []subject       // keys that have come to name another blob
	movedIn   []subject       // the same, in the open transaction
}

func newKeeper(s *Store) *keeper {
	return &keeper{
		guard:     &s.guard,
		uses:      &s.uses,
		events:    &s.events,
		observers: &s.observers,
		leftovers: &s.leftovers,
		pins:      newPinTable(&s.guard),
		sequences: sequenceTable{shedding: true},
	}
}

// maxReruns is how often a transaction is run again for what it has met, before
// all that is held is pinned.
const maxReruns = 2

// begin prepares a transaction that has just begun.
func (k *keeper) begin(conn *sqlite.Conn) error {
	// What another program's writing has taken away is gone.
	if last, err := stepInt(prep(conn, "gone_last")); err != nil || last > 0 {
		if err = errors.Join(err, exec(prep(conn, "gone_clear"))); err != nil {
			return err
		}
	}
	if err := k.updatePins(conn); err != nil {
		return err
	}
	changed, err := k.sequences.begin(conn)
	if err != nil {
		return err
	}
	if changed || len(k.pins.changes) > 0 {
		if err := k.collectOrphans(conn); err != nil {
			return err
		}
	}
	return k.writeUses(conn)
}

// updatePins brings the table pin to what is held now, as far as it is known to
// matter.
func (k *keeper) updatePins(conn *sqlite.Conn) error {
	if err := k.removeReleased(conn); err != nil {
		return err
	}
	if k.reruns > maxReruns {
		k.guard.freeze(k.mark)
		var err error
		if k.pinNext, err = k.guard.everything(conn); err != nil {
			return err
		}
	}
	for _, by := range k.moved {
		if err := k.pins.follow(conn, by); err != nil {
			return err
		}
	}
	for _, h := range k.pinNext {
		if err := k.pins.add(conn, h); err != nil {
			return err
		}
	}
	return nil
}

// sweeps tells that a blob goes because nothing protects it.
func (k *keeper) sweeps(blob int64) {
	if k.swept == nil {
		k.swept = make(map[int64]struct{})
	}
	k.swept[blob] = struct{}{}
}

// removeReleased has what is held no more protected no more.
func (k *keeper) removeReleased(conn *sqlite.Conn) error {
	released := k.guard.takeReleased()
	for i, by := range released {
		remove := k.pins.removeReleased
		if by.children {
			remove = k.sequences.unhold
		}
		if err := remove(conn, by); err != nil {
			for _, by := range released[i:] {
				k.guard.putReleased(by)
			}
			return err
		}
	}
	return nil
}

// collectOrphans removes what has lost the last pin that kept it, with nobody
// else who has it. The rows of large blobs are left for later.
func (k *keeper) collectOrphans(conn *sqlite.Conn) error {
	gone, err := readGone(conn, 0)
	if err != nil {
		return err
	}
	k.orphans = make(map[int64]bool)
	left := int64(dropGroups)
	for _, r := range gone {
		if !r.whole {
			continue
		}
		if left -= bao.Groups(r.size); left < 0 {
			k.orphans[r.blob] = true
			continue
		}
		k.orphans[r.blob] = false
		if err := removeBlob(conn, r.blob); err != nil {
			return err
		}
	}
	return nil
}

// usesUpToNow writes the uses of what has been read since the transaction began,
// where that may matter for what is evicted.
func (k *keeper) usesUpToNow(conn *sqlite.Conn) error {
	if !k.limited.Load() || !k.uses.any() {
		return nil
	}
	return k.writeUses(conn)
}

// writeUses writes when blobs were used. What was noted last for one holds.
func (k *keeper) writeUses(conn *sqlite.Conn) error {
	noted := k.uses.take(k.limited.Load())
	if k.flushed == nil {
		k.flushed = noted
	} else {
		for id, at := range noted { // those of the run before stay to be written
			k.flushed[id] = laterUse(k.flushed[id], at)
		}
	}
	if len(k.flushed) == 0 {
		return nil
	}
	stmt := prep(conn, "blob_touch")
	for id, at := range k.flushed {
		stmt.SetInt64(":id", id)
		stmt.SetInt64(":now", at)
		if err := exec(stmt); err != nil {
			return err
		}
	}
	return nil
}

// settle looks at what the transaction has taken away, before it is committed.
// It reports whether that may be: if not, the transaction must be rolled back
// and run again. Each time more is pinned; what a transaction makes and takes away
// itself cannot be, so one that does not come to an end is run as several, of a
// request each.
func (k *keeper) settle(conn *sqlite.Conn) (ok bool, err error) {
	gone, err := readGone(conn, 0)
	if err != nil || len(gone) == 0 {
		return true, err
	}
	if !k.mayGo(gone) {
		return false, nil
	}
	for _, g := range gone {
		if _, swept := k.swept[g.blob]; swept && g.reason == Deleted {
			g.reason = Swept
		}
		if event, ok := g.event(); ok {
			k.news = append(k.news, event)
		}
	}
	return true, exec(prep(conn, "gone_clear"))
}

// mayGo reports whether nobody holds anything of what is gone. What is held is
// noted, to be pinned.
func (k *keeper) mayGo(gone []*removal) bool {
	ok := true
	for _, g := range gone {
		if _, orphan := k.orphans[g.blob]; g.reason == Deleted && !orphan {
			continue // by a request, which has looked
		}
		for _, by := range g.subjects() {
			if err := k.drop(by); err != nil {
				k.meet(held{g.blob, by})
				ok = false
			}
		}
	}
	if !ok {
		k.reruns++
	}
	return ok
}

// blame returns what a request failed of: errHeld if the transaction has taken away
// what is held, which is why the request may have met what it would not have.
func (k *keeper) blame(conn *sqlite.Conn, err error) error {
	if err == nil || err == errHeld || isCrowded(err) || conn.AutocommitEnabled() {
		return err
	}
	gone, goneErr := readGone(conn, 0)
	if goneErr == nil && !k.mayGo(gone) {
		return errHeld
	}
	return err
}

// meet notes what the transaction must not take away: it is pinned when the
// transaction is run again.
func (k *keeper) meet(h held) { k.pinNext = append(k.pinNext, h) }

// errHeld ends a request that would take away what is held: its transaction is
// rolled back, and run again when that is pinned.
var errHeld = errors.New("held")

// dropOrPin is drop for a blob that may stay without anybody who has it, for as
// long as it is held: then it returns false. If it is not pinned yet, it is
// errHeld.
func (k *keeper) dropOrPin(blob int64, hash Hash) (dropped bool, err error) {
	by := subject{hash: hash}
	if k.drop(by) == nil {
		return true, nil
	}
	if k.pins.has(held{blob, by}) {
		return false, nil
	}
	k.meet(held{blob, by})
	k.reruns++
	return false, errHeld
}

// drop tells that the transaction takes something away, or returns ErrConflict
// if anybody holds it. Until the end of the transaction nobody can.
func (k *keeper) drop(by subject) error {
	err := k.guard.drop(by, k.mark)
	if err == nil {
		k.marked = append(k.marked, by)
	}
	return err
}

// stale reports whether the table protects what nobody holds any more.
func (k *keeper) stale() bool {
	return k.guard.hasReleased() || len(k.moved)+len(k.movedIn) > 0 || k.sequences.stale()
}

// committed tells that the transaction is committed.
func (k *keeper) committed() {
	k.events.publish(k.news)
	for _, event := range k.news {
		k.observers.reset(event.Hash)
	}
	for _, hash := range k.unnamed {
		k.observers.reset(hash)
	}
	k.flushed, k.pinNext, k.reruns = nil, nil, 0
	k.moved = k.movedIn
	k.movedIn = nil
	for id, rows := range k.orphans {
		if rows {
			k.leftovers.add(id)
		}
	}
	k.pins.committed()
	k.sequences.committed()
	k.release()
}

// rolledBack tells that the transaction has come to nothing.
func (k *keeper) rolledBack() {
	k.pins.rolledBack()
	k.sequences.rolledBack(k.guard)
	k.release()
}

// release lets go of what the transaction was taking away: who waits for it
// looks again.
func (k *keeper) release() {
	k.news, k.unnamed, k.orphans = nil, nil, nil
	clear(k.swept)
	for _, by := range k.marked {
		k.guard.dropped(by, k.mark)
	}
	k.marked = k.marked[:0]
	k.guard.thaw()
	close(k.mark)
}

// uses are when blobs were used since the writer wrote it last. All methods may
// be called concurrently. The times are of a clock of nanoseconds that never
// stands still: no two uses have the same.
type uses struct {
	mu     sync.Mutex
	last   int64
	reads  map[int64]int64 // by blob id
	writes map[int64]int64 // the same, of pieces that are written
}

// now returns a time above all that were returned before.
func (u *uses) now() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.tick()
}

func (u *uses) tick() int64 {
	u.last = max(u.last+1, time.Now().UnixNano())
	return u.last
}

// read notes that a blob is being read, and reports whether so many are noted
// that they should be written.
func (u *uses) read(id int64) (many bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reads == nil {
		u.reads = make(map[int64]int64)
	}
	u.reads[id] = u.tick()
	return len(u.reads)%manyUses == 0
}

// evictFirst notes that a blob is the first to go when room is needed, until it
// is used again.
func (u *uses) evictFirst(id int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reads == nil {
		u.reads = make(map[int64]int64)
	}
	u.reads[id] = u.tick() - evictFirstAge
}

// evictFirstAge is taken from the time of the last use of what is evicted first:
// it makes that negative, and so earlier than all others, in the same order.
const evictFirstAge = 1 << 62

// usedAt returns the time of a use, whether or not the blob is evicted first.
func usedAt(use int64) int64 {
	if use < 0 {
		return use + evictFirstAge
	}
	return use
}

func laterUse(a, b int64) int64 {
	if usedAt(a) > usedAt(b) {
		return a
	}
	return b
}

// manyUses are written even if there is nothing else to write.
const manyUses = 8192

// any reports whether there is anything to be written for what was read.
func (u *uses) any() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.reads) > 0
}

// wrote notes that a piece is being written.
func (u *uses) wrote(id int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.writes == nil {
		u.writes = make(map[int64]int64)
	}
	u.writes[id] = u.tick()
}

// take returns what was noted, and forgets it. The uses of pieces that are being
// written are of no use before there is something to evict.
func (u *uses) take(limited bool) map[int64]int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if limited || len(u.writes) >= manyUses {
		u.mergeWrites()
	}
	noted := u.reads
	u.reads = nil
	return noted
}

// merge has the next take return all that was noted, and reports whether that is
// anything.
func (u *uses) merge() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mergeWrites()
	return len(u.reads) > 0
}

func (u *uses) mergeWrites() {
	if u.reads == nil {
		u.reads = make(map[int64]int64)
	}
	for id, at := range u.writes {
		u.reads[id] = laterUse(u.reads[id], at)
	}
	u.writes = nil
}

// A removal is a row of gone: what a transaction has taken away.
type removal struct {
	seq    int64
	blob   int64
	hash   Hash
	size   int64
	keys   []string
	reason Reason
	whole  bool // the blob itself, not only keys of it
}

// subjects are what must not be held where this is evicted.
func (r *removal) subjects() []subject {
	var list []subject
	if r.hash != (Hash{}) && (r.whole || r.reason == OverQuota) {
		list = append(list, subject{hash: r.hash})
	}
	for _, key := range r.keys {
		list = append(list, subject{key: key})
	}
	return list
}

// event returns what to tell of it, if anything: nothing of the bytes of a piece
// that moved to another blob.
func (r *removal) event() (Event, bool) {
	return Event{Reason: r.reason, Hash: r.hash, Keys: r.keys, Size: r.size}, len(r.keys) > 0 || r.hash != (Hash{})
}

// readGone returns what the transaction has taken away since the given row of
// gone, one removal for each blob, in order.
func readGone(conn *sqlite.Conn, after int64) ([]*removal, error) {
	var gone []*removal
	byBlob := make(map[int64]*removal)
	stmt := prep(conn, "gone_list")
	defer stmt.Reset()
	stmt.SetInt64(":after", after)
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return gone, err
		}
		id := stmt.GetInt64("blob")
		r := byBlob[id]
		if r == nil {
			r = &removal{blob: id, reason: Deleted}
			byBlob[id] = r
			gone = append(gone, r)
		}
		r.seq = stmt.GetInt64("seq")
		r.scan(stmt)
	}
}

// scan takes in one row.
func (r *removal) scan(stmt *sqlite.Stmt) {
	switch stmt.GetText("what") {
	case "victim":
		r.reason = Evicted
		if !stmt.IsNull("owner") {
			r.reason = OverQuota
		}
	case "key":
		r.keys = append(r.keys, columnString(stmt, "name"))
		r.scanBlob(stmt)
	case "blob":
		r.whole = true
		r.scanBlob(stmt)
	}
}

func (r *removal) scanBlob(stmt *sqlite.Stmt) {
	if !stmt.IsNull("size") {
		r.size = stmt.GetInt64("size")
	}
	if !stmt.IsNull("hash") {
		stmt.GetBytes("hash", r.hash[:])
	}
}
