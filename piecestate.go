package cairn

import (
	"slices"
	"sync"

	"github.com/cairnstore/cairn/bao"
)

// cvLimit is the most CVs that are kept of pieces which are being written, 32
// bytes each: those of 2 GiB. Of others the data is read again on completion.
const cvLimit = 1 << 17

// pieceStates are what memory knows of the bytes of pieces that are being
// written, by the blob they are kept under, whatever key names that now. The zero
// pieceStates is ready. All its methods may be called concurrently.
type pieceStates struct {
	mu     sync.Mutex
	byBlob map[int64]*pieceState
	cvs    int // that all of them together have room for
	// written are the blobs that the open transaction has written to, and tx is
	// the keeper's mark of it. Nobody outside has seen what it wrote.
	tx      chan struct{}
	written map[int64]struct{}
}

// A pieceState is what memory knows of one blob. One that nobody uses may be
// forgotten: that costs time only. The lock of all guards its fields.
type pieceState struct {
	refs int // of those who use it
	// revision changes with every write, when it is made and when it is
	// committed. So who sees the same one before looking at what is committed,
	// and later from inside a transaction, knows that nothing has changed.
	revision int64
	cvs      []bao.CV // of the blob's groups, none if there was no room
	known    []uint64 // a bit for each
}

// state returns a blob's state. The caller holds the lock.
func (p *pieceStates) state(blob int64) *pieceState {
	st := p.byBlob[blob]
	if st == nil {
		if p.byBlob == nil {
			p.byBlob = make(map[int64]*pieceState)
		}
		st = new(pieceState)
		p.byBlob[blob] = st
	}
	return st
}

// changed tells that a transaction, by the keeper's mark of it, writes to a blob.
func (p *pieceStates) changed(blob, size int64, in chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.state(blob)
	st.revision++
	if p.tx != in {
		p.tx, p.written = in, make(map[int64]struct{})
	}
	p.written[blob] = struct{}{}
	groups := int(min(bao.Groups(size), cvLimit))
	if len(st.known) == (groups+63)/64 {
		return
	}
	p.cvs -= len(st.cvs)
	st.cvs, st.known = nil, nil
	if p.reserve(groups) {
		st.cvs, st.known = make([]bao.CV, groups), make([]uint64, (groups+63)/64)
	}
	p.tidy(blob, st)
}

// reserve takes room for some CVs, if need be that of a state which nobody uses.
// The caller holds the lock.
func (p *pieceStates) reserve(groups int) bool {
	if groups > cvLimit/4 {
		return false
	}
	for blob, other := range p.byBlob {
		if p.cvs+groups <= cvLimit {
			break
		}
		if other.refs == 0 {
			p.cvs -= len(other.cvs)
			delete(p.byBlob, blob)
		}
	}
	if p.cvs+groups > cvLimit {
		return false
	}
	p.cvs += groups
	return true
}

// tidy forgets a state that knows nothing and that nobody uses. The caller holds
// the lock.
func (p *pieceStates) tidy(blob int64, st *pieceState) {
	if st.refs == 0 && len(st.cvs) == 0 {
		delete(p.byBlob, blob)
	}
}

// committed tells that patches of a blob, in the order of their groups, are
// committed.
func (p *pieceStates) committed(blob int64, patches []patch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.byBlob[blob]
	if st == nil {
		return
	}
	st.revision++
	if st.cvs == nil {
		return
	}
	for i, c := range patches {
		if i+1 < len(patches) && patches[i+1].group == c.group || c.group >= int64(len(st.cvs)) {
			continue // another one has written over it
		}
		bit := uint64(1) << (c.group % 64)
		st.known[c.group/64] &^= bit
		if c.cv != nil {
			st.known[c.group/64] |= bit
			st.cvs[c.group] = *c.cv
		}
	}
}

// forget tells that a blob is no piece being written any more, or will be
// another one.
func (p *pieceStates) forget(blob int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.byBlob[blob]; st != nil {
		st.revision++
		p.cvs -= len(st.cvs)
		st.cvs, st.known = nil, nil
		p.tidy(blob, st)
	}
}

// A pieceCVs is what is known of a blob's groups at one revision.
type pieceCVs struct {
	revision int64
	cvs      []bao.CV
	known    []uint64
}

// use returns what is known of a blob. Until done is called, its revisions are
// told apart.
func (p *pieceStates) use(blob int64) pieceCVs {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.state(blob)
	st.refs++
	return pieceCVs{st.revision, slices.Clone(st.cvs), slices.Clone(st.known)}
}

func (p *pieceStates) done(blob int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.byBlob[blob]
	st.refs--
	p.tidy(blob, st)
}

// at returns the CV of a group, if it is known.
func (c *pieceCVs) at(group int64) (bao.CV, bool) {
	if c.cvs == nil || c.known[group/64]>>(group%64)&1 == 0 {
		return bao.CV{}, false
	}
	return c.cvs[group], true
}

// isAt reports whether a blob in use still has a revision, and is not written to
// in the transaction that asks.
func (p *pieceStates) isAt(blob, revision int64, in chan struct{}) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, written := p.written[blob]
	return p.byBlob[blob].revision == revision && !(written && p.tx == in)
}

// joints are the requests that further writes to a piece may join, by its key.
// The zero joints are none.
type joints struct {
	mu    sync.Mutex
	byKey map[string]*joint
}
