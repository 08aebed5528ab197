package cairn

import (
	"slices"
	"sync"

	"github.com/cairnstore/cairn/bao"
)

// cvLimit is the most CVs that are kept of pieces which are being written, 32
// bytes each: those of 2 GiB. Of others the data is read again on completion.
const cvLimit = 1 << 17

// pieceStates are what memory knows of the pieces that are being written. The
// zero pieceStates is ready. All its methods may be called concurrently.
type pieceStates struct {
	mu    sync.Mutex
	byKey map[string]*pieceState
	cvs   int // that all of them together have room for
}

// A pieceState is what memory knows of one piece. One that nobody uses may be
// forgotten: that costs time only.
type pieceState struct {
	all  *pieceStates
	key  string
	refs int // of those who use it; guarded by all.mu
	room int // for CVs; guarded by all.mu

	mu    sync.Mutex // may be held when all.mu is taken
	joint *joint     // takes further writes, if not nil
	// revision changes with every write, when it is made and when it is
	// committed. So who sees the same one before looking at what is committed,
	// and later from inside a transaction, knows that nothing has changed.
	revision int64
	blob     int64    // that the CVs are of
	cvs      []bao.CV // of the blob's groups, none if there was no room
	known    []uint64 // a bit for each
}

// use returns the state of a key, for as long as until done is called with it.
func (p *pieceStates) use(key string) *pieceState {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.byKey[key]
	if state == nil {
		if p.byKey == nil {
			p.byKey = make(map[string]*pieceState)
		}
		state = &pieceState{all: p, key: key}
		p.byKey[key] = state
	}
	state.refs++
	return state
}

func (p *pieceStates) done(state *pieceState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state.refs--
	if state.refs == 0 && state.room == 0 {
		delete(p.byKey, state.key)
	}
}

// reserve changes how many CVs a state has room for, if need be in place of some
// that nobody uses. It reports whether it could.
func (p *pieceStates) reserve(state *pieceState, groups int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cvs -= state.room
	state.room = 0
	if groups > cvLimit/4 {
		return false
	}
	for key, other := range p.byKey {
		if p.cvs+groups <= cvLimit {
			break
		}
		if other.refs == 0 {
			p.cvs -= other.room
			delete(p.byKey, key)
		}
	}
	if p.cvs+groups > cvLimit {
		return false
	}
	p.cvs += groups
	state.room = groups
	return true
}

// seal ends the time in which writes may join, and reports whether it has not
// ended before.
func (st *pieceState) seal(j *joint) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if j.sealed {
		return false
	}
	j.sealed = true
	if st.joint == j {
		st.joint = nil
	}
	return true
}

// changed tells that a transaction writes to the piece, which has the given blob
// and size.
func (st *pieceState) changed(blob, size int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.revision++
	groups := int(bao.Groups(size))
	if st.blob == blob && len(st.known) == (groups+63)/64 {
		return
	}
	st.blob, st.cvs, st.known = blob, nil, nil
	if st.all.reserve(st, groups) {
		st.cvs, st.known = make([]bao.CV, groups), make([]uint64, (groups+63)/64)
	}
}

// committed tells that patches, in the order of their groups, are committed.
func (st *pieceState) committed(patches []patch) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.revision++
	if st.cvs == nil {
		return
	}
	for i, p := range patches {
		if i+1 < len(patches) && patches[i+1].group == p.group {
			continue // another one has written over it
		}
		bit := uint64(1) << (p.group % 64)
		st.known[p.group/64] &^= bit
		if p.cv != nil {
			st.known[p.group/64] |= bit
			st.cvs[p.group] = *p.cv
		}
	}
}

// completed forgets the CVs.
func (st *pieceState) completed() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.blob, st.cvs, st.known = 0, nil, nil
	st.all.reserve(st, 0)
}

// A pieceCVs is what is known of a piece's groups at one revision.
type pieceCVs struct {
	revision int64
	blob     int64
	cvs      []bao.CV
	known    []uint64
}

func (st *pieceState) snapshot() pieceCVs {
	st.mu.Lock()
	defer st.mu.Unlock()
	return pieceCVs{st.revision, st.blob, slices.Clone(st.cvs), slices.Clone(st.known)}
}

// at returns the CV of a group of a blob, if it is known.
func (c *pieceCVs) at(blob, group int64) (bao.CV, bool) {
	if c.blob != blob || c.cvs == nil || c.known[group/64]>>(group%64)&1 == 0 {
		return bao.CV{}, false
	}
	return c.cvs[group], true
}

// isAt reports whether the piece still has the revision.
func (st *pieceState) isAt(revision int64) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.revision == revision
}
