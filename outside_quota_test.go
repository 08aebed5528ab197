package cairn_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cairnstore/cairn"
)

// TestQuotaPassesOverFilesOutside moves a piece out: a quota gains nothing by
// taking it away.
func TestQuotaPassesOverFilesOutside(t *testing.T) {
	s := open(t, tempPath(t), nil)
	const size = 300_000
	if err := s.Owner("o").SetQuota(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	opts := &cairn.PieceOptions{Owner: "o"}
	putPiece(t, s, "outside", content(0, size), opts)
	target := filepath.Join(t.TempDir(), "file")
	if err := s.Export(t.Context(), hashOf(content(0, size)), target, &cairn.ExportOptions{Mode: cairn.Reference}); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(5) {
		putPiece(t, s, fmt.Sprint(i), content(i+1, size), opts)
		mustBeSound(t, s)
	}
	mustHaveKeys(t, s, "2", "3", "4", "outside")
	mustRead(t, openPiece(t, s, "outside", size, opts), content(0, size))
}
