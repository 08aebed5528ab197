package cairn_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
)

// A pieceOp is an operation of a child. Each of its goroutines makes one at a
// time, and says so before and after.
type pieceOp struct {
	what     string // write, complete, drop
	key      string
	seed     uint64
	size     int
	from, to int
}

const crashWriters = 4

// piecesForever writes pieces from several goroutines, each for an owner of its
// own, completes some of them, and deletes the owner now and then.
func piecesForever(ctx context.Context, s *cairn.Store) error {
	fmt.Println("ready")
	var mu sync.Mutex
	errs := make(chan error)
	for g := range crashWriters {
		say := func(text string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Println(text)
		}
		do := func(op pieceOp, run func() error) {
			say(fmt.Sprintf("+ %d %s %s %d %d %d %d .", g, op.what, op.key, op.seed, op.size, op.from, op.to))
			if err := run(); err != nil {
				errs <- fmt.Errorf("%+v: %w", op, err)
				select {}
			}
			say(fmt.Sprintf("- %d .", g))
		}
		go func() {
			for rand.IntN(8) > 0 {
				makePieces(ctx, s, g, do)
			}
			for {
				makePieces(ctx, s, g, do)
				do(pieceOp{what: "drop", key: "-"}, func() error { return s.Owner(fmt.Sprint(g)).Delete(ctx) })
			}
		}()
	}
	return <-errs
}

// makePieces makes a few pieces of an owner, some complete and some not.
func makePieces(ctx context.Context, s *cairn.Store, g int, do func(op pieceOp, run func() error)) {
	for range 1 + rand.IntN(5) {
		op := pieceOp{key: fmt.Sprintf("%d/%x", g, rand.Uint64()), seed: rand.Uint64() & 0xffffff, size: 1 + crashSize()%600_000}
		b := content(op.seed, op.size)
		p, err := s.Piece(ctx, op.key, int64(op.size), &cairn.PieceOptions{Owner: fmt.Sprint(g), Durability: cairn.Durability(rand.IntN(2))})
		if err != nil {
			panic(err)
		}
		block := 1 + rand.IntN(100_000)
		blocks := (op.size + block - 1) / block
		order := rand.Perm(blocks)[:min(blocks, 20)]
		for _, i := range order {
			op.what, op.from, op.to = "write", i*block, min(op.size, (i+1)*block)
			do(op, func() error {
				_, err := p.WriteAt(b[op.from:op.to], int64(op.from))
				return err
			})
		}
		if len(order) == blocks && rand.IntN(2) == 0 {
			op.what, op.from, op.to = "complete", 0, 0
			do(op, func() error {
				_, err := p.Complete(ctx)
				return err
			})
		}
	}
}

// A crashPiece is what a piece must be.
type crashPiece struct {
	seed     uint64
	size     int
	written  []cairn.ByteRange
	complete bool
}

// A crashPicture is what the acknowledged operations come to.
type crashPicture map[string]*crashPiece

func (c crashPicture) apply(g int, op pieceOp) {
	p := c[op.key]
	switch op.what {
	case "write":
		if p == nil {
			p = &crashPiece{seed: op.seed, size: op.size}
			c[op.key] = p
		}
		p.written = addRange(slices.Clone(p.written), cairn.ByteRange{Start: int64(op.from), End: int64(op.to)})
	case "complete":
		p.complete = true
	case "drop":
		for key := range c {
			if strings.HasPrefix(key, fmt.Sprint(g, "/")) {
				delete(c, key)
			}
		}
	}
}

// of returns what a goroutine has made.
func (c crashPicture) of(g int) crashPicture {
	part := make(crashPicture)
	for key, p := range c {
		if strings.HasPrefix(key, fmt.Sprint(g, "/")) {
			copied := *p
			part[key] = &copied
		}
	}
	return part
}

// describe returns a text that two pictures have in common if they are equal.
func (c crashPicture) describe() string {
	var lines []string
	for key, p := range c {
		written := p.written
		if p.complete {
			written = []cairn.ByteRange{{Start: 0, End: int64(p.size)}}
		}
		lines = append(lines, fmt.Sprint(key, " ", p.size, " ", p.complete, " ", written))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestKillPieces kills a process while it writes and completes pieces and deletes
// owners, again and again on one database. Exactly what was acknowledged is there
// afterwards, and of each goroutine's last operation all or nothing.
func TestKillPieces(t *testing.T) {
	path := tempPath(t)
	picture := make(crashPicture)
	for round := range *kills {
		c := startChild(t, "pieces", path)
		timer := time.AfterFunc(time.Duration(rand.IntN(400))*time.Millisecond, func() { c.cmd.Process.Kill() })
		pending := make(map[int]pieceOp)
		for c.stdout.Scan() {
			var sign, end string
			var g int
			var op pieceOp
			text := c.stdout.Text()
			if n, _ := fmt.Sscan(text, &sign, &g, &end); n == 3 && sign == "-" && end == "." {
				picture.apply(g, pending[g])
				delete(pending, g)
			} else if n, _ := fmt.Sscan(text, &sign, &g, &op.what, &op.key, &op.seed, &op.size, &op.from, &op.to, &end); n == 9 && end == "." {
				pending[g] = op
			}
		}
		timer.Stop()
		c.kill(t)
		picture = mustBeAcknowledged(t, path, picture, pending)
		if t.Failed() {
			t.Fatalf("kill %d", round)
		}
	}
}

// mustBeAcknowledged compares a database with what was acknowledged, and returns
// what is there.
func mustBeAcknowledged(t *testing.T, path string, picture crashPicture, pending map[int]pieceOp) crashPicture {
	t.Helper()
	s := must(cairn.Open(t.Context(), path, nil))
	defer s.Close()
	mustBeSound(t, s)
	got := make(crashPicture)
	for info, err := range s.Pieces(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		p := must(s.OpenPiece(t.Context(), info.Key))
		got[info.Key] = &crashPiece{size: int(info.Size), complete: info.State == cairn.Complete, written: must(p.Written(t.Context()))}
	}
	for g := range crashWriters {
		without, with := picture.of(g), picture.of(g)
		if op, ok := pending[g]; ok {
			with.apply(g, op)
		}
		now := got.of(g)
		switch now.describe() {
		case with.describe():
			without = with
		case without.describe():
		default:
			t.Errorf("there is\n%s\nacknowledged was\n%s\nand then came %+v", now.describe(), without.describe(), pending[g])
			continue
		}
		for key, p := range without {
			got[key] = p
			mustHaveWritten(t, s, key, content(p.seed, p.size), now[key].written)
		}
	}
	return got
}

const evictCapacity = 2_000_000

// evicted returns the content of a piece of evictForever.
func evicted(i int) []byte { return content(uint64(i), 20_000+i*7919%80_000) }

// evictForever writes one piece after the other under a capacity.
func evictForever(ctx context.Context, s *cairn.Store) error {
	if err := s.SetCapacity(ctx, evictCapacity); err != nil {
		return err
	}
	next := 0
	for info, err := range s.Pieces(ctx, nil) {
		if err != nil {
			return err
		}
		i, err := strconv.Atoi(info.Key)
		if err != nil {
			return err
		}
		if next = i; info.State == cairn.Complete {
			next++
		}
	}
	fmt.Println("ready")
	for i := next; ; i++ {
		b := evicted(i)
		p, err := s.Piece(ctx, fmt.Sprintf("%08d", i), int64(len(b)), &cairn.PieceOptions{Durability: cairn.Durability(i % 2)})
		if err != nil {
			return err
		}
		for from := 0; from < len(b); from += 30_000 {
			if _, err := p.WriteAt(b[from:min(len(b), from+30_000)], int64(from)); err != nil {
				return err
			}
		}
		if _, err := p.Complete(ctx); err != nil {
			return err
		}
		fmt.Println("made", i, ".")
	}
}

// TestKillEvict kills a process while it evicts. What is there afterwards are the
// last pieces, as many of them as there is room for.
func TestKillEvict(t *testing.T) {
	path := tempPath(t)
	last := -1 // that was acknowledged
	for round := range *kills {
		c := startChild(t, "evict", path)
		timer := time.AfterFunc(time.Duration(50+rand.IntN(300))*time.Millisecond, func() { c.cmd.Process.Kill() })
		for c.stdout.Scan() {
			var i int
			var end string
			if n, _ := fmt.Sscan(c.stdout.Text(), new(string), &i, &end); n == 3 && end == "." {
				last = i
			}
		}
		timer.Stop()
		c.kill(t)
		last = mustBeLast(t, path, last)
		if t.Failed() {
			t.Fatalf("kill %d", round)
		}
	}
}

// mustBeLast makes sure that of the pieces of evictForever the last ones are
// there, as many as there is room for. It returns the number of the last that is
// complete.
func mustBeLast(t *testing.T, path string, last int) int {
	t.Helper()
	s := must(cairn.Open(t.Context(), path, nil))
	defer s.Close()
	mustBeSound(t, s)
	var there []int
	lastComplete := last
	sum := int64(0)
	for info, err := range s.Pieces(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		i := must(strconv.Atoi(info.Key))
		there = append(there, i)
		sum += info.Stored
		if info.State == cairn.Complete {
			lastComplete = i
		}
		b := evicted(i)
		if i <= last && info.State != cairn.Complete {
			t.Errorf("piece %d is not complete, of %d", i, last)
		}
		p := must(s.OpenPiece(t.Context(), info.Key))
		mustHaveWritten(t, s, info.Key, b, must(p.Written(t.Context())))
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Used != sum || u.Used > evictCapacity {
		t.Errorf("%+v, %v, want %d", u, err, sum)
	}
	if len(there) == 0 {
		if last >= 0 {
			t.Errorf("nothing is there, of %d pieces", last+1)
		}
		return last
	}
	for i, n := range there {
		if n != there[0]+i {
			t.Errorf("piece %d is missing: %v", there[0]+i, there)
		}
	}
	if end := there[len(there)-1]; end != last && end != last+1 {
		t.Errorf("piece %d is the last one, %d was acknowledged", end, last)
	}
	if before := there[0] - 1; before >= 0 && sum+int64(len(evicted(before))) <= evictCapacity {
		t.Errorf("piece %d is gone, though there is room: %d", before, sum)
	}
	return lastComplete
}
