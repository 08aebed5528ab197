package bao_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/cairnstore/cairn/bao"
)

const benchSize = 64 << 20

// benchBlob does without what newBlob makes for comparison.
func benchBlob(b *testing.B) *blob {
	b.Helper()
	content := noise(benchSize)
	return &blob{tree: build(b, content), ReaderAt: bytes.NewReader(content), content: content}
}

func BenchmarkEncode(b *testing.B) {
	src := benchBlob(b)
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for b.Loop() {
		if err := bao.Encode(io.Discard, src.root, src.size, bao.All(), src); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncodeGroup makes the smallest response that can be kept.
func BenchmarkEncodeGroup(b *testing.B) {
	src := benchBlob(b)
	b.SetBytes(bao.GroupSize)
	b.ReportAllocs()
	for b.Loop() {
		if err := bao.Encode(io.Discard, src.root, src.size, bao.Chunks(1600, 1616), src); err != nil {
			b.Fatal(err)
		}
	}
}

func benchDecode(b *testing.B, src *blob, r bao.Ranges, want int) {
	response := src.mustEncode(b, r)
	reader := bytes.NewReader(nil)
	b.SetBytes(int64(want))
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(response)
		d := bao.NewDecoder(reader, src.root, r)
		n := 0
		for {
			part, err := d.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			n += len(part.Data)
		}
		if n != want {
			b.Fatalf("%d bytes", n)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	benchDecode(b, benchBlob(b), bao.All(), benchSize)
}

func BenchmarkDecodeGroup(b *testing.B) {
	benchDecode(b, benchBlob(b), bao.Chunks(1600, 1616), bao.GroupSize)
}
