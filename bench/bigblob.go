package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/bao"
)

// bigStore is the prepared store with the large blob in it.
const bigStore = "big"

// A bigBlob is the large blob in one peer's prepared store. readGroup reads
// one whole group and may be called concurrently; writeTo, nil for the
// databases, reads everything; writePiece stores the i-th value of pieceSize
// beside the blob, group by group, and it is durable then.
type bigBlob struct {
	readGroup  func(group int64, buf *[bao.GroupSize]byte) error
	writeTo    func(w io.Writer) (int64, error)
	writePiece func(i int, content []byte) error
	close      func() error
}

// prepareBig stores the source: as one blob or file, or as values of 16 KiB.
func (c *child) prepareBig() error {
	switch c.Peer {
	case filesPeer, checkedFile:
		return c.copySource(c.plainFile())
	case cairnPeer, addPeer:
		return c.with(func(s store) error { return storeFile(s, c.Source) })
	}
	return c.with(func(s store) error {
		return errors.Join(load(s, fileBatches(c.Source, bao.GroupSize)), settle(s))
	})
}

// withBlob opens the prepared blob, hands it to f, and closes it.
func (c *child) withBlob(f func(b *bigBlob) error) error {
	var b *bigBlob
	var err error
	switch c.Peer {
	case cairnPeer, addPeer:
		b, err = c.cairnBlob()
	case filesPeer:
		b, err = c.fileBlob(nil)
	case checkedFile:
		var cvs []bao.CV
		if cvs, err = groupCVs(c.Source); err == nil {
			b, err = c.fileBlob(cvs)
		}
	default:
		b, err = c.valuesBlob()
	}
	if err != nil {
		return err
	}
	return errors.Join(f(b), b.close())
}

func (c *child) plainFile() string { return filepath.Join(c.Dir, "blob") }

// copySource makes a synced copy of the source.
func (c *child) copySource(target string) error {
	in, err := os.Open(c.Source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(target)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// cairnBlob opens the only blob of the store.
func (c *child) cairnBlob() (*bigBlob, error) {
	s, err := openCairn(c.Dir)
	if err != nil {
		return nil, err
	}
	cs := s.(cairnStore)
	b, err := onlyBlob(cs.Store)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	writePiece := cs.writePiece
	if c.Peer == addPeer {
		writePiece = func(_ int, content []byte) error { return s.Put(nil, content) }
	}
	return &bigBlob{
		readGroup: func(group int64, buf *[bao.GroupSize]byte) error {
			_, err := b.ReadAt(buf[:], group*bao.GroupSize)
			return err
		},
		writeTo:    b.WriteTo,
		writePiece: writePiece,
		close:      func() error { return errors.Join(b.Close(), s.Close()) },
	}, nil
}

func onlyBlob(s *cairn.Store) (*cairn.Blob, error) {
	ctx := context.Background()
	for info, err := range s.Blobs(ctx, nil) {
		if err != nil {
			return nil, err
		}
		return s.Blob(ctx, info.Hash)
	}
	return nil, errNoValue
}

// fileBlob opens the plain file. If cvs is not nil, every group that is read
// is hashed and compared with its own.
func (c *child) fileBlob(cvs []bao.CV) (*bigBlob, error) {
	f, err := os.Open(c.plainFile())
	if err != nil {
		return nil, err
	}
	return &bigBlob{
		readGroup: func(group int64, buf *[bao.GroupSize]byte) error {
			if _, err := f.ReadAt(buf[:], group*bao.GroupSize); err != nil {
				return err
			}
			return checkGroups(buf[:], bao.GroupSize, group, cvs)
		},
		writeTo:    func(w io.Writer) (int64, error) { return readFile(f, w, cvs) },
		writePiece: c.writePieceFile,
		close:      f.Close,
	}, nil
}

// readFile reads a file from its start, 1 MiB at a time.
func readFile(f *os.File, w io.Writer, cvs []bao.CV) (total int64, err error) {
	buf := make([]byte, 1<<20)
	for {
		n, err := f.ReadAt(buf, total)
		if err != nil && err != io.EOF {
			return total, err
		}
		if err := checkGroups(buf, n, total/bao.GroupSize, cvs); err != nil {
			return total, err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return total, err
		}
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
	}
}

// checkGroups compares the groups in buf[:n] with their CVs, if there are any.
// The buffer is a whole number of groups long.
func checkGroups(buf []byte, n int, group int64, cvs []bao.CV) error {
	for off := 0; cvs != nil && off < n; off += bao.GroupSize {
		data := (*[bao.GroupSize]byte)(buf[off:])
		if bao.GroupCV(data, min(n-off, bao.GroupSize), group, false) != cvs[group] {
			return fmt.Errorf("group %d: wrong hash", group)
		}
		group++
	}
	return nil
}

// groupCVs hashes the groups of a file of more than one.
func groupCVs(path string) (cvs []bao.CV, err error) {
	for batch, err := range fileBatches(path, bao.GroupSize) {
		if err != nil {
			return nil, err
		}
		for _, e := range batch {
			var buf [bao.GroupSize]byte
			n := copy(buf[:], e.value)
			cvs = append(cvs, bao.GroupCV(&buf, n, int64(len(cvs)), false))
		}
	}
	return cvs, nil
}

// valuesBlob opens a database with a value for each group.
func (c *child) valuesBlob() (*bigBlob, error) {
	s, err := c.open()
	if err != nil {
		return nil, err
	}
	return &bigBlob{
		readGroup: func(group int64, buf *[bao.GroupSize]byte) error {
			n, err := s.Get(numberKey(group), buf[:])
			if err == nil && n != len(buf) {
				err = fmt.Errorf("group %d: %d bytes", group, n)
			}
			return err
		},
		writePiece: func(i int, content []byte) error { return writeValues(s, i, content) },
		close:      s.Close,
	}, nil
}
