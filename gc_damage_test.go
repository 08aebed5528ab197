package cairn_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/cairnstore/cairn"
)

// TestGCUnreadableSequence damages a sequence. There, a sequence that could not be
// read counted as one without children, and they were swept.
func TestGCUnreadableSequence(t *testing.T) {
	children := [][]byte{[]byte("first"), []byte("second")}
	hashes := fillers(7, 3*groupChildren)
	hashes[0], hashes[2*groupChildren] = hashOf(children[0]), hashOf(children[1])
	data := sequence(hashes...)
	damage := func(t *testing.T, s *cairn.Store, how string) {
		script(t, s, fmt.Sprintf(how, fmt.Sprintf(`(select id from row where id >> %d = (select id from blob where hash = x'%v') order by id limit 1 offset 1)`, cairn.GroupBits, hashOf(data))))
	}
	junk := []byte("junk")
	for _, how := range []string{
		`update "row" set data = zeroblob(length(data)) where id = %s`,
		`delete from "row" where id = %s`,
	} {
		for name, protect := range map[string]func(t *testing.T, s *cairn.Store) (release func()){
			"tag": func(t *testing.T, s *cairn.Store) func() {
				// It may be read at once: then it says so.
				if err := s.SetTag(t.Context(), "tag", seqOf(hashOf(data)), nil); err != nil {
					mustBe(t, err, cairn.ErrCorrupt)
					t.Skip("it cannot be tagged")
				}
				return func() { s.DeleteTag(t.Context(), "tag") }
			},
			"tag of another program": func(t *testing.T, s *cairn.Store) func() {
				script(t, s, fmt.Sprintf(`insert into tag (name, hash, format, created) values (x'61', x'%v', 1, 1)`, hashOf(data)))
				return func() { s.DeleteTag(t.Context(), "a") }
			},
			"temp tag": func(t *testing.T, s *cairn.Store) func() { return s.TempTag(seqOf(hashOf(data))).Release },
			"callback": nil,
		} {
			t.Run(name+"/"+how[:6], func(t *testing.T) {
				s := open(t, ":memory:", nil)
				add(t, s, data)
				for _, child := range children {
					add(t, s, child)
				}
				add(t, s, junk)
				script(t, s, `create temp table saved as select * from "row"`)
				damage(t, s, how)
				release, opts := func() {}, &cairn.GCOptions{}
				if protect == nil {
					opts.Protect = func(ctx context.Context, add func(cairn.HashAndFormat)) error {
						add(seqOf(hashOf(data)))
						return nil
					}
				} else {
					release = protect(t, s)
				}
				report, err := s.GC(t.Context(), opts)
				mustBe(t, err, cairn.ErrCorrupt)
				if report.Swept != 0 {
					t.Errorf("%+v", report)
				}
				for _, data := range append(children, junk) {
					mustHave(t, s, data)
				}
				// What is repaired is read.
				script(t, s, `insert or replace into "row" select * from saved; drop table saved`)
				if _, err := s.GC(t.Context(), opts); err != nil {
					t.Error(err)
				}
				mustNotHave(t, s, junk)
				for _, data := range children {
					mustHave(t, s, data)
				}
				release()
				collectAll(t, s)
				mustNotHave(t, s, children[0])
				mustBeSound(t, s)
			})
		}
	}
}

// TestGCDamageAfterReading damages a sequence that has been read: either it is an
// error, or the children are known.
func TestGCDamageAfterReading(t *testing.T) {
	s := open(t, ":memory:", nil)
	child := []byte("child")
	h := add(t, s, sequence(append(fillers(1, 2*groupChildren), hashOf(child))...))
	add(t, s, child)
	setTag(t, s, "tag", seqOf(h))
	collectAll(t, s)
	script(t, s, fmt.Sprintf(`create temp table saved as select * from "row";
		update "row" set data = zeroblob(length(data)) where id >> %d = (select id from blob where hash = x'%v')`, cairn.GroupBits, h))
	for range 2 {
		if _, err := s.GC(t.Context(), nil); err != nil {
			mustBe(t, err, cairn.ErrCorrupt)
		}
		mustHave(t, s, child)
	}
	script(t, s, `insert or replace into "row" select * from saved; drop table saved`)
}
