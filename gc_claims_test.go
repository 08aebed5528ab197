package cairn_test

import (
	"bytes"

	"github.com/cairnstore/cairn"
)

// The operations of the model that give blobs to pieces and owners.

func (m *gcModel) putPiece() {
	key, i := gcKeys[m.rnd.IntN(len(gcKeys))], m.sure()
	if m.pinnedKey(key) {
		return
	}
	b := m.blobs[i.hash]
	want, kept := m.admits(i), m.kept(true)
	if want == nil && (b == nil || !b.complete()) {
		want = m.room(i, i.all())
	}
	_, err := m.s.PutPiece(m.t.Context(), key, bytes.NewReader(i.data), int64(len(i.data)), nil)
	if m.want(err, want, "put %q: %s of %d", key, m.name(i.content(cairn.Raw)), len(i.data)) {
		m.get(i, false).present = i.all()
		if old := m.blobs[m.keys[key]]; old != nil && old.gcItem != i {
			old.unsure = !old.added && !kept[old.hash] // even if it is the child of what comes
		}
		m.keys[key] = i.hash
	}
	m.evicted(kept)
}

func (m *gcModel) deletePiece() {
	key := gcKeys[m.rnd.IntN(len(gcKeys))]
	var want error
	p, err := m.s.OpenPiece(m.t.Context(), key)
	if _, there := m.keys[key]; !there {
		mustBe(m.t, err, cairn.ErrNotFound)
		return
	}
	if err != nil {
		m.t.Errorf("piece %q: %v", key, err)
		return
	}
	if m.pinnedKey(key) {
		want = cairn.ErrConflict
	}
	if m.want(p.Delete(m.t.Context()), want, "delete piece %q of %v", key, m.keys[key]) {
		delete(m.keys, key)
	}
}

func (m *gcModel) owner() string { return []string{"o", "p"}[m.rnd.IntN(2)] }

func (m *gcModel) addBlob() {
	i, owner := m.sure(), m.owner()
	b := m.blobs[i.hash]
	var want error
	if b == nil {
		want = cairn.ErrNotFound
	}
	if m.want(m.s.Owner(owner).AddBlob(m.t.Context(), i.hash), want, "owner %q adds %s", owner, m.name(i.content(cairn.Raw))) {
		b.owners[owner], b.added, m.made[owner] = true, false, true
	}
}

func (m *gcModel) removeBlob() {
	i, owner := m.sure(), m.owner()
	b := m.blobs[i.hash]
	var want error
	if b == nil || !b.owners[owner] {
		want = cairn.ErrNotFound
	}
	if m.want(m.s.Owner(owner).RemoveBlob(m.t.Context(), i.hash), want, "owner %q removes %s", owner, short(i.hash)) {
		delete(b.owners, owner)
	}
}

func (m *gcModel) deleteOwner() {
	owner := m.owner()
	var want error
	if !m.made[owner] {
		want = cairn.ErrNotFound
	}
	if m.want(m.s.Owner(owner).Delete(m.t.Context()), want, "delete owner %q", owner) {
		for _, b := range m.blobs {
			delete(b.owners, owner)
		}
		delete(m.made, owner)
	}
}
