package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// A gcModel runs random operations on a store and on a picture of it that says
// what is protected, by what, and what a collection leaves.
type gcModel struct {
	t   *testing.T
	rnd *rand.Rand
	gcPicture

	path    string
	s       *cairn.Store
	items   []*gcItem
	made    map[string]bool // owners
	limited bool
	log     []string
}

// TestGCModel runs the model.
func TestGCModel(t *testing.T) {
	number := *modelSeed
	if number == 0 {
		number = rand.Uint64()
	}
	for i := range uint64(*modelRuns) {
		if !t.Run(fmt.Sprint(number+i), func(t *testing.T) { runGCModel(t, number+i) }) {
			t.Fatalf("repeat with -run TestGCModel -seed %d -runs 1", number+i)
		}
	}
}

func runGCModel(t *testing.T, number uint64) {
	m := &gcModel{t: t, rnd: rand.New(rand.NewPCG(number, 4)), gcPicture: newGCPicture(), path: ":memory:", made: make(map[string]bool)}
	if m.rnd.IntN(3) > 0 {
		m.path = tempPath(t)
	}
	m.s = open(t, m.path, nil)
	m.limited = m.rnd.IntN(3) == 0
	m.makeItems()
	defer func() {
		m.releaseAll()
		if t.Failed() {
			t.Logf("the last operations:\n%s", strings.Join(m.log[max(0, len(m.log)-40):], "\n"))
		}
	}()
	ops := []func(){m.add, m.add, m.add, m.importSome, m.importSome, m.importSome, m.setTag, m.setTag, m.setTag, m.createTag,
		m.deleteTag, m.deleteTags, m.renameTag, m.otherProgram, m.tempTag, m.tempTag, m.reader, m.pin, m.release, m.release,
		m.batch, m.putPiece, m.deletePiece, m.addBlob, m.removeBlob, m.deleteOwner, m.delete, m.read, m.collect, m.collect, m.reopen}
	if m.limited {
		ops = append(ops, m.setCapacity, m.setCapacity)
	}
	for i := range 70 {
		ops[m.rnd.IntN(len(ops))]()
		m.resolve()
		if i%6 == 0 || i == 69 {
			m.compare()
		}
		if i == 35 || i == 69 { // it takes a while
			mustBeSound(t, m.s)
		}
		if t.Failed() {
			return
		}
	}
	m.end()
}

// end releases everything; what one collection leaves then is what is tagged or
// claimed.
func (m *gcModel) end() {
	m.releaseAll()
	m.resolve()
	m.collectWith(&cairn.GCOptions{}, nil)
	m.resolve()
	m.compare()
	for h, b := range m.blobs {
		if b.complete() {
			mustHave(m.t, m.s, b.data)
		}
		if b.unsure {
			m.t.Errorf("%v is still there", h)
		}
	}
}

// makeItems makes contents, and sequences of them and of other sequences.
func (m *gcModel) makeItems() {
	item := func(data []byte, children []cairn.Hash) *gcItem {
		i := &gcItem{data: data, hash: hashOf(data), seed: newSeed(m.t, data), children: children, seq: children != nil}
		m.items = append(m.items, i)
		return i
	}
	for range 8 {
		size := 1 + m.rnd.IntN(2000)
		switch m.rnd.IntN(20) {
		case 0:
			if !m.limited { // a large one needs room before it is known to be there
				size = cairn.SegmentSize + m.rnd.IntN(300_000)
			}
		case 1, 2, 3, 4:
			size = m.rnd.IntN(100_000)
		}
		item(content(m.rnd.Uint64(), size), nil)
	}
	for n := range 7 {
		count := 1 + m.rnd.IntN(5)
		switch m.rnd.IntN(12) {
		case 0, 1, 2:
			count = groupChildren*(1+m.rnd.IntN(4)) + m.rnd.IntN(3)
		case 3:
			count = 4200 + m.rnd.IntN(2000) // more than are indexed at once
			if m.rnd.IntN(6) == 0 && !m.limited {
				count = 32_768 + m.rnd.IntN(5000)
			}
		}
		children := fillers(m.rnd.Uint64(), count)
		for range 1 + m.rnd.IntN(8) { // some that may come, perhaps the same ones
			children[m.rnd.IntN(count)] = m.items[m.rnd.IntN(len(m.items))].hash
		}
		if n == 6 && m.rnd.IntN(3) == 0 {
			children = []cairn.Hash{}
		}
		data := sequence(children...)
		if !slices.ContainsFunc(m.items, func(i *gcItem) bool { return i.hash == hashOf(data) }) {
			item(data, children)
		}
	}
}

func (m *gcModel) item() *gcItem { return m.items[m.rnd.IntN(len(m.items))] }

// sure returns an item of which is known whether it is there.
func (m *gcModel) sure() *gcItem {
	for {
		i := m.item()
		if b := m.blobs[i.hash]; b == nil || !b.unsure {
			return i
		}
	}
}

// any returns a content of either format that it may have.
func (m *gcModel) any() cairn.HashAndFormat {
	i := m.item()
	if i.seq && m.rnd.IntN(3) > 0 {
		return i.content(cairn.HashSeq)
	}
	return i.content(cairn.Raw)
}

func (m *gcModel) has(h cairn.Hash) string {
	b := m.blobs[h]
	if b == nil {
		return "absent"
	}
	return b.state().String()
}

func (m *gcModel) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

// want compares an error with what it must be.
func (m *gcModel) want(err, want error, format string, args ...any) bool {
	m.t.Helper()
	what := fmt.Sprintf(format, args...)
	m.note("%s: %v", what, err)
	if (err == nil) != (want == nil) || want != nil && !errors.Is(err, want) {
		m.t.Errorf("%s: got error %v, want %v", what, err, want)
		return false
	}
	return err == nil
}

// short names a hash in the log.
func short(h cairn.Hash) string { return h.String()[:8] }

func (m *gcModel) name(content cairn.HashAndFormat) string {
	return fmt.Sprintf("%v %s (%s)", content.Format, short(content.Hash), m.has(content.Hash))
}

func (m *gcModel) add() {
	i := m.sure()
	opts := &cairn.AddOptions{}
	if i.seq && m.rnd.IntN(2) == 0 {
		opts.Format = cairn.HashSeq
	}
	switch m.rnd.IntN(4) {
	case 0:
		opts.Tag = m.tagName()
	case 1:
		opts.AutoTag = m.rnd.IntN(2) == 0
	}
	m.addWith(i, opts, m.s.AddBytes)
}

type addBytes = func(ctx context.Context, content []byte, opts *cairn.AddOptions) (*cairn.TempTag, error)

func (m *gcModel) addWith(i *gcItem, opts *cairn.AddOptions, add addBytes) *gcHold {
	hold := &gcHold{what: "temp tag of an add", contents: []cairn.HashAndFormat{i.content(opts.Format)}}
	m.holds = append(m.holds, hold)
	b := m.blobs[i.hash]
	want, kept := m.admits(i), m.kept(true)
	if want == nil && (b == nil || !b.complete()) {
		want = m.room(i, i.all())
	}
	m.holds = m.holds[:len(m.holds)-1]
	what := fmt.Sprintf("add %s of %d, tag %q %v", m.name(i.content(opts.Format)), len(i.data), opts.Tag, opts.AutoTag)
	tag, err := add(m.t.Context(), i.data, opts)
	if !m.want(err, want, "%s", what) {
		return nil
	}
	hold.release = tag.Release
	m.holds = append(m.holds, hold)
	m.get(i, true).present = i.all()
	switch {
	case opts.AutoTag:
		if m.tags[tag.Tag()].Hash != (cairn.Hash{}) || !strings.HasPrefix(tag.Tag(), "auto-") {
			m.t.Errorf("automatic tag %q", tag.Tag())
		}
		m.tags[tag.Tag()] = gcTag{HashAndFormat: i.content(opts.Format)}
	case opts.Tag != "":
		m.tags[opts.Tag] = gcTag{HashAndFormat: i.content(opts.Format)}
		fallthrough
	default:
		if tag.Tag() != opts.Tag {
			m.t.Errorf("tag %q, want %q", tag.Tag(), opts.Tag)
		}
	}
	m.evicted(kept)
	if m.rnd.IntN(4) > 0 {
		m.letGo(hold)
	}
	return hold
}

// importSome imports some groups of a content, or all.
func (m *gcModel) importSome() {
	i := m.sure()
	groups := bao.Groups(int64(len(i.data)))
	from := m.rnd.Int64N(groups)
	to := from + 1 + m.rnd.Int64N(min(groups-from, 40))
	if m.rnd.IntN(3) == 0 {
		from, to = 0, groups
	}
	ranges := bao.Chunks(uint64(from)*16, uint64(to)*16).Intersect(i.all())
	response, _ := i.seed.response(m.t, ranges)
	b, kept := m.blobs[i.hash], m.kept(true)
	var want error
	present := ranges
	if b != nil {
		present = present.Union(b.present)
	}
	if b == nil || !b.complete() {
		if want = m.admits(i); want == nil && (b == nil || !b.present.Equal(present)) {
			want = m.room(i, present)
		}
	}
	err := m.s.ImportBao(m.t.Context(), i.hash, ranges, bytes.NewReader(response))
	if m.want(err, want, "import groups %d..%d of %d of %s", from, to, groups, m.name(i.content(cairn.Raw))) {
		if b == nil {
			b = m.get(i, true)
		}
		b.present = present
	} else if want != nil {
		// What was committed before stays.
		got, err := m.s.Ranges(m.t.Context(), i.hash)
		if err == nil && !got.IsEmpty() {
			m.get(i, true).present = got
		}
	}
	m.evicted(kept)
}

var gcTagNames = []string{"", "a", "a/1", "a/2", "a/\xff", "ab", "b", "b\xff", "b\xff\xff", "c", "\x00", "\xff", "\xff\x00", "\xff\xff"}

func (m *gcModel) tagName() string { return gcTagNames[m.rnd.IntN(len(gcTagNames))] }

func (m *gcModel) expiry() time.Time {
	switch m.rnd.IntN(5) {
	case 0:
		return time.Unix(1_000_000_000+m.rnd.Int64N(1_000_000), 0)
	case 1:
		return time.Unix(4_000_000_000, 0)
	}
	return time.Time{}
}

func (m *gcModel) setTag() {
	name, content, opts := m.tagName(), m.any(), &cairn.TagOptions{Expires: m.expiry()}
	var want error
	if m.rnd.IntN(4) == 0 {
		now := m.tags[name].HashAndFormat
		expect := now
		if m.rnd.IntN(2) == 0 {
			expect = m.any()
		} else if m.rnd.IntN(3) == 0 {
			expect = cairn.HashAndFormat{}
		}
		if opts.Expect = &expect; expect != now {
			want = cairn.ErrConflict
		}
	}
	err := m.s.SetTag(m.t.Context(), name, content, opts)
	if m.want(err, want, "set tag %q to %s, expires %v, expect %v", name, m.name(content), opts.Expires, opts.Expect != nil) {
		m.tags[name] = gcTag{content, opts.Expires}
	}
}

func (m *gcModel) createTag() {
	content, opts := m.any(), &cairn.TagOptions{Expires: m.expiry()}
	name, err := m.s.CreateTag(m.t.Context(), content, opts)
	if !m.want(err, nil, "create tag %q of %s, expires %v", name, m.name(content), opts.Expires) {
		return
	}
	if _, there := m.tags[name]; there || !strings.HasPrefix(name, "auto-") {
		m.t.Errorf("created tag %q", name)
	}
	m.tags[name] = gcTag{content, opts.Expires}
}

// anyTag returns a tag that is there, perhaps.
func (m *gcModel) anyTag() string {
	if names := m.names(""); len(names) > 0 && m.rnd.IntN(4) > 0 {
		return names[m.rnd.IntN(len(names))]
	}
	return m.tagName()
}

func (m *gcModel) deleteTag() {
	name := m.anyTag()
	var want error
	if _, there := m.tags[name]; !there {
		want = cairn.ErrNotFound
	}
	m.want(m.s.DeleteTag(m.t.Context(), name), want, "delete tag %q", name)
	delete(m.tags, name)
}

func (m *gcModel) deleteTags() {
	prefix := []string{"a", "a/", "b", "b\xff", "\xff", "\xff\xff", "auto-", "auto-2", "none", ""}[m.rnd.IntN(10)]
	if prefix == "" && m.rnd.IntN(4) > 0 {
		return
	}
	names := m.names(prefix)
	n, err := m.s.DeleteTags(m.t.Context(), prefix)
	m.want(err, nil, "delete %d tags %q", n, prefix)
	if n != int64(len(names)) {
		m.t.Errorf("deleted %d tags %q, want %q", n, prefix, names)
	}
	for _, name := range names {
		delete(m.tags, name)
	}
}

func (m *gcModel) renameTag() {
	from, to := m.anyTag(), m.anyTag()
	var want error
	tag, there := m.tags[from]
	if !there {
		want = cairn.ErrNotFound
	}
	if m.want(m.s.RenameTag(m.t.Context(), from, to), want, "rename tag %q to %q", from, to) {
		delete(m.tags, from)
		m.tags[to] = tag
	}
}

// tempTag takes a temp tag of what is there or not.
func (m *gcModel) tempTag() {
	content := m.any()
	m.hold(&gcHold{what: "temp tag", contents: []cairn.HashAndFormat{content}, release: m.s.TempTag(content).Release})
}

func (m *gcModel) hold(h *gcHold) {
	m.holds = append(m.holds, h)
	what := h.what
	for _, content := range h.contents {
		what += " of " + m.name(content)
	}
	m.note("%s %q", what, h.keys)
}

func (m *gcModel) reader() {
	i := m.sure()
	b, err := m.s.Blob(m.t.Context(), i.hash)
	var want error
	if m.blobs[i.hash] == nil {
		want = cairn.ErrNotFound
	}
	if m.want(err, want, "open %s", m.name(i.content(cairn.Raw))) {
		m.hold(&gcHold{what: "reader", contents: []cairn.HashAndFormat{i.content(cairn.Raw)}, release: func() { b.Close() }})
	}
}

var gcKeys = []string{"k1", "k2", "k3", "k4"}

func (m *gcModel) pin() {
	h := &gcHold{what: "pin"}
	w := cairn.Window{}
	if m.rnd.IntN(2) == 0 {
		h.keys = []string{gcKeys[m.rnd.IntN(len(gcKeys))]}
		w.Keys = h.keys
	}
	for range m.rnd.IntN(3) {
		i := m.item()
		h.contents = append(h.contents, i.content(cairn.Raw))
		w.Hashes = append(w.Hashes, i.hash)
	}
	pin, err := m.s.Pin(m.t.Context(), w)
	if err != nil {
		m.t.Fatal(err)
	}
	h.release = pin.Release
	m.hold(h)
}

func (m *gcModel) release() {
	if len(m.holds) > 0 {
		m.letGo(m.holds[m.rnd.IntN(len(m.holds))])
	}
}

func (m *gcModel) letGo(h *gcHold) {
	m.holds = slices.DeleteFunc(m.holds, func(other *gcHold) bool { return other == h })
	h.release()
	m.note("release %s of %v", h.what, h.contents)
}

func (m *gcModel) releaseAll() {
	for len(m.holds) > 0 {
		m.letGo(m.holds[len(m.holds)-1])
	}
}

func (m *gcModel) pinnedKey(key string) bool {
	return slices.ContainsFunc(m.holds, func(h *gcHold) bool { return slices.Contains(h.keys, key) })
}

func (m *gcModel) delete() {
	i := m.sure()
	b := m.blobs[i.hash]
	var want error
	if b == nil {
		want = cairn.ErrNotFound
	} else if m.kept(true)[i.hash] || m.claimed(b) {
		want = cairn.ErrConflict
	}
	if m.want(m.s.Delete(m.t.Context(), i.hash), want, "delete %s", m.name(i.content(cairn.Raw))) {
		m.remove(i.hash)
	}
}

// read reads what is there.
func (m *gcModel) read() {
	i := m.sure()
	got, err := read(m.t.Context(), m.s, i.hash)
	switch b := m.blobs[i.hash]; {
	case b == nil:
		mustBe(m.t, err, cairn.ErrNotFound)
	case b.complete() && (err != nil || !bytes.Equal(got, i.data)):
		m.t.Errorf("read %s: %d bytes, %v", short(i.hash), len(got), err)
	case !b.complete():
		mustBe(m.t, err, cairn.ErrMissing)
	}
	m.note("read %s", m.name(i.content(cairn.Raw)))
}

func (m *gcModel) setCapacity() {
	capacity := cairn.Unlimited
	if m.rnd.IntN(5) > 0 {
		capacity = m.used(false)*m.rnd.Int64N(200)/100 + m.rnd.Int64N(3)
	}
	old := m.capacity
	m.capacity = capacity
	var want error
	if capacity != cairn.Unlimited && m.used(true) > capacity {
		want = cairn.ErrFull
	}
	if !m.want(m.s.SetCapacity(m.t.Context(), capacity), want, "capacity %d of %d, %d protected", capacity, m.used(false), m.used(true)) {
		m.capacity = old
	}
	m.evicted(m.kept(true))
}

// evicted has the picture follow what a write under a capacity has evicted. kept is
// what was protected before: what only a sequence that comes with the write names
// may still go.
func (m *gcModel) evicted(kept map[cairn.Hash]bool) {
	m.resolve()
	for _, h := range slices.Collect(maps.Keys(m.blobs)) {
		st, err := m.s.Status(m.t.Context(), h)
		if err != nil {
			m.t.Fatal(err)
		}
		if st.State == cairn.Absent {
			if m.capacity == cairn.Unlimited && !m.blobs[h].unsure || kept[h] {
				m.t.Errorf("%v is gone; kept %v", h, kept[h])
			}
			m.note("evicted %s", m.name(cairn.HashAndFormat{Hash: h}))
			m.remove(h)
		}
	}
	if u, err := m.s.Usage(m.t.Context()); err != nil || m.capacity != cairn.Unlimited && u.Used > m.capacity {
		m.t.Errorf("%+v, %v, with capacity %d", u, err, m.capacity)
	}
}

// resolve looks which blobs that nobody has any more are still there.
func (m *gcModel) resolve() {
	kept := m.kept(true)
	for h, b := range m.blobs {
		safe := b.added || kept[h] || m.claimed(b)
		b.unsure = b.unsure || !safe
		if !b.unsure {
			continue
		}
		st, err := m.s.Status(m.t.Context(), h)
		if err != nil {
			m.t.Fatal(err)
		}
		if st.State == cairn.Absent {
			m.remove(h)
		} else if safe {
			b.unsure = false
		}
	}
}

func (m *gcModel) reopen() {
	if m.path == ":memory:" || m.rnd.IntN(3) > 0 {
		return
	}
	m.releaseAll()
	if err := m.s.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.s = open(m.t, m.path, nil)
	m.note("reopened")
}
