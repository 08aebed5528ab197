package cairn

import (
	"context"
	"math/rand/v2"
	"runtime/pprof"
	"sync"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

const (
	// scrubWorkers read and hash at the same time: one mostly reads while the
	// other one hashes.
	scrubWorkers = 2
	// scrubWindow jobs are handed out and not taken back yet.
	scrubWindow = 2 * scrubWorkers
	// jobTasks are in one job at most, so that small blobs do not cost a snapshot
	// each.
	jobTasks = 256
)

// A scrubTask is to look at one run of a blob or, at its end, at the lengths of its
// tiles: that marks that all of it has been looked at.
type scrubTask struct {
	blob  blobRow
	first int64 // group of the run
	end   bool
	skip  bool // nothing is to be looked at

	good  bool  // the outcome: whether all that is there verifies
	bytes int64 // that were hashed
}

// A scrubJob is tasks of about a MiB, which are done with one snapshot. Its worker
// owns it until done is closed.
type scrubJob struct {
	tasks []scrubTask
	cost  int64
	done  chan struct{}
	// err ended the job at the task failed.
	err    error
	failed int
}

// nextJob makes the next job, nil if there is none.
func (sc *scrubber) nextJob() (*scrubJob, error) {
	job := &scrubJob{done: make(chan struct{})}
	for job.cost < segmentSize && len(job.tasks) < jobTasks {
		if len(sc.page) == 0 {
			if err := sc.listMore(); err != nil {
				return nil, err
			}
			if len(sc.page) == 0 {
				break
			}
		}
		if err := sc.addTask(job); err != nil {
			return nil, err
		}
	}
	if len(job.tasks) == 0 {
		return nil, nil
	}
	return job, nil
}

// listMore lists a page of blobs, none if there are no more.
func (sc *scrubber) listMore() (err error) {
	if !sc.more {
		return nil
	}
	if sc.page, err = sc.s.listPage(sc.ctx, sc.from, sc.to); err != nil {
		return err
	}
	if sc.more = len(sc.page) == listPage; sc.more {
		sc.from, sc.more = nextHash(sc.page[len(sc.page)-1].hash)
	}
	return nil
}

// addTask adds the next run of the page's first blob, or its end.
func (sc *scrubber) addTask(job *scrubJob) error {
	blob := sc.page[0]
	first, more, err := sc.nextRun(blob)
	if err != nil {
		return err
	}
	if !more {
		skip := sc.sampled() && !sc.picked || bao.Groups(blob.Size) < 2
		job.tasks = append(job.tasks, scrubTask{blob: blob, end: true, skip: skip})
		sc.page, sc.next, sc.picked = sc.page[1:], 0, false
		return nil
	}
	sc.next = first + groupRun
	if !sc.sampled() || rand.Float64() < sc.opts.Sample {
		sc.picked = true
		job.tasks = append(job.tasks, scrubTask{blob: blob, first: first})
		job.cost += min(segmentSize, blob.Size-first*bao.GroupSize)
	}
	return nil
}

// sampled reports whether only a part is to be hashed.
func (sc *scrubber) sampled() bool { return sc.opts.Sample != 0 }

// nextRun returns the next run of which a blob has something.
func (sc *scrubber) nextRun(blob blobRow) (first int64, more bool, err error) {
	if !possibleSize(blob) {
		return 0, sc.next == 0, nil // its one task finds that out
	}
	if blob.State == Complete || sc.next >= bao.Groups(blob.Size) {
		return sc.next, sc.next < bao.Groups(blob.Size), nil
	}
	err = sc.s.pool.read(sc.ctx, func(conn *sqlite.Conn) error {
		stmt := prep(conn, "presence_range")
		defer stmt.Reset()
		stmt.SetInt64(":from", rowID(blob.id, sc.next))
		stmt.SetInt64(":to", rowID(blob.id+1, 0)-1)
		more, err = stmt.Step()
		if more {
			first = groupOf(stmt.GetInt64("id")) &^ (groupRun - 1)
		}
		return err
	})
	if err != nil && isDamage(err) {
		return sc.next, true, nil // its task finds that out
	}
	return first, more, err
}

// A scrubPool is the goroutines that do the jobs.
type scrubPool struct {
	jobs    chan *scrubJob
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func (sc *scrubber) startWorkers() *scrubPool {
	ctx, cancel := context.WithCancel(sc.ctx)
	w := &scrubPool{jobs: make(chan *scrubJob, scrubWindow), cancel: cancel}
	for range scrubWorkers {
		w.running.Go(func() {
			pprof.Do(ctx, pprof.Labels("cairn", "scrub"), func(ctx context.Context) { sc.s.scrubJobs(ctx, w.jobs) })
		})
	}
	return w
}

// scrubJobs does jobs until there are no more.
func (s *Store) scrubJobs(ctx context.Context, jobs <-chan *scrubJob) {
	checker := runChecker{s: s}
	for job := range jobs {
		job.err = s.scrubJob(ctx, job, &checker)
		close(job.done)
	}
}

// stop ends the workers, whose jobs nobody waits for any more.
func (w *scrubPool) stop() {
	w.cancel()
	close(w.jobs)
	w.running.Wait()
}

// scrubJob does a job. What is found not to be good has to be inspected: it may
// only be gone, or not as it was listed.
func (s *Store) scrubJob(ctx context.Context, job *scrubJob, checker *runChecker) error {
	return s.pool.read(ctx, func(conn *sqlite.Conn) error {
		for i := range job.tasks {
			t := &job.tasks[i]
			err := t.run(conn, checker)
			if err != nil && !isDamage(err) {
				job.failed = i
				return err
			}
		}
		return nil
	})
}

// run does a task. An error that is damage leaves the outcome as it is: not good.
func (t *scrubTask) run(conn *sqlite.Conn, checker *runChecker) error {
	switch {
	case t.skip:
		t.good = true
		return nil
	case !possibleSize(t.blob):
		return nil
	case t.end:
		unfit, err := unfitTiles(conn, t.blob)
		t.good = err == nil && len(unfit) == 0
		return err
	}
	groups, err := runGroups(conn, t.blob, t.first)
	if err != nil {
		return err
	}
	good, err := checker.check(conn, t.blob, t.first, groups)
	t.good, t.bytes = err == nil && good == groups && checker.spare == 0, checker.bytes
	return err
}
