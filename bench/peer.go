package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"

	"github.com/cairnstore/cairn/bao"
)

// A store is a peer that keeps values under keys. Put and Get may be called
// concurrently; no method keeps its arguments.
type store interface {
	// Put stores one value. It is durable when Put returns.
	Put(key, value []byte) error
	// Write stores a batch in one transaction. It is durable after Sync, and
	// a crash before that damages nothing else.
	Write(batch []entry) error
	// Sync makes durable what Write has stored.
	Sync() error
	// Get copies the value under a key to buf and returns its length.
	Get(key, buf []byte) (int, error)
	// Close ends the store.
	Close() error
}

// A fileAdder is a store that takes a whole file; the others get it in values
// of chunkSize. The file is durable when AddFile returns.
type fileAdder interface {
	AddFile(path string) error
}

// A lonePutter is a store whose Put waits for company. PutAlone is as durable,
// and for callers who know that they are alone.
type lonePutter interface {
	PutAlone(key, value []byte) error
}

// A settler is a store that can bring its files into the shape that they are
// best read in. It is done to prepared stores, in the peers' favour.
type settler interface {
	Settle() error
}

// errNoValue is Get's error for a key that is not there; it never should be.
var errNoValue = errors.New("no such value")

// An entry is one value to store. In those stores that take a key, it is the
// value's BLAKE3 hash, or its number in a large blob.
type entry struct{ key, value []byte }

const (
	// batchSize is the most bytes of values written in one transaction. It is
	// below the limit of Badger's transactions.
	batchSize = 8 << 20
	// chunkSize is the size of the values a large file is stored as.
	chunkSize = 64 << 10
)

// Names of the peers, in the order of the table's columns.
const (
	cairnPeer   = subject
	filesPeer   = "files"
	looseFiles  = "files-nodirsync"
	checkedFile = "files-checked"
	bboltPeer   = "bbolt"
	tunedBbolt  = "bbolt-tuned"
	pebblePeer  = "pebble"
	badgerPeer  = "badger"
	sqlitePeer  = "sqlite"
)

var (
	peerNames = []string{
		cairnPeer, addPeer, unlimitedPeer, durableBlocks, relaxedPieces, hashPeer, hashPeer2,
		filesPeer, looseFiles, checkedFile, bboltPeer, tunedBbolt, pebblePeer, badgerPeer, sqlitePeer,
		fileStorage, plainStorage, mmapStorage, boltStorage, memoryStorage,
	}
	databases = []string{bboltPeer, pebblePeer, badgerPeer, sqlitePeer}
)

var openers = map[string]func(dir string) (store, error){
	cairnPeer:  openCairn,
	addPeer:    openCairn,
	filesPeer:  func(dir string) (store, error) { return openFiles(dir, true) },
	looseFiles: func(dir string) (store, error) { return openFiles(dir, false) },
	bboltPeer:  func(dir string) (store, error) { return openBolt(dir, 0) },
	tunedBbolt: func(dir string) (store, error) { return openBolt(dir, smallConns) },
	pebblePeer: openPebble,
	badgerPeer: openBadger,
	sqlitePeer: openSQLite,
}

// open opens the child's store, and makes it if there is none.
func (c *child) open() (store, error) {
	opener, ok := openers[c.Peer]
	if !ok {
		return nil, fmt.Errorf("%s is not a store", c.Peer)
	}
	return opener(c.Dir)
}

// with opens the store, hands it to f, and closes it.
func (c *child) with(f func(s store) error) error {
	s, err := c.open()
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.Close())
}

// load writes batches and makes them durable.
func load(s store, batches iter.Seq2[[]entry, error]) error {
	for batch, err := range batches {
		if err != nil {
			return err
		}
		if err := s.Write(batch); err != nil {
			return err
		}
	}
	return s.Sync()
}

// settle waits for a prepared store to take its best shape.
func settle(s store) error {
	if s, ok := s.(settler); ok {
		return s.Settle()
	}
	return nil
}

// fileBatches cuts a file into numbered values of at most size bytes. A batch
// is valid until the next one.
func fileBatches(path string, size int) iter.Seq2[[]entry, error] {
	return func(yield func([]entry, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		buf := make([]byte, batchSize)
		for next := int64(0); ; {
			n, err := io.ReadFull(f, buf)
			var batch []entry
			for off := 0; off < n; off += size {
				batch = append(batch, entry{numberKey(next), buf[off:min(off+size, n)]})
				next++
			}
			if len(batch) > 0 && !yield(batch, nil) {
				return
			}
			switch err {
			case nil:
			case io.EOF, io.ErrUnexpectedEOF:
				return
			default:
				yield(nil, err)
				return
			}
		}
	}
}

// numberKey is the key of a large blob's i-th value: in order, as suits trees.
func numberKey(i int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

// smallBatches makes the numbered small blobs from 0 to n-1.
func smallBatches(n, size int) iter.Seq2[[]entry, error] {
	return func(yield func([]entry, error) bool) {
		const perBatch = 8192
		batch := make([]entry, 0, perBatch)
		for i := range n {
			value := make([]byte, size)
			fill(value, i)
			batch = append(batch, entry{hashOf(value), value})
			if len(batch) == perBatch || i == n-1 {
				if !yield(batch, nil) {
					return
				}
				batch = batch[:0]
			}
		}
	}
}

// noise is where the contents of small blobs are cut from.
var noise = func() []byte {
	b := make([]byte, bao.GroupSize+1021)
	rand.NewChaCha8([32]byte([]byte("the noise in which blobs are cut"))).Read(b)
	return b
}()

// fill makes the content of the i-th small blob of its size, at most a group:
// cheap to make, so that it costs little in a measured part, not compressible,
// and unique.
func fill(buf []byte, i int) {
	copy(buf, noise[i%1021:])
	binary.LittleEndian.PutUint64(buf, uint64(i)*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(buf[8:], uint64(i))
}

// hashOf returns the BLAKE3 hash of a small blob, which is at most one group.
func hashOf(content []byte) []byte {
	var buf [bao.GroupSize]byte
	n := copy(buf[:], content)
	hash := bao.GroupCV(&buf, n, 0, true)
	return hash[:]
}
