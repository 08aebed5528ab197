package cairn_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A pieceModel runs random operations on a store and on a picture of it, which
// says what must come of each: the outcome, the bytes, who has what, and, where
// there are limits, what is evicted.
type pieceModel struct {
	t   *testing.T
	rnd *rand.Rand

	path     string
	s        *cairn.Store
	contents [][]byte // those of 2n and 2n+1 have the same size
	seeds    []*seed
	*picture

	holds   bool // pins, readers and temp tags
	quotas  bool
	shared  bool // different keys have the same content
	limited bool
	open    []*modelHold
	log     []string
}

// TestPieceModel runs the model without limits.
func TestPieceModel(t *testing.T) {
	modelRounds(t, "TestPieceModel", func(m *pieceModel) {
		m.contents = modelContents(m.rnd, 8, func() int {
			switch m.rnd.IntN(4) {
			case 0:
				return 1 + m.rnd.IntN(100)
			case 1:
				return m.rnd.IntN(3 << 20)
			default:
				return 16384*m.rnd.IntN(20) + m.rnd.IntN(3)
			}
		})
		m.shared, m.holds = true, m.rnd.IntN(2) == 0
		m.run(100, []func(){m.write, m.write, m.write, m.fill, m.fill, m.complete, m.completeBlocks, m.incomplete,
			m.read, m.read, m.readBlob, m.deletePiece, m.deletePieces, m.movePieces, m.putPiece, m.putPiece, m.putBroken, m.add, m.deleteBlob,
			m.importSome, m.importSome, m.addBlob, m.removeBlob, m.deleteOwner, m.hold, m.hold, m.release, m.reopen})
	})
}

// modelRounds runs a model with the seeds of the flags.
func modelRounds(t *testing.T, name string, run func(m *pieceModel)) {
	number := *modelSeed
	if number == 0 {
		number = rand.Uint64()
	}
	for i := range uint64(*modelRuns) {
		if !t.Run(fmt.Sprint(number+i), func(t *testing.T) {
			m := &pieceModel{t: t, rnd: rand.New(rand.NewPCG(number+i, 1)), path: ":memory:", picture: newPicture()}
			if m.rnd.IntN(3) > 0 {
				m.path = tempPath(t)
			}
			m.s = open(t, m.path, nil)
			run(m)
		}) {
			t.Fatalf("repeat with -run %s -seed %d -runs 1", name, number+i)
		}
	}
}

// modelContents returns n pairs of contents of the same size, and the empty one.
func modelContents(rnd *rand.Rand, n int, size func() int) (list [][]byte) {
	for range n {
		size := max(1, size())
		list = append(list, content(rnd.Uint64(), size), content(rnd.Uint64(), size))
	}
	return list
}

// run makes a number of operations.
func (m *pieceModel) run(n int, ops []func()) {
	defer func() {
		m.releaseAll()
		if m.t.Failed() {
			m.t.Logf("the last operations:\n%s", strings.Join(m.log[max(0, len(m.log)-30):], "\n"))
		}
	}()
	if testing.Short() {
		n /= 2
	}
	for _, b := range m.contents {
		m.seeds = append(m.seeds, newSeed(m.t, b))
	}
	for i := range n {
		ops[m.rnd.IntN(len(ops))]()
		if i%8 == 0 || i == n-1 {
			mustBeSound(m.t, m.s)
			m.compareAll()
		}
		if m.t.Failed() {
			return
		}
	}
}

// do makes one change: on a copy of the picture, which holds if there is no
// error, and on the store. Both must come to the same, and so must the events.
func (m *pieceModel) do(what string, predict func(p *picture) error, change func() error) {
	m.t.Helper()
	next := m.picture.clone()
	want := predict(next)
	if want == nil {
		m.picture = next
	}
	events, stop := m.events()
	err := change()
	if want == nil && next.removed {
		m.settle()
	}
	happened := stop()
	m.log = append(m.log, fmt.Sprintf("%s: %v", what, err))
	if errors.Is(want, cairn.ErrFull) && errors.Is(err, cairn.ErrTooLarge) && strings.HasPrefix(what, "put") {
		want = cairn.ErrTooLarge // there is no room for the blob, and it is above the owner's quota too
	}
	if (err == nil) != (want == nil) || want != nil && !errors.Is(err, want) {
		m.t.Errorf("%s: got error %v, want %v", what, err, want)
		return
	}
	m.compareEvents(what, events(happened), m.picture.gone)
	m.picture.gone, m.picture.removed = nil, false
	if u, err := m.s.Usage(m.t.Context()); err != nil || u.Used != m.used() {
		m.t.Errorf("%s: %+v, %v, want %d used", what, u, err, m.used())
	}
}

// settle runs a transaction that changes nothing: the next one after a change
// takes away what was only pinned.
func (m *pieceModel) settle() {
	if err := m.s.OnWriter(m.t.Context(), func(*sqlite.Conn) error { return nil }); err != nil {
		m.t.Fatal(err)
	}
}

var modelKeys = []string{"a", "a/", "a/a/1", "a/1", "a/2", "b/1", "b/2", "b/a/1", "bb/1", "c", "\xff", "\xff\x00"}

func (m *pieceModel) key() string      { return modelKeys[m.rnd.IntN(len(modelKeys))] }
func (m *pieceModel) anyOwner() string { return []string{"", "", "o", "p", "q"}[m.rnd.IntN(5)] }

// handle returns a handle on a piece, and the contents that it may get.
func (m *pieceModel) handle() (key, owner string, p *cairn.Piece, pair int) {
	key, owner, pair = m.key(), m.anyOwner(), m.rnd.IntN(len(m.contents)/2)
	if m.shared && m.limited && m.heldKeys[key] > 0 {
		return key, owner, nil, pair // the pin may still be one of what the key named before
	}
	if !m.shared {
		pair = slices.Index(modelKeys, key) % (len(m.contents) / 2)
	}
	if k := m.keys[key]; k != nil && m.rnd.IntN(10) > 0 {
		pair = m.pairOf(k.blob.size, pair)
	}
	size := len(m.contents[2*pair])
	p, err := m.s.Piece(m.t.Context(), key, int64(size), &cairn.PieceOptions{Owner: owner, Durability: cairn.Durability(m.rnd.IntN(2))})
	want := m.admits(size)
	if k := m.keys[key]; want == nil && k != nil && k.blob.size != size {
		want = cairn.ErrMismatch
	}
	if (err == nil) != (want == nil) || want != nil && !errors.Is(err, want) {
		m.t.Fatalf("piece %q of %d bytes: %v, want %v", key, size, err, want)
	}
	return key, owner, p, pair
}

// pairOf returns the contents of a size.
func (m *pieceModel) pairOf(size, otherwise int) int {
	for i := 0; i < len(m.contents); i += 2 {
		if len(m.contents[i]) == size {
			return i / 2
		}
	}
	return otherwise
}

func (m *pieceModel) write() {
	key, owner, p, pair := m.handle()
	if p == nil {
		return
	}
	b := m.contents[2*pair+m.rnd.IntN(8)/7]
	from := m.rnd.IntN(len(b))
	to := from + m.rnd.IntN(len(b)-from+1)
	switch m.rnd.IntN(6) {
	case 0:
		from, to = from&^16383, (to+16383)&^16383
	case 1:
		to = min(from+1, len(b))
	case 2:
		to = min(to, from+40_000)
	case 3:
		from, to = 0, len(b)
	}
	m.writeRange(key, owner, p, b, from, min(to, len(b)))
}

func (m *pieceModel) writeRange(key, owner string, p *cairn.Piece, b []byte, from, to int) {
	m.do(fmt.Sprintf("write %q of %d (%q) %d..%d", key, len(b), owner, from, to), func(p *picture) error {
		return p.write(key, owner, len(b), from, b[from:to])
	}, func() error {
		if m.rnd.IntN(3) == 0 {
			return p.WriteBlocks(m.inBlocks(b, from, to)...)
		}
		n, err := p.WriteAt(b[from:to], int64(from))
		if err == nil && n != to-from || err != nil && n != 0 {
			m.t.Errorf("%d bytes, %v", n, err)
		}
		return err
	})
}

// inBlocks returns a range of b as blocks in any order, sometimes after others that
// they write over.
func (m *pieceModel) inBlocks(b []byte, from, to int) (blocks []cairn.Block) {
	for off := from; off < to; {
		n := 1 + m.rnd.IntN(to-off)
		blocks = append(blocks, cairn.Block{Off: int64(off), Data: b[off : off+n]})
		off += n
	}
	m.rnd.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	if m.rnd.IntN(2) == 0 {
		wrong := make([]byte, to-from)
		blocks = append([]cairn.Block{{Off: int64(from), Data: wrong}, {Off: int64(to)}}, blocks...)
	}
	return blocks
}

// fill writes what is missing of a piece, so that it gets one of its contents.
func (m *pieceModel) fill() {
	key, owner, p, pair := m.handle()
	if p == nil {
		return
	}
	b := m.contents[2*pair]
	left := []cairn.ByteRange{{Start: 0, End: int64(len(b))}}
	if k := m.keys[key]; k != nil && !bytes.Equal(k.blob.data, b) && m.rnd.IntN(2) == 0 {
		left = gapsOf(k.blob.written, len(b))
	}
	for _, r := range left {
		m.writeRange(key, owner, p, b, int(r.Start), int(r.End))
		if m.t.Failed() {
			return
		}
	}
}

func (m *pieceModel) complete() {
	key, owner, p, pair := m.handle()
	if p == nil {
		return
	}
	var want cairn.Hash
	m.do(fmt.Sprintf("complete %q of %d (%q)", key, len(m.contents[2*pair]), owner), func(p *picture) (err error) {
		want, err = p.complete(key)
		return err
	}, func() error {
		hash, err := p.Complete(m.t.Context())
		if err == nil && hash != want {
			m.t.Errorf("completed %q as %v, want %v", key, hash, want)
		}
		var unwritten *cairn.UnwrittenError
		if k := m.keys[key]; errors.As(err, &unwritten) && fmt.Sprint(unwritten.Ranges) != fmt.Sprint(gapsOf(k.blob.written, k.blob.size)) {
			m.t.Errorf("%v, want %v", err, gapsOf(k.blob.written, k.blob.size))
		}
		return err
	})
}

// completeBlocks completes a piece with all or what is missing of a content, in
// whole groups or not.
func (m *pieceModel) completeBlocks() {
	key, owner, p, pair := m.handle()
	if p == nil {
		return
	}
	b := m.contents[2*pair]
	if old := m.byHash(hashOf(b)); m.limited && old != nil && old.state == cairn.Complete {
		return // it is read before the blocks are written, not after: another order of use
	}
	left := []cairn.ByteRange{{Start: 0, End: int64(len(b))}}
	if k := m.keys[key]; k != nil && m.rnd.IntN(2) == 0 {
		left = gapsOf(k.blob.written, len(b))
	}
	whole := m.rnd.IntN(2) == 0
	var blocks []cairn.Block
	for _, r := range left {
		from, to := int(r.Start), int(r.End)
		if whole {
			from, to = from&^16383, min((to+16383)&^16383, len(b))
		}
		blocks = append(blocks, cairn.Block{Off: int64(from), Data: b[from:to]})
	}
	var want cairn.Hash
	m.do(fmt.Sprintf("complete %q of %d (%q) with %v", key, len(b), owner, left), func(p *picture) (err error) {
		for _, block := range blocks {
			if err := p.write(key, owner, len(b), int(block.Off), block.Data); err != nil {
				return err
			}
		}
		want, err = p.complete(key)
		return err
	}, func() error {
		hash, err := p.CompleteBlocks(m.t.Context(), blocks...)
		if err == nil && hash != want {
			m.t.Errorf("completed %q as %v, want %v", key, hash, want)
		}
		return err
	})
}

func (m *pieceModel) incomplete() {
	key, _, p, _ := m.handle()
	if p == nil {
		return
	}
	m.do(fmt.Sprintf("incomplete %q", key), func(p *picture) error { return p.incomplete(key) },
		func() error { return p.Incomplete(m.t.Context()) })
}

// read compares a part of a piece.
func (m *pieceModel) read() {
	key := m.key()
	k := m.keys[key]
	p, err := m.s.OpenPiece(m.t.Context(), key)
	if k == nil {
		mustBe(m.t, err, cairn.ErrNotFound)
		return
	}
	if err != nil {
		m.t.Error(err)
		return
	}
	from := m.rnd.IntN(k.blob.size + 1)
	buf := make([]byte, m.rnd.IntN(k.blob.size-from+10))
	m.compareRead(key, p, k.blob, buf, from)
	m.log = append(m.log, fmt.Sprintf("read %q", key))
}

// compareRead reads buf, and says which bytes must come and which error.
func (m *pieceModel) compareRead(key string, p io.ReaderAt, b *modelBlob, buf []byte, from int) {
	n, err := p.ReadAt(buf, int64(from))
	end := min(from+len(buf), b.size)
	for _, r := range b.gaps() {
		if int(r.End) > from {
			end = min(end, max(from, int(r.Start)))
			break
		}
	}
	ok := err == nil
	if n < len(buf) {
		ok = err == io.EOF
		if end < b.size {
			ok = errors.Is(err, cairn.ErrMissing)
		}
	}
	if n != end-from || !ok || !bytes.Equal(buf[:n], b.data[from:end]) {
		m.t.Errorf("read %q of %d at %d: %d of %d bytes, want %d; %v", key, b.size, from, n, len(buf), end-from, err)
	}
	if n == len(buf) || err == io.EOF { // nothing else is a use
		b.used = m.tick()
	} else if n >= 1<<20 {
		b.used = m.tick()
	}
}

// evictFirst makes a use of a complete piece one before all others.
func (m *pieceModel) evictFirst() {
	key, _, p, _ := m.handle()
	if p == nil {
		return
	}
	if err := p.EvictFirst(m.t.Context()); err != nil {
		m.t.Errorf("evict %q first: %v", key, err)
	}
	if k := m.keys[key]; k != nil && k.blob.state == cairn.Complete {
		k.blob.used = m.tick() - 1<<40
	}
	m.log = append(m.log, fmt.Sprintf("evict %q first", key))
}

func (m *pieceModel) readBlob() {
	i := m.rnd.IntN(len(m.contents))
	b := m.byHash(hashOf(m.contents[i]))
	got, err := read(m.t.Context(), m.s, hashOf(m.contents[i]))
	switch {
	case b == nil:
		mustBe(m.t, err, cairn.ErrNotFound)
	case b.state == cairn.Partial:
		if err != nil && !errors.Is(err, cairn.ErrMissing) || !bytes.HasPrefix(m.contents[i], got) {
			m.t.Errorf("partial blob: %d bytes, %v", len(got), err)
		}
		b.used = m.tick()
	case err != nil || !bytes.Equal(got, m.contents[i]):
		m.t.Errorf("blob: %d bytes, %v", len(got), err)
	default:
		b.used = m.tick()
	}
}

func (m *pieceModel) deletePiece() {
	key, _, p, _ := m.handle()
	if p == nil {
		return
	}
	m.do(fmt.Sprintf("delete %q", key), func(p *picture) error {
		if p.keys[key] == nil {
			return cairn.ErrNotFound
		}
		return p.removeKeys([]string{key})
	}, func() error { return p.Delete(m.t.Context()) })
}

func (m *pieceModel) prefix() string {
	return []string{"a", "a/", "a/a/", "b", "b/", "bb", "\xff"}[m.rnd.IntN(7)]
}

func (m *pieceModel) deletePieces() {
	prefix := m.prefix()
	var want []string
	m.do(fmt.Sprintf("delete pieces %q", prefix), func(p *picture) error {
		want = p.withPrefix(prefix)
		return p.removeKeys(want)
	}, func() error {
		n, err := m.s.DeletePieces(m.t.Context(), prefix)
		if err == nil && int(n) != len(want) {
			m.t.Errorf("deleted %d pieces, want %d", n, len(want))
		}
		return err
	})
}

func (m *pieceModel) movePieces() {
	from, to := m.prefix(), m.prefix()
	want := 0
	m.do(fmt.Sprintf("move %q to %q", from, to), func(p *picture) (err error) {
		want, err = p.move(from, to)
		return err
	}, func() error {
		n, err := m.s.MovePieces(m.t.Context(), from, to)
		if err == nil && int(n) != want {
			m.t.Errorf("moved %d pieces, want %d", n, want)
		}
		return err
	})
}

func (m *pieceModel) putPiece() {
	key, owner, p, pair := m.handle()
	if p == nil && (m.heldKeys[key] > 0 || m.rnd.IntN(2) == 0) {
		return
	}
	b := m.contents[2*pair+m.rnd.IntN(2)]
	if m.rnd.IntN(15) == 0 && m.shared {
		b = nil
	}
	size := int64(len(b))
	if m.rnd.IntN(2) == 0 {
		size = -1
	}
	m.do(fmt.Sprintf("put %q of %d (%q)", key, len(b), owner), func(p *picture) error {
		return p.put(b, func(blob *modelBlob) error {
			return p.putKey(key, owner, blob)
		})
	}, func() error {
		hash, err := m.s.PutPiece(m.t.Context(), key, bytes.NewReader(b), size, &cairn.PieceOptions{Owner: owner})
		if err == nil && hash != hashOf(b) {
			m.t.Errorf("put %v", hash)
		}
		return err
	})
}

// putBroken puts from a reader that has too little or too much.
func (m *pieceModel) putBroken() {
	b := m.contents[m.rnd.IntN(len(m.contents))]
	size, want := int64(len(b)-1), cairn.ErrMismatch
	if m.rnd.IntN(2) == 0 {
		size, want = int64(len(b)+1), io.ErrUnexpectedEOF
	}
	if m.limited {
		return
	}
	key := m.key()
	m.do(fmt.Sprintf("put %q broken", key), func(*picture) error { return want }, func() error {
		_, err := m.s.PutPiece(m.t.Context(), key, bytes.NewReader(b), size, nil)
		return err
	})
}

func (m *pieceModel) add() {
	b := m.contents[m.rnd.IntN(len(m.contents))]
	m.do(fmt.Sprintf("add %v of %d", hashOf(b), len(b)), func(p *picture) error { return p.put(b, nil) }, func() error {
		tag, err := m.s.AddBytes(m.t.Context(), b, nil)
		if err == nil {
			tag.Release()
		}
		return err
	})
}

func (m *pieceModel) deleteBlob() {
	hash := hashOf(m.contents[m.rnd.IntN(len(m.contents))])
	m.do(fmt.Sprintf("delete %v", hash), func(p *picture) error { return p.deleteBlob(hash) },
		func() error { return m.s.Delete(m.t.Context(), hash) })
}

func (m *pieceModel) importSome() {
	i := m.rnd.IntN(len(m.contents))
	chunks := bao.ChunkCount(int64(len(m.contents[i])))
	start := m.rnd.Uint64N(chunks)
	ranges := bao.Chunks(start, start+1+m.rnd.Uint64N(chunks-start+1)).Groups().Intersect(bao.Chunks(0, chunks))
	response, _ := m.seeds[i].response(m.t, ranges)
	hash := cairn.Hash(m.seeds[i].root)
	m.do(fmt.Sprintf("import %v of %v of %d", ranges, hash, len(m.contents[i])), func(p *picture) error {
		return p.importRanges(hash, m.contents[i], ranges)
	}, func() error { return m.s.ImportBao(m.t.Context(), hash, ranges, bytes.NewReader(response)) })
}

func (m *pieceModel) addBlob() {
	hash, owner := hashOf(m.contents[m.rnd.IntN(len(m.contents))]), []string{"o", "p", "q"}[m.rnd.IntN(3)]
	m.do(fmt.Sprintf("owner %q adds %v", owner, hash), func(p *picture) error { return p.addBlob(owner, hash) },
		func() error { return m.s.Owner(owner).AddBlob(m.t.Context(), hash) })
}

func (m *pieceModel) removeBlob() {
	hash, owner := hashOf(m.contents[m.rnd.IntN(len(m.contents))]), []string{"o", "p", "q"}[m.rnd.IntN(3)]
	m.do(fmt.Sprintf("owner %q removes %v", owner, hash), func(p *picture) error { return p.removeBlob(owner, hash) },
		func() error { return m.s.Owner(owner).RemoveBlob(m.t.Context(), hash) })
}

func (m *pieceModel) deleteOwner() {
	owner := []string{"o", "p", "q"}[m.rnd.IntN(3)]
	m.do(fmt.Sprintf("delete owner %q", owner), func(p *picture) error { return p.deleteOwner(owner) },
		func() error { return m.s.Owner(owner).Delete(m.t.Context()) })
}

func (m *pieceModel) reopen() {
	if m.path == ":memory:" {
		return
	}
	m.releaseAll()
	if err := m.s.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.s = open(m.t, m.path, nil)
	m.log = append(m.log, "reopened")
}
