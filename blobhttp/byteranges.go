package blobhttp

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// rangeField returns the list in a Range field that is to be obeyed: nothing if
// there is none, if it counts something else than bytes, or if If-Range says
// that the client knows another content.
func rangeField(header http.Header, etag string) string {
	unit, list, _ := strings.Cut(header.Get("Range"), "=")
	if !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return ""
	}
	if known := header.Get("If-Range"); known != "" && known != etag {
		return ""
	}
	return list
}

// byteRanges reads a list of ranges of a blob with the given size, and leaves
// out those that are behind its end. None means the whole, which is also sent
// where the ranges come to more than that.
func byteRanges(list string, size int64) (ranges []cairn.ByteRange, err error) {
	if list == "" || size == 0 {
		return nil, nil
	}
	if n := strings.Count(list, ",") + 1; n > maxByteRanges {
		return nil, unsatisfiable("%d ranges, at most %d are served", n, maxByteRanges)
	}
	total, named := int64(0), false
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		r, ok := byteRange(part, size)
		if !ok {
			return nil, unsatisfiable("%q is no range", part)
		}
		named = true
		if r.Start < r.End {
			ranges = append(ranges, r)
			total += r.End - r.Start // at most maxByteRanges of the largest blob
		}
	}
	if named && len(ranges) == 0 {
		return nil, unsatisfiable("the blob has only %d bytes", size)
	}
	if total > size {
		return nil, nil
	}
	return ranges, nil
}

func unsatisfiable(format string, args ...any) error {
	return &statusError{http.StatusRequestedRangeNotSatisfiable, fmt.Sprintf(format, args...)}
}

// byteRange reads "5-9", "5-" or "-5". The range is empty if it is behind the
// end.
func byteRange(text string, size int64) (r cairn.ByteRange, ok bool) {
	from, to, ok := strings.Cut(text, "-")
	from, to = strings.TrimSpace(from), strings.TrimSpace(to)
	if !ok || from == "" && to == "" {
		return r, false
	}
	start, startErr := strconv.ParseUint("0"+from, 10, 63)
	end, endErr := strconv.ParseUint("0"+to, 10, 63)
	switch {
	case startErr != nil || endErr != nil:
		return r, false
	case from == "":
		return cairn.ByteRange{Start: size - min(int64(end), size), End: size}, true
	case to == "":
		end = uint64(size) - 1
	case end < start:
		return r, false
	}
	return cairn.ByteRange{Start: min(int64(start), size), End: min(int64(end), size-1) + 1}, true
}

// formatRanges writes ranges as a Range field.
func formatRanges(ranges []cairn.ByteRange) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = fmt.Sprintf("%d-%d", r.Start, r.End-1)
	}
	return "bytes=" + strings.Join(parts, ",")
}

// chunksOf returns the chunks that ranges of bytes touch.
func chunksOf(ranges []cairn.ByteRange) bao.Ranges {
	parts := make([]bao.Ranges, len(ranges))
	for i, r := range ranges {
		parts[i] = bao.Bytes(uint64(r.Start), uint64(r.End))
	}
	return bao.Union(parts...)
}
