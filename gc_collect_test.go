package cairn_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// collect runs a collection with any options.
func (m *gcModel) collect() {
	opts := &cairn.GCOptions{DryRun: m.rnd.IntN(5) == 0}
	var calls *gcCallback
	switch m.rnd.IntN(4) {
	case 0:
		opts.Budget = time.Duration(1 + m.rnd.IntN(1_000_000))
	case 1, 2:
		if !opts.DryRun {
			calls = m.callback()
			opts.Protect = calls.protect
		}
	}
	m.collectWith(opts, calls)
}

var errCallback = errors.New("the callback says no")

// A gcCallback is what a Protect callback does.
type gcCallback struct {
	m       *gcModel
	protect func(ctx context.Context, add func(cairn.HashAndFormat)) error
	called  int
	keep    []cairn.HashAndFormat // handed to add, or used meanwhile
	fresh   []*gcItem             // added meanwhile
	tagged  map[string]cairn.HashAndFormat
	err     error
}

// callback makes a callback that protects, adds, reads and tags something.
func (m *gcModel) callback() *gcCallback {
	c := &gcCallback{m: m, tagged: make(map[string]cairn.HashAndFormat)}
	var handed []cairn.HashAndFormat
	for range m.rnd.IntN(3) {
		handed = append(handed, m.any())
	}
	c.keep = slices.Clone(handed)
	var reads []*gcItem
	for range m.rnd.IntN(2) {
		if i := m.sure(); m.blobs[i.hash] != nil && m.blobs[i.hash].complete() {
			reads = append(reads, i)
			c.keep = append(c.keep, i.content(cairn.Raw))
		}
	}
	for range m.rnd.IntN(2) {
		c.tagged[m.tagName()] = m.any()
	}
	if m.capacity == cairn.Unlimited && m.rnd.IntN(2) == 0 {
		data := content(m.rnd.Uint64(), 1+m.rnd.IntN(3000))
		c.fresh = append(c.fresh, &gcItem{data: data, hash: hashOf(data), seed: newSeed(m.t, data)})
	}
	if m.rnd.IntN(6) == 0 {
		c.err = errCallback
	}
	c.protect = func(ctx context.Context, add func(cairn.HashAndFormat)) error {
		c.called++
		for _, content := range handed {
			add(content)
		}
		for _, i := range reads {
			if _, err := read(ctx, m.s, i.hash); err != nil {
				return err
			}
		}
		for _, i := range c.fresh {
			tag, err := m.s.AddBytes(ctx, i.data, nil)
			if err != nil {
				return err
			}
			tag.Release()
		}
		for name, content := range c.tagged {
			if err := m.s.SetTag(ctx, name, content, nil); err != nil {
				return err
			}
		}
		return c.err
	}
	return c
}

// apply puts into the picture what the callback has done.
func (c *gcCallback) apply() {
	for name, content := range c.tagged {
		c.m.tags[name] = gcTag{HashAndFormat: content}
	}
	for _, i := range c.fresh {
		c.m.items = append(c.m.items, i)
		c.m.get(i, true).present = i.all()
		c.keep = append(c.keep, i.content(cairn.Raw))
	}
}

// collectWith runs a collection to its end, and compares what it says.
func (m *gcModel) collectWith(opts *cairn.GCOptions, calls *gcCallback) {
	m.note("GC %+v, callback %v", *opts, calls != nil)
	candidates := len(m.garbage())
	report, err := m.runGC(opts)
	m.note("%+v, %v", report, err)
	var keep []cairn.HashAndFormat
	if calls != nil {
		if calls.called > 1 || calls.called == 0 && candidates > 0 {
			m.t.Errorf("the callback was called %d times, for %d candidates", calls.called, candidates)
		}
		if calls.called > 0 {
			calls.apply()
			keep = calls.keep
			if calls.err != nil {
				mustBe(m.t, err, calls.err)
				return
			}
		}
	}
	if err != nil {
		m.t.Errorf("GC: %v", err)
		return
	}
	expired := int64(0)
	for _, tag := range m.tags {
		if tag.expired() {
			expired++
		}
	}
	if !opts.DryRun {
		maps.DeleteFunc(m.tags, func(_ string, tag gcTag) bool { return tag.expired() })
	}
	m.compareReport(report, opts, expired, m.garbage(keep...))
}

// runGC collects until it is done, and returns the sum of the reports.
func (m *gcModel) runGC(opts *cairn.GCOptions) (sum cairn.GCReport, err error) {
	for range 10_000 {
		report, err := m.s.GC(m.t.Context(), opts)
		if err != nil || opts.Budget == 0 || opts.DryRun {
			return report, err
		}
		sum.Swept += report.Swept
		sum.SweptBytes += report.SweptBytes
		sum.ExpiredTags += report.ExpiredTags
		for _, total := range [][2]*cairn.GCTotal{{&sum.Unprotected, &report.Unprotected}, {&sum.Partial, &report.Partial}} {
			total[0].Blobs += total[1].Blobs
			total[0].Bytes += total[1].Bytes
		}
		if sum.Marked = report.Marked; report.Done {
			sum.Done = true
			return sum, nil
		}
	}
	return sum, errors.New("collections with a budget do not come to an end")
}

// compareReport compares what a collection says with what it must have swept.
func (m *gcModel) compareReport(got cairn.GCReport, opts *cairn.GCOptions, expired int64, garbage []*gcBlob) {
	want := cairn.GCReport{Marked: int64(len(m.blobs) - len(garbage)), ExpiredTags: expired, DryRun: opts.DryRun, Done: true}
	unsure := int64(0)
	for _, b := range garbage {
		total := &want.Partial
		if b.complete() {
			total = &want.Unprotected
		}
		if b.unsure || !b.added {
			unsure++ // it may have gone by itself, at the latest with the last tag
		}
		total.Blobs++
		total.Bytes += b.stored()
		want.Swept++
		want.SweptBytes += b.stored()
		if !opts.DryRun {
			m.remove(b.hash)
		}
	}
	if opts.DryRun {
		for _, b := range m.blobs {
			if b.unsure {
				unsure++
			}
		}
	}
	if opts.Budget > 0 {
		want.DryRun = got.DryRun
		if opts.DryRun && !got.Done {
			return // what it had time to see
		}
	}
	if unsure > 0 {
		if got.Swept > want.Swept || got.Swept < want.Swept-unsure || got.ExpiredTags != expired || !got.Done {
			m.t.Errorf("GC: %+v, want %+v, %d of which are not sure", got, want, unsure)
		}
		return
	}
	if got != want {
		m.t.Errorf("GC: %+v, want %+v", got, want)
	}
}

// otherProgram changes a tag as the shell would.
func (m *gcModel) otherProgram() {
	if m.path == ":memory:" {
		return
	}
	conn, err := sqlite.OpenConn(m.path, sqlite.OpenReadWrite)
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetBusyTimeout(time.Minute)
	name, content := m.anyTag(), m.any()
	run := func(text string) {
		err := sqlitex.Execute(conn, text, &sqlitex.ExecOptions{Named: map[string]any{
			":name": []byte(name), ":hash": content.Hash[:], ":format": int64(content.Format)}})
		if err != nil {
			m.t.Errorf("other program: %s: %v", text, err)
		}
		m.note("other program: %s: %q %s", text, name, m.name(content))
	}
	_, there := m.tags[name]
	switch {
	case there && m.rnd.IntN(2) == 0:
		content = cairn.HashAndFormat{}
		run(`delete from tag where name = :name and :hash = :hash and :format = :format`)
		delete(m.tags, name)
	case there:
		run(`update tag set hash = :hash, format = :format where name = :name`)
		m.tags[name] = gcTag{content, m.tags[name].expires}
	default:
		run(`insert into tag (name, hash, format, created) values (:name, :hash, :format, 1)`)
		m.tags[name] = gcTag{HashAndFormat: content}
	}
	// It does not know what memory holds of what nobody has any more.
	held := m.holds
	m.holds = nil
	kept := m.kept(true)
	m.holds = held
	for h, b := range m.blobs {
		b.unsure = b.unsure || !b.added && !kept[h] && !m.claimed(b)
	}
	// The readers see what another program has written after our next commit.
	if err := m.s.OnWriter(m.t.Context(), func(*sqlite.Conn) error { return nil }); err != nil {
		m.t.Fatal(err)
	}
}

// compare compares the store with the picture.
func (m *gcModel) compare() {
	found := make(map[cairn.Hash]bool)
	for info, err := range m.s.Blobs(m.t.Context(), nil) {
		if err != nil {
			m.t.Fatal(err)
		}
		found[info.Hash] = true
		b := m.blobs[info.Hash]
		if b == nil {
			m.t.Errorf("%v should not be there", info.Hash)
			continue
		}
		if info.State != b.state() || info.Stored != b.stored() || info.Size != int64(len(b.data)) {
			m.t.Errorf("%+v, want %v and %d of %d", info, b.state(), b.stored(), len(b.data))
		}
		if got, err := m.s.Ranges(m.t.Context(), info.Hash); err != nil && !b.unsure || err == nil && !got.Equal(b.present) && !(b.unsure && got.IsEmpty()) {
			m.t.Errorf("%v: ranges %v, %v, want %v", info.Hash, got, err, b.present)
		}
	}
	for h, b := range m.blobs {
		if !found[h] && !b.unsure {
			m.t.Errorf("%v is not there (kept %v, claimed %v)", h, m.kept(true)[h], m.claimed(b))
		}
	}
	m.compareTags()
	for key, h := range m.keys {
		if _, err := m.s.OpenPiece(m.t.Context(), key); err != nil {
			m.t.Errorf("piece %q of %v: %v", key, h, err)
		}
	}
}

func (m *gcModel) compareTags() {
	var names []string
	for tag, err := range m.s.Tags(m.t.Context(), nil) {
		if err != nil {
			m.t.Fatal(err)
		}
		names = append(names, tag.Name)
		if want, there := m.tags[tag.Name]; !there || tag.HashAndFormat != want.HashAndFormat || !tag.Expires.Equal(want.expires) {
			m.t.Errorf("tag %+v, want %+v, %v", tag, want, there)
		}
	}
	if want := slices.Sorted(maps.Keys(m.tags)); !slices.Equal(names, want) {
		m.t.Errorf("tags %q, want %q", names, want)
	}
	if name := m.tagName(); !m.t.Failed() {
		tag, err := m.s.Tag(m.t.Context(), name)
		if want, there := m.tags[name]; there != (err == nil) || tag.HashAndFormat != want.HashAndFormat {
			m.t.Errorf("tag %q: %+v, %v, want %+v", name, tag, err, want)
		} else if !there {
			mustBe(m.t, err, cairn.ErrNotFound)
		}
	}
}

// batch adds and protects something in a scope, and ends it.
func (m *gcModel) batch() {
	b := m.s.Batch()
	before := len(m.holds)
	for range 1 + m.rnd.IntN(3) {
		i := m.sure()
		opts := &cairn.AddOptions{}
		if i.seq {
			opts.Format = cairn.HashSeq
		}
		if m.rnd.IntN(2) == 0 {
			content := i.content(opts.Format)
			m.hold(&gcHold{what: "temp tag of a batch", contents: []cairn.HashAndFormat{content}, release: b.TempTag(content).Release})
		} else {
			m.addWith(i, opts, b.AddBytes)
		}
	}
	if m.rnd.IntN(2) == 0 {
		m.collectWith(&cairn.GCOptions{}, nil)
	}
	b.Close()
	m.holds = m.holds[:before]
	m.note("end of the batch")
}
