package cairn_test

import (
	"bytes"
	"testing"

	"github.com/cairnstore/cairn"
)

// TestHeldOutlivesPinOfKey: content that a key's pin and a temp tag protect, of
// which the table knows the pin only, stays when the key comes to name another.
func TestHeldOutlivesPinOfKey(t *testing.T) {
	s := open(t, ":memory:", nil)
	ctx := t.Context()
	hash := must(s.PutPiece(ctx, "a", bytes.NewReader(content(1, 1000)), -1, nil))
	must(s.PutPiece(ctx, "b", bytes.NewReader(content(2, 1000)), -1, nil))
	pin := must(s.Pin(ctx, cairn.Window{Keys: []string{"a"}}))
	defer pin.Release()
	mustBe(t, s.SetCapacity(ctx, 1000), nil) // evicts b, and notes that a is pinned
	mustBe(t, s.SetCapacity(ctx, 5000), nil)
	tag := s.TempTag(cairn.HashAndFormat{Hash: hash})
	defer tag.Release()
	must(s.PutPiece(ctx, "a", bytes.NewReader(content(3, 1000)), -1, nil))
	mustBe(t, s.SetCapacity(ctx, 6000), nil)
	if status := must(s.Status(ctx, hash)); status.State != cairn.Complete {
		t.Errorf("held content is %v", status.State)
	}
}
