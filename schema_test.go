package cairn_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

var update = flag.Bool("update", false, "write schema.sql and the golden files anew")

// golden compares text with a file, or writes the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what it was; run go test -update . and look at the difference\n%s", name, got)
	}
}

// TestSchema keeps schema.sql, which people read and nothing executes, equal to
// what the migrations make.
func TestSchema(t *testing.T) {
	s := open(t, ":memory:", nil)
	objects, err := s.SchemaObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("-- The schema after all migrations, for people to read. The migrations make it;\n" +
		"-- this file is written from them by go test -update . and never executed.\n" +
		"-- Comments stand in migrations/ and in FORMAT.md.\n")
	kinds := []string{"table ", "index ", "view ", "trigger "}
	for _, kind := range kinds {
		for _, name := range slices.Sorted(maps.Keys(objects)) {
			if strings.HasPrefix(name, kind) {
				b.WriteString("\n" + objects[name] + ";\n")
			}
		}
	}
	golden(t, "schema.sql", b.String())

	conn, err := sqlite.OpenConn(":memory:", sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := sqlitex.ExecuteScript(conn, b.String(), nil); err != nil {
		t.Errorf("schema.sql is not SQL: %v", err)
	}
}

// TestQueryPlans keeps every query on an index: a scan of a table that grows
// shows as a change of the golden file.
func TestQueryPlans(t *testing.T) {
	s := open(t, ":memory:", nil)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(cairn.Queries)) {
		plan, err := s.QueryPlan(t.Context(), name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b.WriteString(name + "\n")
		for _, line := range plan {
			b.WriteString("\t" + line + "\n")
		}
	}
	golden(t, filepath.Join("testdata", "query-plans.txt"), b.String())
}

// imageBlobs are in every image of an old schema version.
var imageBlobs = [][]byte{nil, []byte("cairn"), pattern(40_000), pattern(1<<20 + 16384 + 5)}

// pattern returns n bytes that compress well.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

// TestOldImages opens a database of each schema version that was ever landed.
func TestOldImages(t *testing.T) {
	for version := 1; version <= len(cairn.Migrations); version++ {
		name := filepath.Join("testdata", "schema-"+string(rune('0'+version))+".db.gz")
		if *update && version == len(cairn.Migrations) {
			makeImage(t, name)
		}
		path := tempPath(t)
		if err := os.WriteFile(path, gunzip(t, name), 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, path, nil)
		if version >= 4 {
			checkImageOutside(t, s) // before a check misses the file
		}
		mustBeSound(t, s)
		for _, b := range imageBlobs {
			mustHave(t, s, b)
			checkOutboard(t, s, b)
		}
		if st, err := s.Stats(t.Context()); err != nil || st.SchemaVersion != len(cairn.Migrations) {
			t.Errorf("%+v, %v", st, err)
		}
		if version >= 2 {
			checkImagePartial(t, s)
		}
		if version >= 3 {
			checkImagePieces(t, s)
		}
		if version >= 4 {
			checkImageTags(t, s)
		}
		add(t, s, []byte("later"))
		mustBeSound(t, s)
	}
}

// imagePiece is in the images of version 3 and later: complete under one key, in
// part under another one, of an owner with a quota, in a store with a capacity.
var imagePiece = pattern(100_000)

func makeImagePieces(t *testing.T, s *cairn.Store) {
	t.Helper()
	owner := s.Owner("owner")
	if err := errors.Join(s.SetCapacity(t.Context(), 1<<30), owner.SetQuota(t.Context(), 1<<20)); err != nil {
		t.Fatal(err)
	}
	opts := &cairn.PieceOptions{Owner: "owner"}
	whole := openPiece(t, s, "whole", len(imagePiece), opts)
	writePiece(t, whole, imagePiece, 0)
	completePiece(t, whole, imagePiece)
	part := openPiece(t, s, "part", len(imagePiece), opts)
	writePiece(t, part, imagePiece[:40_000], 0)
	writePiece(t, part, imagePiece[50_000:50_010], 50_000)
}

func checkImagePieces(t *testing.T, s *cairn.Store) {
	t.Helper()
	mustRead(t, openPiece(t, s, "whole", len(imagePiece), nil), imagePiece)
	part := openPiece(t, s, "part", len(imagePiece), nil)
	if written, err := part.Written(t.Context()); err != nil || fmt.Sprint(written) != "[{0 40000} {50000 50010}]" {
		t.Errorf("%v, %v", written, err)
	}
	writePiece(t, part, imagePiece[30_000:], 30_000)
	completePiece(t, part, imagePiece)
	usage, err := s.Owner("owner").Usage(t.Context())
	if err != nil || usage.Pieces != 2 || usage.Bytes != int64(len(imagePiece)) || usage.Quota != 1<<20 {
		t.Errorf("%+v, %v", usage, err)
	}
	if c := s.Capacity(); c != 1<<30 {
		t.Errorf("capacity %d", c)
	}
}

// imagePartial is in the images of version 2 and later: some of a blob whose
// size is not proven.
var (
	imagePartial       = pattern(3<<20 + 77)
	imagePartialRanges = "0..16,160..320,2048..2064"
)

func checkImagePartial(t *testing.T, s *cairn.Store) {
	t.Helper()
	hash := hashOf(imagePartial)
	if got, err := s.Ranges(t.Context(), hash); err != nil || got.String() != imagePartialRanges {
		t.Errorf("ranges %v, %v", got, err)
	}
	b, err := s.Blob(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := make([]byte, 160*1024)
	if _, err := b.ReadAt(got, 160*1024); err != nil || !bytes.Equal(got, imagePartial[160*1024:320*1024]) {
		t.Errorf("partial blob of the image: %v", err)
	}
	importRanges(t, s, imagePartial, "all")
	mustHave(t, s, imagePartial)
	checkOutboard(t, s, imagePartial)
}
