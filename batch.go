package cairn

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"zombiezen.com/go/sqlite"
)

const (
	// queueBytes bounds the bytes that wait to be written; who brings more
	// waits for room.
	queueBytes = 16 << 20
	// requestOverhead is counted for each request beside its bytes.
	requestOverhead = 1 << 10
	// batchBytes and batchAge end a batch: no waiter is held up by more than
	// that of other requests' work.
	batchBytes = 8 << 20
	batchAge   = 20 * time.Millisecond
	// lingerPart is the part of the last sync's time that a batch waits for
	// requests of those whom that sync answered.
	lingerPart = 2
)

// counters are published as the expvar "cairn", summed over all stores of the
// process.
var counters struct {
	batches, requests, bytes, commitNanos, syncNanos expvar.Int
}

func init() {
	m := expvar.NewMap("cairn")
	m.Set("batches", &counters.batches)
	m.Set("requests", &counters.requests)
	m.Set("bytes", &counters.bytes)
	m.Set("commit_ns", &counters.commitNanos)
	m.Set("sync_ns", &counters.syncNanos)
}

// A writer owns the writing connection. Three goroutines work for it: run
// executes requests and commits them in batches; syncLoop makes commits
// durable and answers their waiters, while run is already at the next batch;
// checkpointLoop moves what was committed from the WAL into the database.
type writer struct {
	conn     *sqlite.Conn // used by run only
	pool     *pool
	keeper   *keeper
	durable  bool
	queue    chan *request
	room     *semaphore.Weighted // queueBytes
	ckpt     *checkpointer
	wal      *walFile
	db       *dbFile
	synced   chan []*request // of committed batches those who wait for a sync
	syncIdle chan syncResult // holds the last one while no sync is under way
	finished sync.WaitGroup

	// closeMu is held for reading while a request is put into the queue, and
	// for writing to set closed: so nothing is queued after the queue's end.
	closeMu sync.RWMutex
	closed  bool

	untidy   bool  // written since space was last given back; for run
	bulkRest int64 // bytes to write before bulk mode is tried again; for run

	// failed is set once the outcome of a sync is unknown: what SQLite then
	// shows as committed may be gone after a power loss, so nothing more is
	// built upon it.
	failed atomic.Pointer[error]
}

func newWriter(conn *sqlite.Conn, p *pool, k *keeper, db *dbFile, durability Durability, log *slog.Logger) (*writer, error) {
	w := &writer{
		conn:   conn,
		pool:   p,
		keeper: k,
		db:     db,
		queue:  make(chan *request, queueBytes/requestOverhead), // never full
		room:   semaphore.NewWeighted(queueBytes),
		synced: make(chan []*request, 4),
		untidy: true, // there may be free pages of an earlier process

		syncIdle: make(chan syncResult, 1),
	}
	w.syncIdle <- syncResult{}
	if !p.loc.memory {
		var err error
		if w.ckpt, err = newCheckpointer(p, db, log); err != nil {
			return nil, err
		}
		if w.wal, err = openWAL(p.loc); err != nil {
			return nil, errors.Join(err, w.ckpt.close())
		}
		w.durable = durability != Relaxed
	}
	w.start("writer", w.run)
	w.start("sync", w.syncLoop)
	return w, nil
}

func (w *writer) start(name string, f func()) {
	w.finished.Go(func() {
		pprof.Do(context.Background(), pprof.Labels("cairn", name), func(context.Context) { f() })
	})
}

// submit has run executed in a transaction and returns once that is durable
// (or, with Relaxed, committed). Until run has begun, ctx can withdraw it;
// then its outcome is waited for. For after see [request].
func (w *writer) submit(ctx context.Context, cost int64, run func(conn *sqlite.Conn) error, after func()) error {
	req := &request{ctx: ctx, run: run, after: after, cost: cost + requestOverhead, done: make(chan struct{})}
	if err := w.enqueue(req); err != nil {
		return err
	}
	return req.wait()
}

// enqueue waits for room in the queue and puts the request there. The answer
// comes on req.done.
func (w *writer) enqueue(req *request) error {
	req.cost = min(req.cost, queueBytes)
	if err := w.reserve(req.ctx, req.cost); err != nil {
		return err
	}
	return w.push(req)
}

// reserve waits for room in the queue.
func (w *writer) reserve(ctx context.Context, cost int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := w.room.Acquire(ctx, cost); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

// push puts a request into the queue, for which room has been reserved.
func (w *writer) push(req *request) error {
	w.closeMu.RLock()
	defer w.closeMu.RUnlock()
	if w.closed {
		w.room.Release(req.cost)
		return ErrClosed
	}
	w.queue <- req
	return nil
}

// drain refuses further requests and returns when all that are queued have
// been written and answered.
func (w *writer) drain() {
	w.closeMu.Lock()
	w.closed = true
	w.closeMu.Unlock()
	close(w.queue)
	w.finished.Wait()
}

// close moves the WAL into the database and closes the connections. The
// writer must be drained, and no reading connection may hold a snapshot.
func (w *writer) close() error {
	var errs []error
	if w.ckpt != nil {
		errs = append(errs, w.wal.close(), w.ckpt.close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// run executes requests until the queue is closed and empty.
func (w *writer) run() {
	defer close(w.synced)
	for {
		req, ok := w.rest()
		if !ok {
			return
		}
		w.untidy = true
		if req.bulk {
			req = w.runBulk(req)
		}
		if req != nil {
			w.runBatch(req)
		}
	}
}

// runBatch commits a batch that begins with first.
func (w *writer) runBatch(first *request) {
	batch := batch{w: w, began: time.Now(), full: time.After(batchAge)}
	batch.add(first)
	for {
		if committed := batch.execute(); len(committed) > 0 {
			n := len(committed)
			if waiting := answerLazy(committed); len(waiting) > 0 {
				w.synced <- waiting
			}
			if w.ckpt != nil {
				w.ckpt.wrote(batch.bytes, n)
			}
		}
		if len(batch.waiting) == 0 {
			return
		}
		batch = batch.rest()
	}
}

// committed notes a commit.
func (w *writer) committed(reqs []*request) {
	w.pool.commits.Add(1)
	counters.batches.Add(1)
	counters.requests.Add(int64(len(reqs)))
	for _, req := range reqs {
		w.bulkRest -= req.cost
		counters.bytes.Add(req.cost - requestOverhead)
		if req.after != nil {
			req.after()
		}
	}
}

// A batch is the requests of one transaction, in the making. The writer's
// goroutine owns it.
type batch struct {
	w       *writer
	waiting []*request // to be run
	done    []*request // run in the open transaction
	bytes   int64      // of both
	began   time.Time
	ended   bool // takes no more requests
	// careful is set when a request has failed: then each one gets a savepoint.
	// Before that, one that fails takes the transaction along, and the others
	// run again; that is rare, and a savepoint has its price.
	careful bool
	// alone is set when the transaction cannot be committed because of what its
	// requests do to each other: then each one gets a transaction.
	alone bool
	full  <-chan time.Time

	// Once the sync of the batch before is over, synced has its outcome, and
	// the batch lingers until it has target requests.
	synced *syncResult
	target int
	linger <-chan time.Time
}

// rest returns a batch of the requests that are still waiting, one of which goes
// into its transaction.
func (b *batch) rest() batch {
	return batch{w: b.w, waiting: b.waiting, began: b.began, full: b.full, ended: true, careful: b.careful, alone: true}
}

// add takes in a request from the queue.
func (b *batch) add(req *request) {
	b.w.room.Release(req.cost)
	b.waiting = append(b.waiting, req)
	b.bytes += req.cost
}

// more waits for further requests as long as there is nothing better to do. It
// reports whether there is something to run.
//
// While the batch before is being synced, this one could not be acknowledged
// anyway. When that is over, its waiters are likely to come back with their
// next requests: they get a moment, a part of what the sync will cost, because
// one sync for all is cheaper than two for halves.
func (b *batch) more() bool {
	for len(b.waiting) == 0 && !b.ended {
		select {
		case req, ok := <-b.w.queue:
			b.take(req, ok)
			continue
		default:
		}
		if b.bytes >= batchBytes || !b.wantsSync() || b.synced != nil && len(b.done) >= b.target {
			b.ended = true
			break
		}
		select {
		case req, ok := <-b.w.queue:
			b.take(req, ok)
		case result := <-b.w.syncIdle:
			b.takeSynced(result)
		case <-b.linger:
			b.ended = true
		case <-b.full:
			b.ended = true
		}
	}
	return len(b.waiting) > 0
}

func (b *batch) take(req *request, ok bool) {
	if !ok {
		b.ended = true
		return
	}
	b.add(req)
	b.ended = b.bytes >= batchBytes
}

// takeSynced notes that no sync is under way.
func (b *batch) takeSynced(result syncResult) {
	b.synced = &result
	b.target = result.requests
	if result.ended.After(b.began) {
		b.target += len(b.done)
	}
	b.linger = time.After(result.took / lingerPart)
}

// wantsSync reports whether anybody waits for the batch to be durable.
func (b *batch) wantsSync() bool {
	for _, req := range b.done {
		if !req.lazy {
			return true
		}
	}
	return false
}

// execute runs the batch in one transaction and commits it. It answers the
// requests that failed and returns those that are committed.
//
// COMMIT is the commit point of every change in Cairn. A crash before it
// leaves nothing of the batch; after it, the WAL holds the whole batch, which
// survives the death of the process at once and a power loss after the sync
// that syncLoop does next.
func (b *batch) execute() (committed []*request) {
	for {
		if err := b.begin(); err != nil {
			b.rollback()
			answer(b.waiting, mapSQLite(err))
			b.waiting = nil
			b.giveBack()
			return nil
		}
		if b.runAll() && b.settle() {
			break
		}
		// The whole transaction has been rolled back, the neighbours' part
		// included: they run again, without the one that failed or after what
		// the transaction must not take away has been protected.
		b.waiting = append(b.done, b.waiting...)
		b.done = nil
	}
	if b.synced == nil && b.wantsSync() {
		b.takeSynced(<-b.w.syncIdle)
	}
	start := time.Now()
	err := exec(b.w.conn.Prep("commit"))
	counters.commitNanos.Add(int64(time.Since(start)))
	if err != nil || !b.wantsSync() {
		b.giveBack()
	}
	if err != nil {
		b.rollback()
		err = mapSQLite(fmt.Errorf("commit: %w", err))
		if errors.Is(err, ErrFull) && b.w.ckpt != nil {
			// What the WAL holds already may be room for the next batch.
			b.w.ckpt.catchUp()
		}
		answer(b.done, err)
		return nil
	}
	b.w.committed(b.done)
	b.w.keeper.committed() // wakes those who then look at what is gone
	return b.done
}

// settle has the keeper look at what the transaction takes away, and reports
// whether it may be committed. If not, it is rolled back.
func (b *batch) settle() bool {
	ok, err := b.w.keeper.settle(b.w.conn)
	switch {
	case ok && err == nil:
		return true
	case err == nil && b.w.keeper.reruns > maxReruns+1:
		if b.alone {
			err = errCrowded // what it takes away, it has made itself
		}
		b.alone = true
	}
	if err != nil {
		answer(b.done, mapSQLite(err))
		b.done = nil
	}
	b.rollback()
	return false
}

// rollback ends the transaction, if SQLite has not, and takes back what the
// keeper noted of it.
func (b *batch) rollback() {
	if !b.w.conn.AutocommitEnabled() {
		exec(b.w.conn.Prep("rollback"))
	}
	b.w.keeper.rolledBack()
}

func (b *batch) begin() error {
	b.w.keeper.mark = make(chan struct{})
	if failed := b.w.failed.Load(); failed != nil {
		return *failed
	}
	if err := exec(b.w.conn.Prep("begin immediate")); err != nil {
		return err
	}
	return b.w.keeper.begin(b.w.conn)
}

// giveBack returns the result that takeSynced took, because no sync follows.
func (b *batch) giveBack() {
	if b.synced != nil {
		b.w.syncIdle <- *b.synced
		b.synced = nil
	}
}

// runAll runs the requests of the batch, as long as it takes some. It reports
// whether the transaction is still open; if not, it has been rolled back.
func (b *batch) runAll() bool {
	for b.more() {
		if b.alone && len(b.done) > 0 {
			break
		}
		req := b.waiting[0]
		b.waiting = b.waiting[1:]
		if !req.claim() {
			continue
		}
		before := req.cost
		err := b.w.keeper.usesUpToNow(b.w.conn)
		if err == nil {
			err = b.attempt(req)
		}
		b.bytes += req.cost - before // others may have joined it
		switch {
		case err == nil:
			b.done = append(b.done, req)
			continue
		case errors.Is(err, errHeld):
			// What an earlier request has made cannot be pinned.
			if b.alone && b.w.keeper.reruns > 3*maxReruns {
				req.answer(errCrowded) // it takes away what it has made
				break
			}
			b.alone = b.alone || b.w.keeper.reruns > maxReruns+1
			b.waiting = append([]*request{req}, b.waiting...)
		case isCrowded(err) && !req.retried && b.w.keeper.stale():
			// The table pin says too much. A transaction of its own mends that.
			req.retried = true
			b.alone = true
			b.waiting = append([]*request{req}, b.waiting...)
		default:
			req.answer(mapSQLite(err))
			if b.careful && !b.w.conn.AutocommitEnabled() {
				continue // nothing of it is left
			}
			b.careful = true
		}
		b.rollback()
		return false
	}
	return true
}

// attempt runs one request: in a savepoint, if one of the batch has failed
// already.
func (b *batch) attempt(req *request) error {
	run := func(conn *sqlite.Conn) error { return b.w.keeper.blame(conn, req.run(conn)) }
	if b.careful {
		return inSavepoint(b.w.conn, run)
	}
	return run(b.w.conn)
}

// inSavepoint runs a request in a savepoint of the open transaction. If it
// fails, nothing of it stays; the transaction does, unless SQLite ended it.
func inSavepoint(conn *sqlite.Conn, run func(conn *sqlite.Conn) error) error {
	err := exec(conn.Prep("savepoint request"))
	if err != nil {
		return err
	}
	if err = run(conn); err == nil {
		err = exec(conn.Prep("release request"))
	}
	if err != nil && !conn.AutocommitEnabled() {
		err = errors.Join(err, exec(conn.Prep("rollback to request")), exec(conn.Prep("release request")))
	}
	return err
}

// A syncResult tells how the last sync went.
type syncResult struct {
	requests int // it answered
	took     time.Duration
	ended    time.Time
}

// syncLoop makes commits durable and answers their waiters, one batch at a
// time. syncIdle holds the last result while no sync is under way.
func (w *writer) syncLoop() {
	for waiting := range w.synced {
		start := time.Now()
		err := w.sync()
		end := time.Now()
		w.syncIdle <- syncResult{len(waiting), end.Sub(start), end}
		answer(waiting, err)
	}
}

func (w *writer) sync() error {
	if failed := w.failed.Load(); failed != nil {
		return *failed
	}
	if !w.durable {
		return nil
	}
	start := time.Now()
	err := w.wal.sync()
	counters.syncNanos.Add(int64(time.Since(start)))
	if err != nil {
		err = fmt.Errorf("sync: %w: reopen the store", err)
		w.failed.Store(&err)
	}
	return err
}

// answerLazy answers the lazy requests of a batch and returns the others.
func answerLazy(batch []*request) (waiting []*request) {
	waiting = batch[:0]
	for _, req := range batch {
		if req.lazy {
			req.answer(nil)
		} else {
			waiting = append(waiting, req)
		}
	}
	return waiting
}
