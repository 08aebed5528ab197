package cairn

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/cairnstore/cairn/bao"
	"zombiezen.com/go/sqlite"
)

// A pieceApplier changes the rows of a piece that is being written. A group that
// is there whole is marked in the presence bitmap; of one that is there in part,
// a fragment names the bytes, and its row ends with the last of them.
type pieceApplier struct {
	conn   *sqlite.Conn
	piece  pieceRow
	stored int64 // bytes of rows that have come

	first         int64  // group of the bitmap that is loaded, if loaded
	before, marks uint64 // as it is stored, as it will be
	loaded        bool
}

// apply makes the changes of patches, which are in the order of their groups.
func (a *pieceApplier) apply(patches []patch) error {
	for len(patches) > 0 {
		n := 1
		for n < len(patches) && patches[n].group == patches[0].group {
			n++
		}
		if err := a.group(patches[:n]); err != nil {
			return err
		}
		patches = patches[n:]
	}
	return a.flush()
}

// group makes the changes of one group, in their order.
func (a *pieceApplier) group(patches []patch) error {
	group, length := patches[0].group, bao.GroupLen(a.piece.Size, patches[0].group)
	for i := len(patches) - 1; i > 0; i-- { // what is written over need not be written
		if patches[i].from == 0 && patches[i].to == length {
			patches = patches[i:]
			break
		}
	}
	present, err := a.load(group)
	if err != nil {
		return err
	}
	if p := patches[0]; len(patches) == 1 && p.to-p.from == length {
		return a.putWhole(group, p.data, present)
	}
	return a.putParts(group, length, patches, present)
}

// load loads the bitmap of a group, and reports whether the group is marked.
func (a *pieceApplier) load(group int64) (present bool, err error) {
	if first := group &^ (groupRun - 1); !a.loaded || first != a.first {
		if err := a.flush(); err != nil {
			return false, err
		}
		a.first = first
		if a.before, err = presentGroups(a.conn, a.piece.id, first); err != nil {
			return false, err
		}
		a.marks, a.loaded = a.before, true
	}
	return a.marks>>(group-a.first)&1 == 1, nil
}

// flush stores the bitmap.
func (a *pieceApplier) flush() error {
	if !a.loaded || a.marks == a.before {
		return nil
	}
	a.before = a.marks
	return putPresence(a.conn, a.piece.id, a.first, a.marks)
}

// putWhole stores a whole group.
func (a *pieceApplier) putWhole(group int64, data []byte, present bool) error {
	if present {
		return putRow(a.conn, a.piece.id, group, data)
	}
	a.marks |= 1 << (group - a.first)
	a.stored += int64(len(data))
	if inserted, err := tryRow(a.conn, a.piece.id, group, data); err != nil || inserted {
		return err
	}
	old, err := a.fragmentLen(group)
	if err != nil {
		return err
	}
	a.stored -= int64(old)
	if err := removeFragment(a.conn, a.piece.id, group); err != nil {
		return err
	}
	return putRow(a.conn, a.piece.id, group, data)
}

// fragmentLen returns the length of the row of a group that is not marked.
func (a *pieceApplier) fragmentLen(group int64) (int, error) {
	spans, err := getFragment(a.conn, a.piece.id, group)
	if err != nil || len(spans) == 0 {
		return 0, err
	}
	return spans[len(spans)-1].to, nil
}

// putParts stores a group that is changed in parts.
func (a *pieceApplier) putParts(group int64, length int, patches []patch, present bool) error {
	buf := scratch.Get().(*[bao.GroupSize]byte)
	defer scratch.Put(buf)
	spans := []span{{0, length}}
	if !present {
		var err error
		if spans, err = getFragment(a.conn, a.piece.id, group); err != nil {
			return err
		}
	}
	old := 0
	if len(spans) > 0 {
		old = spans[len(spans)-1].to
		if err := readRow(a.conn, a.piece.id, group, buf[:old]); err != nil {
			return err
		}
	}
	for _, p := range patches {
		end := 0
		if len(spans) > 0 {
			end = spans[len(spans)-1].to
		}
		clear(buf[min(end, p.from):p.from]) // nothing of an earlier use goes in
		copy(buf[p.from:p.to], p.data)
		spans = addSpan(spans, span{p.from, p.to})
	}
	end := spans[len(spans)-1].to
	a.stored += int64(end - old)
	if err := a.putSpans(group, length, spans, present); err != nil {
		return err
	}
	return putRow(a.conn, a.piece.id, group, buf[:end])
}

// putSpans notes which bytes of a group are there.
func (a *pieceApplier) putSpans(group int64, length int, spans []span, present bool) error {
	whole := len(spans) == 1 && spans[0] == (span{0, length})
	switch {
	case whole && present:
		return nil
	case whole:
		a.marks |= 1 << (group - a.first)
		return removeFragment(a.conn, a.piece.id, group)
	}
	return putFragment(a.conn, a.piece.id, group, spans)
}

// growPiece enlarges a piece. A short last group that was whole is one in part
// then.
func growPiece(conn *sqlite.Conn, piece pieceRow, size int64) (pieceRow, error) {
	if size > MaxBlobSize {
		return pieceRow{}, fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	if piece.Size == 0 { // one that was complete had an empty row
		if err := setPresence(conn, piece.id, 0, 0); err != nil {
			return pieceRow{}, err
		}
		if err := removeRange(conn, "row_remove", rowID(piece.id, 0), rowID(piece.id, 0)); err != nil {
			return pieceRow{}, err
		}
	}
	if short := int(piece.Size % bao.GroupSize); short > 0 {
		group := piece.Size / bao.GroupSize
		first := group &^ (groupRun - 1)
		marks, err := presentGroups(conn, piece.id, first)
		if err != nil {
			return pieceRow{}, err
		}
		if bit := uint64(1) << (group - first); marks&bit != 0 {
			if err := setPresence(conn, piece.id, first, marks&^bit); err != nil {
				return pieceRow{}, err
			}
			if err := putFragment(conn, piece.id, group, []span{{0, short}}); err != nil {
				return pieceRow{}, err
			}
		}
	}
	piece.Size = size
	stmt := prep(conn, "piece_resize")
	stmt.SetInt64(":id", piece.id)
	stmt.SetInt64(":size", size)
	return piece, exec(stmt)
}

// setPresence stores a bitmap, or removes it if it is empty.
func setPresence(conn *sqlite.Conn, id, first int64, marks uint64) error {
	if marks == 0 {
		return removeRange(conn, "presence_remove", rowID(id, first), rowID(id, first))
	}
	return putPresence(conn, id, first, marks)
}

func putRow(conn *sqlite.Conn, id, group int64, data []byte) error {
	stmt := prep(conn, "row_put")
	stmt.SetInt64(":id", rowID(id, group))
	stmt.SetBytes(":data", data)
	return exec(stmt)
}

// tryRow inserts a row, unless there is one, and reports whether it has.
func tryRow(conn *sqlite.Conn, id, group int64, data []byte) (inserted bool, err error) {
	stmt := prep(conn, "row_try")
	stmt.SetInt64(":id", rowID(id, group))
	stmt.SetBytes(":data", data)
	err = exec(stmt)
	return conn.Changes() > 0, err
}

// readRow reads a row, which must have exactly the length of buf.
func readRow(conn *sqlite.Conn, id, group int64, buf []byte) error {
	stmt := prep(conn, "row_get")
	defer stmt.Reset()
	stmt.SetInt64(":from", rowID(id, group))
	found, err := stmt.Step()
	if err != nil {
		return err
	}
	if !found || stmt.ColumnLen(1) != len(buf) {
		return fmt.Errorf("%w: group %d has not the %d bytes that it should", ErrCorrupt, group, len(buf))
	}
	stmt.ColumnBytes(1, buf)
	return nil
}

// A span is a range of bytes inside a group, half open.
type span struct{ from, to int }

// addSpan adds a span to spans that ascend and do not touch.
func addSpan(spans []span, s span) []span {
	i := 0
	for i < len(spans) && spans[i].to < s.from {
		i++
	}
	j := i
	for j < len(spans) && spans[j].from <= s.to {
		s.from, s.to = min(s.from, spans[j].from), max(s.to, spans[j].to)
		j++
	}
	return slices.Replace(spans, i, j, s)
}

// getFragment returns which bytes of a group are there that is not marked.
func getFragment(conn *sqlite.Conn, id, group int64) ([]span, error) {
	stmt := prep(conn, "fragment_get")
	defer stmt.Reset()
	stmt.SetInt64(":id", rowID(id, group))
	found, err := stmt.Step()
	if err != nil || !found {
		return nil, err
	}
	return parseSpans(stmt.ColumnText(0))
}

func putFragment(conn *sqlite.Conn, id, group int64, spans []span) error {
	stmt := prep(conn, "fragment_put")
	stmt.SetInt64(":id", rowID(id, group))
	stmt.SetText(":ranges", formatSpans(spans))
	return exec(stmt)
}

func removeFragment(conn *sqlite.Conn, id, group int64) error {
	return removeRange(conn, "fragment_remove", rowID(id, group), rowID(id, group))
}

// formatSpans returns the form of spans in the database: A..B,C..D.
func formatSpans(spans []span) string {
	var b strings.Builder
	for i, s := range spans {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%d..%d", s.from, s.to)
	}
	return b.String()
}

// parseSpans reads what formatSpans writes, and nothing else.
func parseSpans(text string) ([]span, error) {
	var spans []span
	for part := range strings.SplitSeq(text, ",") {
		from, to, ok := strings.Cut(part, "..")
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if !ok || errA != nil || errB != nil || a < 0 || a >= b || b > bao.GroupSize ||
			len(spans) > 0 && a <= spans[len(spans)-1].to {
			return nil, fmt.Errorf("%w: fragment %.100q", ErrCorrupt, text)
		}
		spans = append(spans, span{a, b})
	}
	if formatSpans(spans) != text {
		return nil, fmt.Errorf("%w: fragment %.100q", ErrCorrupt, text)
	}
	return spans, nil
}

// writtenBytes returns which bytes of a part of a piece are there, in ranges that
// ascend and do not touch.
func writtenBytes(conn *sqlite.Conn, piece pieceRow, from, to int64) ([]ByteRange, error) {
	to = min(to, piece.Size)
	if from >= to {
		return nil, nil
	}
	if piece.State == Complete {
		return []ByteRange{{from, to}}, nil
	}
	first, last := from/bao.GroupSize, (to-1)/bao.GroupSize
	whole, err := markedBytes(conn, piece, first&^(groupRun-1), last)
	if err != nil {
		return nil, err
	}
	parts, err := fragmentBytes(conn, piece, first, last)
	if err != nil {
		return nil, err
	}
	return clipRanges(mergeRanges(append(whole, parts...)), from, to), nil
}

func markedBytes(conn *sqlite.Conn, piece pieceRow, first, last int64) (list []ByteRange, err error) {
	stmt := prep(conn, "presence_range")
	defer stmt.Reset()
	stmt.SetInt64(":from", rowID(piece.id, first))
	stmt.SetInt64(":to", rowID(piece.id, last))
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return list, err
		}
		start := groupOf(stmt.GetInt64("id"))
		for marks := uint64(stmt.GetInt64("groups")); marks != 0; marks &= marks - 1 {
			group := start + int64(bits.TrailingZeros64(marks))
			begin := group * bao.GroupSize
			list = append(list, ByteRange{begin, begin + int64(bao.GroupLen(piece.Size, group))})
		}
	}
}

func fragmentBytes(conn *sqlite.Conn, piece pieceRow, first, last int64) (list []ByteRange, err error) {
	stmt := prep(conn, "fragment_range")
	defer stmt.Reset()
	stmt.SetInt64(":from", rowID(piece.id, first))
	stmt.SetInt64(":to", rowID(piece.id, last))
	for {
		found, err := stmt.Step()
		if err != nil || !found {
			return list, err
		}
		start := groupOf(stmt.GetInt64("id")) * bao.GroupSize
		spans, err := parseSpans(stmt.GetText("ranges"))
		if err != nil {
			return nil, err
		}
		for _, s := range spans {
			list = append(list, ByteRange{start + int64(s.from), start + int64(s.to)})
		}
	}
}

// mergeRanges sorts ranges and joins those that touch.
func mergeRanges(list []ByteRange) []ByteRange {
	slices.SortFunc(list, func(x, y ByteRange) int { return int(x.Start - y.Start) })
	merged := list[:0]
	for _, r := range list {
		if n := len(merged); n > 0 && r.Start <= merged[n-1].End {
			merged[n-1].End = max(merged[n-1].End, r.End)
		} else {
			merged = append(merged, r)
		}
	}
	return merged
}

// clipRanges returns what of the ranges lies in [from, to).
func clipRanges(list []ByteRange, from, to int64) []ByteRange {
	clipped := list[:0]
	for _, r := range list {
		r.Start, r.End = max(r.Start, from), min(r.End, to)
		if r.Start < r.End {
			clipped = append(clipped, r)
		}
	}
	return clipped
}

// gaps returns what of [from, to) is in none of the ranges, which ascend.
func gaps(list []ByteRange, from, to int64) (missing []ByteRange) {
	for _, r := range list {
		if r.Start > from {
			missing = append(missing, ByteRange{from, min(r.Start, to)})
		}
		from = max(from, r.End)
	}
	if from < to {
		missing = append(missing, ByteRange{from, to})
	}
	return missing
}
