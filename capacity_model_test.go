package cairn_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/cairnstore/cairn"
)

// TestCapacityModel runs the model of pieces with a capacity and quotas.
func TestCapacityModel(t *testing.T) {
	modelRounds(t, "TestCapacityModel", func(m *pieceModel) {
		size := []int{1_000, 30_000, 200_000}[m.rnd.IntN(3)]
		m.contents = modelContents(m.rnd, len(modelKeys), func() int { return 1 + m.rnd.IntN(size) })
		m.limited = true
		// What an owner loses of what others have too, and somebody holds, depends
		// on more than this model knows: two of the three at a time.
		left := m.rnd.IntN(3)
		m.holds, m.quotas, m.shared = left != 0, left != 1, left != 2
		m.setRecursion(m.rnd.IntN(2) == 0)
		ops := []func(){m.write, m.write, m.fill, m.fill, m.fill, m.complete, m.completeBlocks, m.incomplete,
			m.read, m.read, m.readBlob, m.evictFirst, m.deletePiece, m.movePieces, m.putPiece, m.putPiece, m.setCapacity, m.reopen}
		if m.shared {
			ops = append(ops, m.add, m.add, m.deleteBlob, m.importSome, m.importSome, m.addBlob, m.removeBlob)
		}
		if m.holds {
			ops = append(ops, m.hold, m.hold, m.release)
		}
		if m.quotas {
			ops = append(ops, m.setQuota, m.setQuota, m.deleteOwner)
		}
		m.run(150, ops)
	})
}

// setRecursion has triggers call themselves or not. The schema must not depend
// on it.
func (m *pieceModel) setRecursion(on bool) {
	if err := m.s.OutsideTransaction(m.t.Context(), fmt.Sprintf("pragma recursive_triggers = %t", on)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *pieceModel) setCapacity() {
	capacity := cairn.Unlimited
	if m.rnd.IntN(8) > 0 {
		capacity = m.used()*m.rnd.Int64N(200)/100 + m.rnd.Int64N(3)
	}
	m.do(fmt.Sprintf("capacity %d", capacity), func(p *picture) error {
		p.capacity = capacity
		return p.evictAll()
	}, func() error { return m.s.SetCapacity(m.t.Context(), capacity) })
}

func (m *pieceModel) setQuota() {
	owner, quota := []string{"o", "p", "q"}[m.rnd.IntN(3)], cairn.Unlimited
	if m.rnd.IntN(4) > 0 {
		quota = (m.ownerBytes(owner)+m.used()/4)*m.rnd.Int64N(150)/100 + m.rnd.Int64N(3)
	}
	m.do(fmt.Sprintf("quota of %q %d", owner, quota), func(p *picture) error {
		o := p.makeOwner(owner)
		o.quota = quota
		return p.evictOwner(o)
	}, func() error { return m.s.Owner(owner).SetQuota(m.t.Context(), quota) })
}

// A modelHold protects something until it is released.
type modelHold struct {
	keys    []string
	hashes  []cairn.Hash
	release func()
}

// hold protects some keys or a hash.
func (m *pieceModel) hold() {
	if !m.holds {
		return
	}
	h := &modelHold{}
	key, hash := m.key(), hashOf(m.contents[m.rnd.IntN(len(m.contents))])
	ctx := m.t.Context()
	switch m.rnd.IntN(4) {
	case 0:
		h.keys, h.hashes = []string{key, m.key()}, []cairn.Hash{hash}
		pin, err := m.s.Pin(ctx, cairn.Window{Keys: h.keys, Hashes: h.hashes})
		if err != nil {
			m.t.Fatal(err)
		}
		h.release = pin.Release
	case 1:
		if m.keys[key] == nil {
			return
		}
		r, err := must(m.s.OpenPiece(ctx, key)).Open(ctx)
		if err != nil {
			m.t.Fatal(err)
		}
		h.keys, h.release = []string{key}, func() { r.Close() }
		if b := m.keys[key].blob; b.state == cairn.Complete {
			h.hashes = []cairn.Hash{b.hash}
		}
	case 2:
		if m.byHash(hash) == nil {
			return
		}
		b, err := m.s.Blob(ctx, hash)
		if err != nil {
			m.t.Fatal(err)
		}
		h.hashes, h.release = []cairn.Hash{hash}, func() { b.Close() }
	default:
		h.hashes = []cairn.Hash{hash}
		h.release = m.s.TempTag(cairn.HashAndFormat{Hash: hash}).Release
	}
	m.picture.count(h, 1)
	m.open = append(m.open, h)
	m.log = append(m.log, fmt.Sprintf("hold %q %v", h.keys, h.hashes))
}

func (p *picture) count(h *modelHold, by int) {
	for _, key := range h.keys {
		p.heldKeys[key] += by
	}
	for _, hash := range h.hashes {
		p.heldHashes[hash] += by
	}
}

// letGo ends a hold. What nobody has any more goes with the last one.
func (p *picture) letGo(h *modelHold) {
	p.count(h, -1)
	for _, hash := range h.hashes {
		if b := p.byHash(hash); b != nil {
			p.loosen(b)
		}
	}
}

func (m *pieceModel) release() {
	if len(m.open) == 0 {
		return
	}
	i := m.rnd.IntN(len(m.open))
	h := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	if m.t.Failed() {
		h.release()
		return
	}
	m.do(fmt.Sprintf("release %q %v", h.keys, h.hashes), func(p *picture) error {
		p.letGo(h)
		return nil
	}, func() error {
		h.release()
		return nil
	})
}

func (m *pieceModel) releaseAll() {
	for len(m.open) > 0 {
		m.release()
	}
}

// events follows the store until stop is called.
func (m *pieceModel) events() (list func(iter.Seq[cairn.Event]) []cairn.Event, stop func() iter.Seq[cairn.Event]) {
	ctx, cancel := context.WithCancel(m.t.Context())
	seq := m.s.Events(ctx)
	return slices.Collect[cairn.Event], func() iter.Seq[cairn.Event] { cancel(); return seq }
}

// compareEvents makes sure that exactly what is gone was told of, each once.
func (m *pieceModel) compareEvents(what string, events []cairn.Event, gone []string) {
	var got []string
	for _, e := range events {
		for _, key := range e.Keys {
			got = append(got, e.Reason.String()+" "+key)
		}
		// Where only keys are gone, the hash tells of what.
		if hash := e.Hash.String(); e.Hash != (cairn.Hash{}) && (len(e.Keys) == 0 || slices.Contains(gone, hash)) {
			got = append(got, hash)
		}
	}
	want := slices.Clone(gone)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Errorf("%s: events %q, want %q", what, got, want)
	}
}

// compareAll compares the whole store with the picture.
func (m *pieceModel) compareAll() {
	ctx := m.t.Context()
	n := 0
	for info, err := range m.s.Pieces(ctx, nil) {
		if err != nil {
			m.t.Fatal(err)
		}
		n++
		k := m.keys[info.Key]
		if k == nil || info.Owner != k.owner || info.Size != int64(k.blob.size) || info.State != k.blob.state ||
			info.Hash != k.blob.hash || info.Stored != k.blob.stored() {
			m.t.Errorf("listed %+v, want %+v", info, k)
			continue
		}
		m.comparePiece(info.Key, k.blob)
	}
	if n != len(m.keys) {
		m.t.Errorf("%d pieces, want %d", n, len(m.keys))
	}
	n = 0
	for usage, err := range m.s.Owners(ctx) {
		want := m.ownerUsage(usage.Name)
		if n++; err != nil || usage != want {
			m.t.Errorf("%+v, %v, want %+v", usage, err, want)
		}
	}
	if n != len(m.owners) {
		m.t.Errorf("%d owners, want %d", n, len(m.owners))
	}
	m.compareBlobs()
}

func (m *pieceModel) ownerUsage(name string) cairn.OwnerUsage {
	o := m.picture.owner(name)
	if o == nil {
		return cairn.OwnerUsage{}
	}
	u := cairn.OwnerUsage{Name: name, Bytes: m.ownerBytes(name), Quota: o.quota}
	for _, k := range m.keys {
		if k.owner == name {
			u.Pieces++
		}
	}
	return u
}

func (m *pieceModel) comparePiece(key string, b *modelBlob) {
	p := must(m.s.OpenPiece(m.t.Context(), key))
	want := b.written
	if b.state == cairn.Complete && b.size > 0 {
		want = []cairn.ByteRange{{Start: 0, End: int64(b.size)}}
	}
	if got, err := p.Written(m.t.Context()); err != nil || !slices.Equal(got, want) {
		m.t.Errorf("piece %q: written %v, %v, want %v", key, got, err, want)
		return
	}
	if m.rnd.IntN(3) > 0 {
		return
	}
	for _, r := range want {
		m.compareRead(key, p, b, make([]byte, r.End-r.Start), int(r.Start))
	}
}

func (m *pieceModel) compareBlobs() {
	n, want := 0, 0
	for info, err := range m.s.Blobs(m.t.Context(), nil) {
		b := m.byHash(info.Hash)
		if n++; err != nil || b == nil || info.State != b.state || info.Stored != b.stored() || info.Size != int64(b.size) {
			m.t.Errorf("listed %+v, %v, want %+v", info, err, b)
			continue
		}
		if b.state == cairn.Complete && m.rnd.IntN(3) == 0 {
			if got, err := read(m.t.Context(), m.s, info.Hash); err != nil || !bytes.Equal(got, b.data) {
				m.t.Errorf("blob %v: %d bytes, %v", info.Hash, len(got), err)
			}
			b.used = m.tick()
		}
	}
	for _, b := range m.blobs {
		if b.hash != (cairn.Hash{}) {
			want++
		}
	}
	if n != want {
		m.t.Errorf("%d blobs, want %d", n, want)
	}
}

// addRange adds a range to some that ascend and do not touch.
func addRange(list []cairn.ByteRange, r cairn.ByteRange) (sum []cairn.ByteRange) {
	for _, other := range list {
		if other.End < r.Start || other.Start > r.End {
			sum = append(sum, other)
		} else {
			r.Start, r.End = min(r.Start, other.Start), max(r.End, other.End)
		}
	}
	sum = append(sum, r)
	slices.SortFunc(sum, func(x, y cairn.ByteRange) int { return int(x.Start - y.Start) })
	return sum
}

// gapsOf returns what is in none of the ranges.
func gapsOf(list []cairn.ByteRange, size int) (gaps []cairn.ByteRange) {
	from := int64(0)
	for _, r := range list {
		if r.Start > from {
			gaps = append(gaps, cairn.ByteRange{Start: from, End: r.Start})
		}
		from = r.End
	}
	if from < int64(size) {
		gaps = append(gaps, cairn.ByteRange{Start: from, End: int64(size)})
	}
	return gaps
}
