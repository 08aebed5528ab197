package cairn

import (
	"context"
	"errors"
	"expvar"
	"fmt"
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
)

// counters are published as the expvar "cairn", summed over all stores of the
// process.
var counters struct {
	batches, requests, bytes, commitNanos expvar.Int
}

func init() {
	m := expvar.NewMap("cairn")
	m.Set("batches", &counters.batches)
	m.Set("requests", &counters.requests)
	m.Set("bytes", &counters.bytes)
	m.Set("commit_ns", &counters.commitNanos)
}

// A request is one caller's change. It runs inside a savepoint of its own, so
// that it is done wholly or not at all and its failure hurts no neighbour.
type request struct {
	ctx context.Context
	// run makes the change. It may be called again, from the start, when the
	// transaction it ran in had to be rolled back for another's sake. The
	// writer's goroutine calls it.
	run  func(conn *sqlite.Conn) error
	cost int64 // bytes it holds while it waits
	// lazy requests are answered when committed, before the commit is
	// durable: the steps of a change whose last step is not lazy.
	lazy bool
	buf  *[segmentSize]byte // given back by the waiter, if not nil

	claimed atomic.Bool // by the writer, to run it, or by its cancelled waiter
	done    chan error  // gets the outcome; buffered
}

// A writer owns the writing connection. Three goroutines work for it: run
// executes requests and commits them in batches; syncLoop makes commits
// durable and answers their waiters, while run is already at the next batch;
// checkpointLoop moves what was committed from the WAL into the database.
type writer struct {
	conn     *sqlite.Conn // used by run only
	pool     *pool
	durable  bool
	queue    chan *request
	room     *semaphore.Weighted // queueBytes
	ckpt     *checkpointer
	wal      *walFile
	synced   chan []*request // committed batches, to syncLoop
	finished sync.WaitGroup

	// closeMu is held for reading while a request is put into the queue, and
	// for writing to set closed: so nothing is queued after the queue's end.
	closeMu sync.RWMutex
	closed  bool

	// failed is set once the outcome of a sync is unknown: what SQLite then
	// shows as committed may be gone after a power loss, so nothing more is
	// built upon it.
	failed atomic.Pointer[error]
}

func newWriter(conn *sqlite.Conn, p *pool, durability Durability) (*writer, error) {
	w := &writer{
		conn:   conn,
		pool:   p,
		queue:  make(chan *request, 1024),
		room:   semaphore.NewWeighted(queueBytes),
		synced: make(chan []*request, 4),
	}
	if !p.loc.memory {
		var err error
		if w.ckpt, err = newCheckpointer(p); err != nil {
			return nil, err
		}
		if w.wal, err = openWAL(p.loc); err != nil {
			return nil, errors.Join(err, w.ckpt.close())
		}
		w.durable = durability == Durable
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
// then its outcome is waited for.
func (w *writer) submit(ctx context.Context, cost int64, run func(conn *sqlite.Conn) error) error {
	req := &request{ctx: ctx, run: run, cost: cost + requestOverhead, done: make(chan error, 1)}
	if err := w.enqueue(req); err != nil {
		return err
	}
	return req.wait()
}

// enqueue waits for room in the queue and puts the request there. The answer
// comes on req.done.
func (w *writer) enqueue(req *request) error {
	if err := req.ctx.Err(); err != nil {
		return context.Cause(req.ctx)
	}
	req.cost = min(req.cost, queueBytes)
	if err := w.room.Acquire(req.ctx, req.cost); err != nil {
		return context.Cause(req.ctx)
	}
	w.closeMu.RLock()
	defer w.closeMu.RUnlock()
	if w.closed {
		w.room.Release(req.cost)
		return ErrClosed
	}
	w.queue <- req
	return nil
}

// wait returns the outcome of a queued request.
func (req *request) wait() error {
	select {
	case err := <-req.done:
		return err
	case <-req.ctx.Done():
		if req.claimed.CompareAndSwap(false, true) {
			return context.Cause(req.ctx)
		}
		return <-req.done
	}
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
	for req := range w.queue {
		batch := w.collect(req)
		start := time.Now()
		committed, bytes := w.execute(batch)
		if len(committed) == 0 {
			continue
		}
		w.pool.commits.Add(1)
		counters.batches.Add(1)
		counters.requests.Add(int64(len(committed)))
		counters.bytes.Add(bytes)
		counters.commitNanos.Add(int64(time.Since(start)))
		w.synced <- committed
		if w.ckpt != nil {
			w.ckpt.wrote(bytes, len(committed))
		}
	}
}

// collect claims first and what else is waiting, up to the bounds of a batch.
func (w *writer) collect(first *request) (batch []*request) {
	var bytes int64
	deadline := time.Now().Add(batchAge)
	for req := first; ; {
		w.room.Release(req.cost)
		if req.claimed.CompareAndSwap(false, true) {
			batch = append(batch, req)
			bytes += req.cost
		}
		if bytes >= batchBytes || time.Now().After(deadline) {
			return batch
		}
		select {
		case next, ok := <-w.queue:
			if !ok {
				return batch
			}
			req = next
		default:
			return batch
		}
	}
}

// execute runs a batch in one transaction and commits it. It answers the
// requests that failed and returns those that are committed.
//
// COMMIT is the commit point of every change in Cairn. A crash before it
// leaves nothing of the batch; after it, the WAL holds the whole batch, which
// survives the death of the process at once and a power loss after the sync
// that syncLoop does next.
func (w *writer) execute(batch []*request) (committed []*request, bytes int64) {
	for len(batch) > 0 {
		if failed := w.failed.Load(); failed != nil {
			answer(batch, *failed)
			return nil, 0
		}
		if err := exec(w.conn.Prep("begin immediate")); err != nil {
			answer(batch, mapSQLite(err))
			return nil, 0
		}
		committed = committed[:0]
		rest, again := batch, false
		for len(rest) > 0 && !again {
			var err error
			committed, err, again = w.attempt(rest[0], committed)
			if err != nil {
				answer(rest[:1], mapSQLite(err))
			}
			rest = rest[1:]
		}
		if again {
			// SQLite has rolled back the whole transaction, the neighbours'
			// part included: they run again, without the one that failed.
			batch = append(committed, rest...)
			continue
		}
		if err := exec(w.conn.Prep("commit")); err != nil {
			if !w.conn.AutocommitEnabled() {
				exec(w.conn.Prep("rollback"))
			}
			answer(committed, mapSQLite(fmt.Errorf("commit: %w", err)))
			return nil, 0
		}
		for _, req := range committed {
			bytes += req.cost
		}
		return committed, bytes
	}
	return nil, 0
}

// attempt runs one request in a savepoint and appends it to committed if it
// succeeds. gone tells that its failure has ended the transaction.
func (w *writer) attempt(req *request, committed []*request) (_ []*request, err error, gone bool) {
	if len(committed) > 0 { // the first one's savepoint is the transaction
		if err := exec(w.conn.Prep("savepoint request")); err != nil {
			return committed, err, w.conn.AutocommitEnabled()
		}
	}
	err = req.run(w.conn)
	switch {
	case err != nil && w.conn.AutocommitEnabled():
		return committed, err, true
	case err != nil && len(committed) == 0:
		return committed, errors.Join(err, exec(w.conn.Prep("rollback")), exec(w.conn.Prep("begin immediate"))), false
	case err != nil:
		err = errors.Join(err, exec(w.conn.Prep("rollback to request")), exec(w.conn.Prep("release request")))
		return committed, err, false
	case len(committed) > 0:
		if err := exec(w.conn.Prep("release request")); err != nil {
			return committed, err, w.conn.AutocommitEnabled()
		}
	}
	return append(committed, req), nil, false
}

func answer(reqs []*request, err error) {
	for _, req := range reqs {
		req.done <- err
	}
}

// syncLoop makes commits durable and answers their waiters. One sync serves
// all the batches committed before it began.
func (w *writer) syncLoop() {
	for batch := range w.synced {
		waiting := answerLazy(batch)
		for more := true; more; {
			select {
			case next, ok := <-w.synced:
				waiting = append(waiting, answerLazy(next)...)
				more = ok
			default:
				more = false
			}
		}
		if len(waiting) == 0 {
			continue
		}
		var err error
		if failed := w.failed.Load(); failed != nil {
			err = *failed
		} else if w.durable {
			if err = w.wal.sync(); err != nil {
				err = fmt.Errorf("sync: %w: reopen the store", err)
				w.failed.Store(&err)
			}
		}
		answer(waiting, err)
	}
}

// answerLazy answers the lazy requests of a batch and returns the others.
func answerLazy(batch []*request) (waiting []*request) {
	waiting = batch[:0]
	for _, req := range batch {
		if req.lazy {
			req.done <- nil
		} else {
			waiting = append(waiting, req)
		}
	}
	return waiting
}
