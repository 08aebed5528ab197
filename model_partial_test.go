package cairn_test

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// A partialModel is what a store must have of a partial blob.
type partialModel struct {
	data    []byte
	seed    *seed
	present bao.Ranges
	proven  bool
}

// importPart imports some ranges, perhaps of a response that is cut off.
func (m *model) importPart() {
	p := m.partial()
	hash := hashOf(p.data)
	chunks := bao.ChunkCount(int64(len(p.data)))
	ranges := bao.Ranges{}
	for range 1 + m.rnd.IntN(3) {
		start := m.rnd.Uint64N(chunks + 3)
		ranges = ranges.Union(bao.Chunks(start, start+1+m.rnd.Uint64N(chunks/2+17)))
	}
	response, _ := p.seed.response(m.t, ranges)
	cut := len(response)
	if m.rnd.IntN(3) == 0 {
		cut = m.rnd.IntN(cut)
	}
	err := m.s.ImportBao(m.t.Context(), hash, ranges, bytes.NewReader(response[:cut]))
	if cut == len(response) && err != nil || cut < len(response) && !errors.Is(err, io.ErrUnexpectedEOF) {
		m.t.Errorf("import of %d of %d bytes: %v", cut, len(response), err)
	}
	if _, complete := m.blobs[hash]; complete {
		return
	}
	p.verify(ranges, response[:cut])
	switch all := bao.Chunks(0, chunks); {
	case p.present.Equal(all):
		delete(m.partials, hash)
		m.blobs[hash] = p.data
	case !p.present.IsEmpty() || p.proven:
		m.partials[hash] = p
	}
}

// partial returns one of the partial blobs or a new one, which may be of
// content that is there.
func (m *model) partial() *partialModel {
	if len(m.partials) > 0 && m.rnd.IntN(4) > 0 {
		hashes := make([]cairn.Hash, 0, len(m.partials))
		for h := range m.partials {
			hashes = append(hashes, h)
		}
		slices.SortFunc(hashes, func(a, b cairn.Hash) int { return bytes.Compare(a[:], b[:]) })
		return m.partials[hashes[m.rnd.IntN(len(hashes))]]
	}
	data := content(m.rnd.Uint64()%20, max(0, m.size()))
	if p := m.partials[hashOf(data)]; p != nil {
		return p
	}
	return &partialModel{data: data, seed: newSeed(m.t, data)}
}

// verify notes which whole groups a response brings.
func (p *partialModel) verify(ranges bao.Ranges, response []byte) {
	d := bao.NewDecoder(bytes.NewReader(response), p.seed.root, ranges)
	for {
		part, err := d.Next()
		p.proven = p.proven || d.SizeProven()
		if err != nil {
			return
		}
		group := bao.Chunks(part.Start, part.End)
		whole := group.Groups().Intersect(bao.Chunks(0, bao.ChunkCount(int64(len(p.data)))))
		if part.Pair == nil && group.Equal(whole) {
			p.present = p.present.Union(group)
		}
	}
}

// readPart compares a partial blob with its model.
func (m *model) readPart() {
	p := m.partial()
	hash := hashOf(p.data)
	if _, known := m.partials[hash]; !known {
		return
	}
	got, err := m.s.Ranges(m.t.Context(), hash)
	if err != nil || !got.Equal(p.present) {
		m.t.Errorf("ranges %v, %v; want %v", got, err, p.present)
	}
	st, err := m.s.Status(m.t.Context(), hash)
	if err != nil || st.State != cairn.Partial || st.SizeProven != p.proven {
		m.t.Errorf("%+v, %v", st, err)
	}
	b, err := m.s.Blob(m.t.Context(), hash)
	if err != nil {
		m.t.Fatal(err)
	}
	defer b.Close()
	off := m.rnd.IntN(len(p.data))
	buf := make([]byte, 1+m.rnd.IntN(len(p.data)-off))
	n, err := b.ReadAt(buf, int64(off))
	if !bytes.Equal(buf[:n], p.data[off:off+n]) {
		m.t.Errorf("wrong bytes at %d", off)
	}
	want := bao.Bytes(uint64(off), uint64(off+len(buf)))
	var missing *cairn.MissingError
	if errors.As(err, &missing) {
		if rest := bao.Bytes(uint64(off+n), uint64(off+len(buf))); !missing.Ranges.Equal(rest.Minus(p.present)) || missing.Ranges.IsEmpty() {
			m.t.Errorf("read %v of %v: %v", want, p.present, err)
		}
	} else if err != nil || !want.Minus(p.present).IsEmpty() {
		m.t.Errorf("read %v of %v: %v", want, p.present, err)
	}
}
