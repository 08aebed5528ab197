package cairn

import (
	"context"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// recheck hashes all that is there of a blob, makes what does not verify absent in
// one change, and returns that. On a read-only store it only looks.
func (s *Store) recheck(ctx context.Context, hash Hash) (bad bao.Ranges, err error) {
	b, err := s.openBlob(ctx, hash, "blob "+hash.String())
	if err != nil {
		return bad, err
	}
	defer b.Close()
	row, present, err := s.presence(ctx, hash)
	if err != nil {
		return bad, err
	}
	good := make(map[int64]uint64)
	var left blobRow
	buf := make([]byte, bao.GroupSize)
	for group := range bao.Groups(row.Size) {
		if !present.Contains(chunkOf(group)) {
			continue
		}
		err := s.pool.read(ctx, func(conn *sqlite.Conn) error {
			rows := b.openRows(conn, row, group*bao.GroupSize, 1)
			defer rows.close()
			inRow, _ := rows.next(group)
			rows.stmt.Reset()
			rows.on, rows.ended = false, row.Stored == 0 && row.External > 0
			if _, err := b.readVerified(rows, group, buf, 1); err != nil {
				return err
			}
			good[group&^(groupRun-1)] |= 1 << (group % groupRun)
			if inRow {
				left.Stored += int64(bao.GroupLen(row.Size, group))
			} else {
				left.External += int64(bao.GroupLen(row.Size, group))
			}
			return nil
		})
		if ctx.Err() != nil {
			return bad, err
		}
		if err != nil {
			bad = bad.Union(bao.Chunks(chunkOf(group), min(chunkOf(group+1), bao.ChunkCount(row.Size))))
		}
	}
	if bad.IsEmpty() || s.writer == nil {
		return bad, nil
	}
	return bad, s.replace(ctx, hash, 0, func(conn *sqlite.Conn) error {
		now, err := findBlob(conn, hash)
		if err != nil || now.id != row.id || now.Stored != row.Stored || now.External != row.External {
			return err
		}
		from, to := rowID(row.id, 0), rowID(row.id+1, 0)-1
		if err := removeRange(conn, "presence_remove", from, to); err != nil {
			return err
		}
		for first, groups := range good {
			if err := putPresence(conn, row.id, first, groups); err != nil {
				return err
			}
		}
		bounds := bad.Bounds()
		for i := 0; i < len(bounds); i += 2 {
			first, last := int64(bounds[i]/groupChunks), int64((bounds[i+1]-1)/groupChunks)
			if err := removeRange(conn, "row_remove", rowID(row.id, first), rowID(row.id, last)); err != nil {
				return err
			}
		}
		if left.External == 0 {
			if err := clearPaths(conn, row.id); err != nil {
				return err
			}
		}
		stmt := prep(conn, "blob_shrink")
		stmt.SetInt64(":id", row.id)
		stmt.SetInt64(":stored", left.Stored)
		stmt.SetInt64(":external", left.External)
		return exec(stmt)
	})
}

func clearPaths(conn *sqlite.Conn, blob int64) error {
	stmt := prep(conn, "path_clear")
	stmt.SetInt64(":blob", blob)
	return exec(stmt)
}
