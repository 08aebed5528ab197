package cairn

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math/bits"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A pathChange is what a scrub has found out of a blob's files outside.
type pathChange struct {
	blob    blobRow
	nothing []outsideFile // those that have nothing of it
	good    []outsideFile // those that have all, as they are now
}

// tendPaths looks at each file outside of a blob. One that has nothing of it, and
// is not the last one, is forgotten; of one that has changed and has all, it is
// noted what it is like now. In a file that has not changed, one group is proof
// enough that it is of use.
func (s *Store) tendPaths(ctx context.Context, hash Hash, pace *throttle) error {
	var c pathChange
	var files []outsideFile
	err := s.pool.read(ctx, func(conn *sqlite.Conn) (err error) {
		if c.blob, err = findBlob(conn, hash); err == nil && c.blob.External > 0 {
			files, err = readPaths(conn, c.blob.id)
		}
		return err
	})
	for _, file := range files {
		if err == nil {
			err = c.look(ctx, s, file, pace)
		}
	}
	if err != nil || len(c.nothing)+len(c.good) == 0 {
		return err
	}
	err = s.write(ctx, 0, c.run)
	if errors.Is(err, errChanged) {
		err = nil // the next scrub looks again
	}
	return err
}

// look finds out what a file has. What cannot be told stays as it is.
func (c *pathChange) look(ctx context.Context, s *Store, file outsideFile, pace *throttle) error {
	f, now, err := s.openOutside(file.path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) || errors.Is(err, ErrConflict) {
		c.nothing = append(c.nothing, file)
		return nil
	}
	if err != nil {
		return nil
	}
	defer s.files.release(f)
	m := fileMatch{s: s, ctx: ctx, blob: c.blob, f: f, brief: now == file.stamp, pace: pace}
	err = m.run()
	switch {
	case err != nil && isDamage(err):
		return nil // the outboard is
	case err != nil:
		return err
	case m.some == 0 && m.other > 0:
		c.nothing = append(c.nothing, file)
	case m.some > 0 && m.other == 0 && now != file.stamp:
		if info, err := f.Stat(); err == nil && stampOf(info) == now {
			c.good = append(c.good, outsideFile{file.path, now, file.real})
		}
	}
	return nil
}

// run makes the change. The writer calls it.
func (c *pathChange) run(conn *sqlite.Conn) error {
	now, err := findBlob(conn, c.blob.hash)
	if err != nil {
		return err
	}
	if now.id != c.blob.id || now.External == 0 {
		return errChanged
	}
	for _, file := range c.nothing {
		stmt := prep(conn, "path_forget") // unless it has been noted anew
		bindPath(stmt, now.id, file)
		if err := exec(stmt); err != nil {
			return err
		}
	}
	for _, file := range c.good {
		stmt := prep(conn, "path_exists")
		stmt.SetInt64(":blob", now.id)
		stmt.SetBytes(":path", []byte(file.path))
		if n, err := stepInt(stmt); err != nil {
			return err
		} else if n == 0 {
			continue
		}
		if err := putPath(conn, now.id, file); err != nil {
			return err
		}
	}
	left, err := readPaths(conn, now.id)
	if err == nil && len(left) == 0 {
		err = errChanged
	}
	return err
}

// A fileMatch compares a file with what a blob has outside.
type fileMatch struct {
	s     *Store
	ctx   context.Context
	blob  blobRow
	f     *openFile
	brief bool // whether one group that the file has is enough
	pace  *throttle

	some, other int // groups that the file has, and has not
}

// run looks at the groups that have no row, until all is known that is to be.
func (m *fileMatch) run() error {
	var buf [bao.GroupSize]byte
	for first := int64(0); first < bao.Groups(m.blob.Size); first += groupRun {
		wanted, err := m.wanted(first)
		if err != nil {
			return err
		}
		for _, w := range wanted {
			if m.some > 0 && (m.brief || m.other > 0) {
				return nil
			}
			if err := m.pace.wait(m.ctx, int64(w.length)); err != nil {
				return err
			}
			n, err := m.f.ReadAt(buf[:w.length], w.group*bao.GroupSize)
			switch {
			case n == w.length && w.isIn(buf[:]):
				m.some++
			case n == w.length || err == io.EOF:
				m.other++
			default: // it cannot be read at the moment
				m.some, m.other = 0, 0
				return nil
			}
		}
	}
	return nil
}

// wanted returns the groups of a run that are outside.
func (m *fileMatch) wanted(first int64) (list []wantedGroup, err error) {
	err = m.s.pool.read(m.ctx, func(conn *sqlite.Conn) error {
		if err := unchanged(conn, m.blob); err != nil {
			return err
		}
		groups, err := runGroups(conn, m.blob, first)
		if err != nil {
			return err
		}
		err = eachRow(conn, m.blob.id, groupRanges(first, groups), func(group, _ int64) error {
			groups &^= 1 << (group - first)
			return nil
		})
		for ; groups != 0 && err == nil; groups &= groups - 1 {
			group := first + int64(bits.TrailingZeros64(groups))
			w := wantedGroup{group: group, length: bao.GroupLen(m.blob.Size, group), root: m.blob.Size <= bao.GroupSize}
			w.cv, err = m.s.groupCV(conn, m.blob, group)
			list = append(list, w)
		}
		return err
	})
	return list, err
}
