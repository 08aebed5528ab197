package cairn

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
)

// A TempTag protects content from eviction, deletion and sweeping for as long as
// this process wants it to; that of a [HashSeq] protects also the blobs that the
// sequence names. It ends with Release, or that of its [Batch], and with the
// process; not when it is forgotten, which [Options.Logger] is told of. Its
// methods may be called concurrently.
type TempTag struct {
	content HashAndFormat
	tag     string  // that was set with the add
	rest    []int64 // hidden blobs to be discarded because of that
	release func()
}

// TempTag protects content that is, or will be, in the store. It waits while
// a deletion of the same content is being committed. With a [HashSeq] it returns when
// what is there of the sequence has been read, and its children are known. If that
// cannot be, because it is damaged or the disk is full, [Store.GC] ends with an error
// as long as the temp tag is held. In a read-only store nothing is read.
func (s *Store) TempTag(content HashAndFormat) *TempTag {
	t, _ := s.hold(context.Background(), content) // cannot fail
	if content.Format == HashSeq {
		s.holdChildren(s.background, content.Hash) // who needs to know it meets it again
	}
	return t
}

// hold returns a temp tag. The children of a sequence are only held in memory.
func (s *Store) hold(ctx context.Context, content HashAndFormat) (*TempTag, error) {
	held := []subject{{hash: content.Hash}}
	if content.Format == HashSeq {
		held = append(held, subject{hash: content.Hash, children: true})
	}
	if err := s.guard.holdAll(ctx, held); err != nil {
		return nil, err
	}
	release := sync.OnceFunc(func() { s.guard.releaseAll(held) })
	t := &TempTag{content: content, release: release}
	if s.log.Enabled(ctx, slog.LevelWarn) {
		t.watch(s.log)
	}
	return t, nil
}

// watch has it logged if the temp tag is forgotten.
func (t *TempTag) watch(log *slog.Logger) {
	made := make([]uintptr, 12)
	made = made[:runtime.Callers(3, made)]
	hash, release := t.content.Hash, t.release
	forgotten := runtime.AddCleanup(t, func(made []uintptr) {
		log.Warn("cairn: a temp tag was forgotten, and not released", "hash", hash, "made", madeAt(made))
	}, made)
	t.release = func() {
		forgotten.Stop()
		release()
	}
}

// madeAt returns the file and line outside this package that a call came from.
func madeAt(pcs []uintptr) string {
	frames := runtime.CallersFrames(pcs)
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "github.com/cairnstore/cairn.") || !more {
			return fmt.Sprintf("%s:%d", f.File, f.Line)
		}
	}
}

// Hash returns the protected hash.
func (t *TempTag) Hash() Hash { return t.content.Hash }

// HashAndFormat returns what is protected.
func (t *TempTag) HashAndFormat() HashAndFormat { return t.content }

// Tag returns the name of the tag that was set with the add, see
// [AddOptions.Tag]; empty if none was.
func (t *TempTag) Tag() string { return t.tag }

// Release ends the protection. Further calls do nothing.
func (t *TempTag) Release() {
	t.release()
	runtime.KeepAlive(t) // until here it is not forgotten
}

// A Batch is a scope of temp tags: what is added or protected by its methods,
// which are those of the [Store], stays protected until Close. They may be called
// concurrently.
type Batch struct {
	s    *Store
	mu   sync.Mutex // guards tags
	tags []*TempTag
}

// Batch begins a scope.
func (s *Store) Batch() *Batch { return &Batch{s: s} }

// Add is [Store.Add] in the scope.
func (b *Batch) Add(ctx context.Context, r io.Reader, opts *AddOptions) (*TempTag, error) {
	return b.keep(b.s.Add(ctx, r, opts))
}

// AddBytes is [Store.AddBytes] in the scope.
func (b *Batch) AddBytes(ctx context.Context, content []byte, opts *AddOptions) (*TempTag, error) {
	return b.keep(b.s.AddBytes(ctx, content, opts))
}

// AddFile is [Store.AddFile] in the scope.
func (b *Batch) AddFile(ctx context.Context, path string, opts *AddOptions) (*TempTag, error) {
	return b.keep(b.s.AddFile(ctx, path, opts))
}

// TempTag is [Store.TempTag] in the scope.
func (b *Batch) TempTag(content HashAndFormat) *TempTag {
	t, _ := b.keep(b.s.TempTag(content), nil)
	return t
}

func (b *Batch) keep(t *TempTag, err error) (*TempTag, error) {
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tags = append(b.tags, t)
	return t, nil
}

// Close ends the scope: it releases all temp tags that have not been released.
// The batch can be used again.
func (b *Batch) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.tags {
		t.Release()
	}
	b.tags = nil
}
