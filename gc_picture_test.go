package cairn_test

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// groupChildren is how many children one group of a sequence names.
const groupChildren = bao.GroupSize / 32

// A gcItem is a content that the model may store.
type gcItem struct {
	data     []byte
	hash     cairn.Hash
	seed     *seed
	children []cairn.Hash // of a sequence
	seq      bool
}

func (i *gcItem) content(f cairn.Format) cairn.HashAndFormat {
	return cairn.HashAndFormat{Hash: i.hash, Format: f}
}

func (i *gcItem) all() bao.Ranges { return bao.Chunks(0, bao.ChunkCount(int64(len(i.data)))) }

// sequence returns the content of a hash sequence.
func sequence(children ...cairn.Hash) (data []byte) {
	for _, h := range children {
		data = append(data, h[:]...)
	}
	return data
}

// fillers returns n hashes of content that is nowhere.
func fillers(seed uint64, n int) (list []cairn.Hash) {
	for i := range n {
		var h cairn.Hash
		binary.BigEndian.PutUint64(h[:], (seed*0x9e3779b97f4a7c15+uint64(i))*0xbf58476d1ce4e5b9)
		binary.BigEndian.PutUint64(h[8:], seed)
		binary.BigEndian.PutUint64(h[16:], uint64(i))
		list = append(list, h)
	}
	return list
}

// A gcBlob is a blob that is there.
type gcBlob struct {
	*gcItem
	present bao.Ranges // whole groups
	added   bool       // in its own right
	owners  map[string]bool
	// unsure: nobody has it any more, nor added it. The store may have dropped it.
	unsure bool
}

func (b *gcBlob) complete() bool { return b.present.Equal(b.all()) }

func (b *gcBlob) state() cairn.State {
	if b.complete() {
		return cairn.Complete
	}
	return cairn.Partial
}

func (b *gcBlob) stored() (n int64) { return storedBytes(b.gcItem, b.present) }

func storedBytes(i *gcItem, present bao.Ranges) (n int64) {
	for bounds := present.Bounds(); len(bounds) > 0; bounds = bounds[2:] {
		n += min(int64(bounds[1])*bao.ChunkSize, int64(len(i.data))) - int64(bounds[0])*bao.ChunkSize
	}
	return n
}

// there returns the children that what is there of a sequence names.
func (b *gcBlob) there() (list []cairn.Hash) {
	for bounds := b.present.Bounds(); len(bounds) > 0; bounds = bounds[2:] {
		from := min(int(bounds[0])*bao.ChunkSize/32, len(b.children))
		to := min(int(bounds[1])*bao.ChunkSize/32, len(b.children))
		list = append(list, b.children[from:to]...)
	}
	return list
}

// A gcTag is a tag; expires is zero for never.
type gcTag struct {
	cairn.HashAndFormat
	expires time.Time
}

func (t gcTag) expired() bool { return !t.expires.IsZero() && t.expires.Before(time.Now()) }

// A gcHold is what memory protects: a temp tag, a reader or a pin.
type gcHold struct {
	what     string
	contents []cairn.HashAndFormat
	keys     []string
	release  func()
}

// A gcPicture is what a store must look like.
type gcPicture struct {
	blobs    map[cairn.Hash]*gcBlob
	keys     map[string]cairn.Hash // of complete pieces
	tags     map[string]gcTag
	holds    []*gcHold
	capacity int64
}

func newGCPicture() gcPicture {
	return gcPicture{
		blobs:    make(map[cairn.Hash]*gcBlob),
		keys:     make(map[string]cairn.Hash),
		tags:     make(map[string]gcTag),
		capacity: cairn.Unlimited,
	}
}

// protect adds what a tag or a temp tag of the content keeps.
func (p *gcPicture) protect(kept map[cairn.Hash]bool, content cairn.HashAndFormat) {
	kept[content.Hash] = true
	if b := p.blobs[content.Hash]; b != nil && content.Format == cairn.HashSeq {
		for _, h := range b.there() {
			kept[h] = true
		}
	}
}

// kept returns the hashes that are protected from everything. Without expired,
// those tags count as gone.
func (p *gcPicture) kept(expired bool) map[cairn.Hash]bool {
	kept := make(map[cairn.Hash]bool)
	for _, tag := range p.tags {
		if expired || !tag.expired() {
			p.protect(kept, tag.HashAndFormat)
		}
	}
	for _, hold := range p.holds {
		for _, content := range hold.contents {
			p.protect(kept, content)
		}
		for _, key := range hold.keys {
			if h, ok := p.keys[key]; ok {
				kept[h] = true
			}
		}
	}
	return kept
}

// claimed reports whether a piece or an owner has a blob.
func (p *gcPicture) claimed(b *gcBlob) bool {
	return len(b.owners) > 0 || slices.Contains(slices.Collect(maps.Values(p.keys)), b.hash)
}

// garbage returns what a collection sweeps.
func (p *gcPicture) garbage(also ...cairn.HashAndFormat) (list []*gcBlob) {
	kept := p.kept(false)
	for _, content := range also {
		p.protect(kept, content)
	}
	for _, b := range p.blobs {
		if !kept[b.hash] && !p.claimed(b) {
			list = append(list, b)
		}
	}
	return list
}

// used returns the bytes that are stored, or only those that cannot be evicted.
func (p *gcPicture) used(protected bool) (n int64) {
	kept := p.kept(true)
	for h, b := range p.blobs {
		if !protected || kept[h] {
			n += b.stored()
		}
	}
	return n
}

// room returns the error of a write after which the blob of an item has these
// groups.
func (p *gcPicture) room(i *gcItem, present bao.Ranges) error {
	if p.capacity == cairn.Unlimited {
		return nil
	}
	need, kept := storedBytes(i, present), p.kept(true)
	for h, b := range p.blobs {
		if kept[h] && h != i.hash {
			need += b.stored()
		}
	}
	if need > p.capacity {
		return cairn.ErrFull
	}
	return nil
}

func (p *gcPicture) admits(i *gcItem) error {
	if p.capacity != cairn.Unlimited && int64(len(i.data)) > p.capacity {
		return cairn.ErrTooLarge
	}
	return nil
}

// get returns the blob of an item, and makes it.
func (p *gcPicture) get(i *gcItem, added bool) *gcBlob {
	b := p.blobs[i.hash]
	if b == nil {
		b = &gcBlob{gcItem: i, owners: make(map[string]bool)}
		p.blobs[i.hash] = b
	}
	b.added = b.added || added
	return b
}

// remove drops a blob with its keys.
func (p *gcPicture) remove(h cairn.Hash) {
	delete(p.blobs, h)
	maps.DeleteFunc(p.keys, func(_ string, of cairn.Hash) bool { return of == h })
}

func (p *gcPicture) names(prefix string) (names []string) {
	for name := range p.tags {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
