package cairn_test

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// A picture is what a store must look like, with what it evicts by. Its methods
// make a change, or return the error that the store must; the picture is spoilt
// then.
type picture struct {
	blobs    []*modelBlob // in the order of their ids
	keys     map[string]*modelKey
	owners   []*modelOwner // in the order of their ids
	capacity int64
	clock    int64

	heldKeys   map[string]int
	heldHashes map[cairn.Hash]int
	gone       []string // what the change has taken away: "reason key", or a hash
	removed    bool     // it took away a blob, perhaps only with the next transaction
}

// A modelBlob is a blob or the bytes of a piece.
type modelBlob struct {
	hash    cairn.Hash // zero of what has none
	data    []byte     // never changed in place
	size    int
	state   cairn.State
	written []cairn.ByteRange // of a partial one
	added   bool
	empty   bool // superseded
	direct  map[string]bool
	used    int64
}

type modelKey struct {
	blob  *modelBlob
	owner string
}

type modelOwner struct {
	name  string
	quota int64
}

func newPicture() *picture {
	return &picture{keys: make(map[string]*modelKey), capacity: cairn.Unlimited,
		heldKeys: make(map[string]int), heldHashes: make(map[cairn.Hash]int)}
}

func (p *picture) clone() *picture {
	c := *p
	copies := make(map[*modelBlob]*modelBlob)
	c.blobs = nil
	for _, b := range p.blobs {
		copied := *b
		copied.direct = maps.Clone(b.direct)
		copies[b] = &copied
		c.blobs = append(c.blobs, &copied)
	}
	c.keys = make(map[string]*modelKey)
	for name, k := range p.keys {
		c.keys[name] = &modelKey{copies[k.blob], k.owner}
	}
	c.owners = nil
	for _, o := range p.owners {
		copied := *o
		c.owners = append(c.owners, &copied)
	}
	c.heldKeys, c.heldHashes = maps.Clone(p.heldKeys), maps.Clone(p.heldHashes)
	return &c
}

func (p *picture) tick() int64 { p.clock++; return p.clock }

// stored is what a blob counts for. The row of a group ends with the last byte
// that is written in it.
func (b *modelBlob) stored() (sum int64) {
	if b.empty {
		return 0
	}
	if b.state == cairn.Complete {
		return int64(b.size)
	}
	last := int64(-1) // the group that sum has been counted in
	var counted int64
	for _, r := range b.written {
		for start := r.Start; start < r.End; {
			group := start / bao.GroupSize
			end := min(r.End, (group+1)*bao.GroupSize)
			if group == last {
				sum -= counted
			}
			last, counted = group, end-group*bao.GroupSize
			sum += counted
			start = end
		}
	}
	return sum
}

// gaps are the bytes that are not there.
func (b *modelBlob) gaps() []cairn.ByteRange {
	if b.state == cairn.Complete {
		return nil
	}
	return gapsOf(b.written, b.size)
}

func (p *picture) used() (sum int64) {
	for _, b := range p.blobs {
		sum += b.stored()
	}
	return sum
}

func (p *picture) admits(size int) error {
	if p.capacity != cairn.Unlimited && int64(size) > p.capacity {
		return cairn.ErrTooLarge
	}
	return nil
}

func (p *picture) byHash(hash cairn.Hash) *modelBlob {
	for _, b := range p.blobs {
		if b.hash == hash && hash != (cairn.Hash{}) {
			return b
		}
	}
	return nil
}

func (p *picture) keysOf(b *modelBlob) (names []string) {
	for name, k := range p.keys {
		if k.blob == b {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (p *picture) withPrefix(prefix string) (names []string) {
	for name := range p.keys {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

func (p *picture) protected(b *modelBlob) bool {
	return b.hash != (cairn.Hash{}) && p.heldHashes[b.hash] > 0 ||
		slices.ContainsFunc(p.keysOf(b), func(name string) bool { return p.heldKeys[name] > 0 })
}

func (p *picture) owner(name string) *modelOwner {
	i := slices.IndexFunc(p.owners, func(o *modelOwner) bool { return o.name == name })
	if i < 0 {
		return nil
	}
	return p.owners[i]
}

func (p *picture) makeOwner(name string) *modelOwner {
	o := p.owner(name)
	if o == nil {
		o = &modelOwner{name, cairn.Unlimited}
		p.owners = append(p.owners, o)
	}
	return o
}

func (p *picture) owns(owner string, b *modelBlob) bool {
	return b.direct[owner] || slices.ContainsFunc(p.keysOf(b), func(name string) bool { return p.keys[name].owner == owner })
}

func (p *picture) ownerBytes(owner string) (sum int64) {
	for _, b := range p.blobs {
		if p.owns(owner, b) {
			sum += b.stored()
		}
	}
	return sum
}

// oldest returns what goes first of what may.
func (p *picture) oldest(may func(b *modelBlob) bool) *modelBlob {
	var first *modelBlob
	for _, b := range p.blobs {
		if !p.protected(b) && may(b) && (first == nil || b.used < first.used) {
			first = b
		}
	}
	return first
}

// evict keeps the quotas of those who have a blob that has grown, and the
// capacity.
func (p *picture) evict(grown *modelBlob) error {
	for _, o := range p.owners {
		if p.owns(o.name, grown) {
			if err := p.evictOwner(o); err != nil {
				return err
			}
		}
	}
	return p.evictAll()
}

func (p *picture) evictAll() error {
	for p.capacity != cairn.Unlimited && p.used() > p.capacity {
		b := p.oldest(func(b *modelBlob) bool { return b.stored() > 0 })
		if b == nil {
			return cairn.ErrFull
		}
		for _, name := range p.keysOf(b) {
			delete(p.keys, name)
			p.gone = append(p.gone, "evicted "+name)
		}
		p.remove(b)
	}
	return nil
}

func (p *picture) evictOwner(o *modelOwner) error {
	for o.quota != cairn.Unlimited && p.ownerBytes(o.name) > o.quota {
		b := p.oldest(func(b *modelBlob) bool { return b.stored() > 0 && p.owns(o.name, b) })
		if b == nil {
			return cairn.ErrFull
		}
		for _, name := range p.keysOf(b) {
			if p.keys[name].owner == o.name {
				delete(p.keys, name)
				p.gone = append(p.gone, "over quota "+name)
			}
		}
		delete(b.direct, o.name)
		p.loosen(b)
	}
	return nil
}

// loosen removes a blob that came as a piece, if nobody has it any more, nor
// holds it.
func (p *picture) loosen(b *modelBlob) {
	if !b.added && len(b.direct) == 0 && len(p.keysOf(b)) == 0 && !p.protected(b) && slices.Contains(p.blobs, b) {
		p.remove(b)
	}
}

func (p *picture) remove(b *modelBlob) {
	p.blobs = slices.DeleteFunc(p.blobs, func(other *modelBlob) bool { return other == b })
	p.removed = true
	if b.hash != (cairn.Hash{}) {
		p.gone = append(p.gone, b.hash.String())
	}
}

func (p *picture) insert(b *modelBlob) *modelBlob {
	b.used, b.direct = p.tick(), make(map[string]bool)
	p.blobs = append(p.blobs, b)
	return b
}

func (p *picture) survived(b *modelBlob) error {
	if !slices.Contains(p.blobs, b) {
		return cairn.ErrFull
	}
	return nil
}

func (p *picture) write(key, owner string, size, from int, data []byte) error {
	if err := p.admits(size); err != nil || len(data) == 0 {
		return err
	}
	k := p.keys[key]
	if k == nil {
		if err := p.ownerAdmits(owner, size); err != nil {
			return err
		}
		k = &modelKey{p.insert(&modelBlob{state: cairn.Partial, size: size, data: make([]byte, size)}), owner}
		p.keys[key] = k
	}
	if k.blob.size != size {
		return cairn.ErrMismatch
	}
	if k.blob.state == cairn.Complete {
		if err := p.takeBack(k); err != nil {
			return err
		}
	}
	b := k.blob
	b.data = bytes.Clone(b.data)
	copy(b.data[from:], data)
	b.written = addRange(b.written, cairn.ByteRange{Start: int64(from), End: int64(from + len(data))})
	b.used = p.tick()
	if err := p.evict(b); err != nil {
		return err
	}
	return p.survived(b)
}

func (p *picture) ownerAdmits(owner string, size int) error {
	if owner == "" {
		return nil
	}
	if o := p.makeOwner(owner); o.quota != cairn.Unlimited && int64(size) > o.quota {
		return cairn.ErrTooLarge
	}
	return nil
}

// takeBack makes a complete piece one that is being written.
func (p *picture) takeBack(k *modelKey) error {
	b := k.blob
	whole := []cairn.ByteRange{{Start: 0, End: int64(b.size)}}
	if b.size == 0 {
		whole = nil
	}
	if b.added || len(b.direct) > 0 || len(p.keysOf(b)) > 1 || p.heldHashes[b.hash] > 0 {
		k.blob = p.insert(&modelBlob{state: cairn.Partial, size: b.size, data: b.data, written: whole})
		return p.evict(k.blob)
	}
	b.hash, b.state, b.written = cairn.Hash{}, cairn.Partial, whole
	return nil
}

func (p *picture) complete(key string) (cairn.Hash, error) {
	k := p.keys[key]
	switch {
	case k == nil:
		return cairn.Hash{}, cairn.ErrNotFound
	case k.blob.state == cairn.Complete:
		return k.blob.hash, nil
	case len(k.blob.gaps()) > 0:
		return cairn.Hash{}, cairn.ErrMissing
	}
	b, hash := k.blob, hashOf(k.blob.data)
	other := p.byHash(hash)
	if other != nil && other.state == cairn.Complete {
		k.blob = other
		other.used = p.tick()
		p.loosen(b)
		return hash, nil
	}
	if other != nil {
		other.hash, other.empty = cairn.Hash{}, true
	}
	b.hash, b.state, b.written, b.used = hash, cairn.Complete, nil, p.tick()
	if other != nil {
		return hash, p.supersede(other, b)
	}
	return hash, nil
}

// supersede gives a blob what a partial one of the same content had.
func (p *picture) supersede(old, b *modelBlob) error {
	b.added = b.added || old.added
	for _, o := range p.owners {
		if old.direct[o.name] {
			b.direct[o.name] = true
			if err := p.evictOwner(o); err != nil {
				return err
			}
		}
	}
	p.blobs = slices.DeleteFunc(p.blobs, func(other *modelBlob) bool { return other == old })
	return nil
}

func (p *picture) incomplete(key string) error {
	k := p.keys[key]
	if k == nil || k.blob.state != cairn.Complete {
		return nil
	}
	if err := p.takeBack(k); err != nil {
		return err
	}
	return p.survived(k.blob)
}

func (p *picture) removeKeys(names []string) error {
	var blobs []*modelBlob
	for _, name := range names {
		if p.heldKeys[name] > 0 {
			return cairn.ErrConflict
		}
		blobs = append(blobs, p.keys[name].blob)
		delete(p.keys, name)
		p.gone = append(p.gone, "deleted "+name)
	}
	for _, b := range blobs {
		p.loosen(b)
	}
	return nil
}

func (p *picture) move(from, to string) (int, error) {
	names := p.withPrefix(from)
	if from == to {
		return 0, nil
	}
	moved := make(map[string]*modelKey)
	for _, name := range names {
		if p.heldKeys[name] > 0 {
			return 0, cairn.ErrConflict
		}
		moved[to+name[len(from):]] = p.keys[name]
		delete(p.keys, name)
	}
	var replaced []*modelBlob
	for name, k := range moved {
		if old := p.keys[name]; old != nil {
			if p.heldKeys[name] > 0 {
				return 0, cairn.ErrConflict
			}
			p.gone = append(p.gone, "deleted "+name)
			replaced = append(replaced, old.blob)
		}
		p.keys[name] = k
	}
	for _, b := range replaced {
		p.loosen(b)
	}
	return len(names), nil
}

// put stores a blob; then is what makes it a piece, nil for one of its own right.
func (p *picture) put(data []byte, then func(b *modelBlob) error) error {
	if err := p.admits(len(data)); err != nil {
		return err
	}
	hash := hashOf(data)
	if then == nil {
		p.heldHashes[hash]++
		defer func() { p.heldHashes[hash]-- }()
		then = func(*modelBlob) error { return nil }
		defer func() {
			if b := p.byHash(hash); b != nil {
				b.added = true
			}
		}()
	}
	old := p.byHash(hash)
	if old != nil && old.state == cairn.Complete {
		old.used = p.tick()
		return then(old)
	}
	if old != nil {
		old.hash, old.empty = cairn.Hash{}, true
	}
	b := p.insert(&modelBlob{hash: hash, state: cairn.Complete, size: len(data), data: data})
	if err := p.evict(b); err != nil {
		return err
	}
	if old != nil {
		if err := p.supersede(old, b); err != nil {
			return err
		}
	}
	if err := then(b); err != nil {
		return err
	}
	return p.survived(b)
}

func (p *picture) putKey(key, owner string, b *modelBlob) error {
	k := p.keys[key]
	if k != nil && k.blob == b {
		return nil
	}
	var old *modelBlob
	if k != nil {
		old = k.blob
		k.blob, owner = b, k.owner
	} else if err := p.ownerAdmits(owner, b.size); err != nil {
		return err
	} else {
		p.keys[key] = &modelKey{b, owner}
	}
	if o := p.owner(owner); o != nil {
		if err := p.evictOwner(o); err != nil {
			return err
		}
	}
	if now := p.keys[key]; now == nil || now.blob != b {
		return cairn.ErrFull
	}
	if old != nil {
		p.loosen(old)
	}
	return nil
}

func (p *picture) importRanges(hash cairn.Hash, data []byte, ranges bao.Ranges) error {
	b := p.byHash(hash)
	if b != nil && b.state == cairn.Complete {
		return nil
	}
	if err := p.admits(len(data)); err != nil {
		return err
	}
	p.heldHashes[hash]++
	defer func() { p.heldHashes[hash]-- }()
	if b == nil {
		b = p.insert(&modelBlob{hash: hash, state: cairn.Partial, size: len(data), data: data, added: true})
	}
	before := b.stored()
	for bounds := ranges.Bounds(); len(bounds) > 0; bounds = bounds[2:] {
		b.written = addRange(b.written, cairn.ByteRange{
			Start: int64(bounds[0]) * bao.ChunkSize,
			End:   min(int64(bounds[1])*bao.ChunkSize, int64(len(data))),
		})
	}
	if b.stored() == before {
		return nil // nothing new
	}
	b.used = p.tick()
	if len(gapsOf(b.written, b.size)) == 0 {
		b.state, b.written = cairn.Complete, nil
	}
	if err := p.evict(b); err != nil {
		return err
	}
	return p.survived(b)
}
