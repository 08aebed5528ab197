package cairn

import (
	"context"
	"errors"
	"math/bits"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// bringIn brings what is good of a complete blob's files into rows, as far as there
// is room without anything being evicted for it: a piece that is being written has
// rows only. Each commit moves a run, and leaves a blob that reads.
func (d *downgrade) bringIn(ctx context.Context) error {
	st := steps{s: d.s, ctx: ctx}
	full := false // for the writer, until all is settled
	good := bao.Chunks(0, bao.ChunkCount(d.blob.Size)).Minus(d.rest)
	err := eachRun(good, func(first int64, groups uint64) error {
		m := moveIn{blob: d.blob, first: first, full: &full, buf: segments.Get().(*[segmentSize]byte)}
		err := m.read(ctx, d.s, groups)
		if err != nil || m.groups == 0 {
			segments.Put(m.buf)
			return err
		}
		return st.enqueue(int64(bits.OnesCount64(m.groups))*bao.GroupSize, false, m.run, nil, m.buf)
	})
	err = errors.Join(err, st.settleAll())
	if errors.Is(err, ErrFull) {
		return nil // the disk is
	}
	return err
}

// A moveIn brings groups of a run into rows.
type moveIn struct {
	blob   blobRow
	first  int64 // group of the run
	groups uint64
	buf    *[segmentSize]byte
	full   *bool // whether there was no room for one of these before
}

// read reads and verifies some groups, one in a snapshot. What neither a row nor a
// file has is left out.
func (m *moveIn) read(ctx context.Context, s *Store, groups uint64) error {
	b := Blob{s: s, hash: m.blob.hash}
	for ; groups != 0; groups &= groups - 1 {
		i := bits.TrailingZeros64(groups)
		group, good := m.first+int64(i), false
		err := s.pool.read(ctx, func(conn *sqlite.Conn) (err error) {
			rows := b.openRows(conn, m.blob, group*bao.GroupSize, 1)
			defer rows.close()
			_, good, err = rows.read(group, m.buf[i*bao.GroupSize:][:bao.GroupSize])
			return err
		})
		if err != nil && !isDamage(err) && err != errAbsent {
			return err
		}
		if err == nil && good {
			m.groups |= 1 << i
		}
	}
	return nil
}

// run makes the change. The writer calls it.
func (m *moveIn) run(conn *sqlite.Conn) error {
	if err := unchanged(conn, m.blob); err != nil || *m.full {
		return err
	}
	stmt := prep(conn, "blob_room")
	stmt.SetInt64(":blob", m.blob.id)
	room, err := stepInt(stmt)
	if err != nil {
		return err
	}
	moved := int64(0)
	for groups := m.groups; groups != 0; groups &= groups - 1 {
		i := bits.TrailingZeros64(groups)
		group := m.first + int64(i)
		length := bao.GroupLen(m.blob.Size, group)
		if moved+int64(length) > room {
			*m.full = true
			break
		}
		inserted, err := tryRow(conn, m.blob.id, group, m.buf[i*bao.GroupSize:][:length])
		if err != nil {
			return err
		}
		if inserted {
			moved += int64(length)
		}
	}
	stmt = prep(conn, "blob_move_out")
	stmt.SetInt64(":id", m.blob.id)
	stmt.SetInt64(":bytes", -moved)
	return exec(stmt)
}

// leaveOutside has a partial blob have what is in rows only.
func leaveOutside(conn *sqlite.Conn, blob blobRow) error {
	if blob.External == 0 {
		return nil
	}
	if err := removeRange(conn, "presence_remove", rowID(blob.id, 0), rowID(blob.id+1, 0)-1); err != nil {
		return err
	}
	stmt := prep(conn, "path_remove")
	stmt.SetInt64(":blob", blob.id)
	if err := exec(stmt); err != nil {
		return err
	}
	stmt = prep(conn, "blob_downgrade")
	stmt.SetInt64(":id", blob.id)
	stmt.SetInt64(":stored", blob.Stored)
	stmt.SetInt64(":external", 0)
	stmt.SetBool(":proven", blob.SizeProven)
	return exec(stmt)
}
