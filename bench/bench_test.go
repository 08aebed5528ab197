package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// These are Cairn's own benchmarks, to be compared between two versions of it
// by benchstat; the program compares it with others. With -short, the large
// blob is smaller.

// benchBlob returns the content of the large blob, and the name of its size.
func benchBlob() ([]byte, string) {
	size, name := 64<<20, "64MiB"
	if testing.Short() {
		size, name = 4<<20, "4MiB"
	}
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(content)
	return content, name
}

func benchStore(b *testing.B) *cairn.Store {
	b.Helper()
	s, err := cairn.Open(b.Context(), filepath.Join(b.TempDir(), "cairn.db"), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func BenchmarkAdd(b *testing.B) {
	content, size := benchBlob()
	b.Run("size="+size, func(b *testing.B) { benchAddLarge(b, content) })
	b.Run("size=4KiB/conns=1", func(b *testing.B) { benchAddSmall(b, 1) })
	b.Run("size=4KiB/conns=16", func(b *testing.B) { benchAddSmall(b, 16) })
}

func benchAddLarge(b *testing.B, content []byte) {
	s := benchStore(b)
	b.SetBytes(int64(len(content)))
	for n := uint64(0); b.Loop(); n++ {
		binary.LittleEndian.PutUint64(content, n)
		tag, err := s.Add(b.Context(), bytes.NewReader(content), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer() // the next one reuses the space
		tag.Release()
		if err := s.Delete(b.Context(), tag.Hash()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// benchAddSmall has a number of goroutines that each wait for their blob.
func benchAddSmall(b *testing.B, conns int) {
	s := cairnStore{benchStore(b)}
	b.SetBytes(smallSize)
	benchParallel(b, conns, func(i int, buf []byte) error {
		fill(buf[:smallSize], i)
		return s.Put(nil, buf[:smallSize])
	})
}

// benchParallel hands the numbers of a benchmark's rounds to goroutines, each
// of which has a buffer of one group.
func benchParallel(b *testing.B, conns int, f func(i int, buf []byte) error) {
	rounds := make(chan int)
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			buf := make([]byte, bao.GroupSize)
			for i := range rounds {
				if err := f(i, buf); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	for i := 0; b.Loop(); i++ {
		rounds <- i
	}
	close(rounds)
	wg.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
}

// benchLoaded returns a store's handle on the large blob.
func benchLoaded(b *testing.B, content []byte) *cairn.Blob {
	b.Helper()
	s := benchStore(b)
	tag, err := s.AddBytes(b.Context(), content, nil)
	if err != nil {
		b.Fatal(err)
	}
	blob, err := s.Blob(context.Background(), tag.Hash()) // outlives b.Context
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { blob.Close() })
	return blob
}

func BenchmarkRead(b *testing.B) {
	content, size := benchBlob()
	b.Run("size="+size, func(b *testing.B) {
		blob := benchLoaded(b, content)
		b.SetBytes(blob.Size())
		for b.Loop() {
			if _, err := blob.Seek(0, io.SeekStart); err != nil {
				b.Fatal(err)
			}
			if _, err := blob.WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkReadAt(b *testing.B) {
	content, _ := benchBlob()
	blob := benchLoaded(b, content)
	groups := bao.Groups(blob.Size())
	for _, conns := range []int{1, 4} {
		b.Run(fmt.Sprintf("size=16KiB/conns=%d", conns), func(b *testing.B) {
			b.SetBytes(bao.GroupSize)
			benchParallel(b, conns, func(_ int, buf []byte) error {
				_, err := blob.ReadAt(buf, rand.Int64N(groups)*bao.GroupSize)
				return err
			})
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	const n = 10_000
	dir := b.TempDir()
	s, err := openCairn(dir)
	if err != nil {
		b.Fatal(err)
	}
	if err := load(s, smallBatches(n, tinySize)); err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.Run("blobs=10000", func(b *testing.B) {
		for b.Loop() {
			s, err := openCairn(dir)
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}
