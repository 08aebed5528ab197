package cairn_test

import (
	"slices"

	"github.com/cairnstore/cairn"
)

// What owners and blobs of their own right do in a picture.

func (p *picture) deleteBlob(hash cairn.Hash) error {
	b := p.byHash(hash)
	switch {
	case b == nil:
		return cairn.ErrNotFound
	case len(p.keysOf(b)) > 0 || len(b.direct) > 0 || p.heldHashes[hash] > 0:
		return cairn.ErrConflict
	}
	p.remove(b)
	return nil
}

func (p *picture) addBlob(owner string, hash cairn.Hash) error {
	b := p.byHash(hash)
	if b == nil {
		return cairn.ErrNotFound
	}
	if err := p.ownerAdmits(owner, b.size); err != nil {
		return err
	}
	b.used, b.direct[owner] = p.tick(), true
	if err := p.evictOwner(p.owner(owner)); err != nil {
		return err
	}
	if !b.direct[owner] {
		return cairn.ErrFull
	}
	b.added = false
	return nil
}

func (p *picture) removeBlob(owner string, hash cairn.Hash) error {
	b := p.byHash(hash)
	if b == nil || !b.direct[owner] {
		return cairn.ErrNotFound
	}
	delete(b.direct, owner)
	p.loosen(b)
	return nil
}

func (p *picture) deleteOwner(name string) error {
	if p.owner(name) == nil {
		return cairn.ErrNotFound
	}
	var names []string
	for key, k := range p.keys {
		if k.owner == name {
			names = append(names, key)
		}
	}
	had := slices.DeleteFunc(slices.Clone(p.blobs), func(b *modelBlob) bool { return !b.direct[name] })
	for _, b := range had {
		delete(b.direct, name)
	}
	if err := p.removeKeys(names); err != nil {
		return err
	}
	for _, b := range had {
		p.loosen(b)
	}
	p.owners = slices.DeleteFunc(p.owners, func(o *modelOwner) bool { return o.name == name })
	return nil
}
