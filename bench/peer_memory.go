package main

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
)

// memoryClient keeps torrents in memory, and nothing more: it is the limit of
// what the measuring program itself can do.
type memoryClient struct{}

func (memoryClient) Close() error { return nil }

// OpenTorrent returns a torrent without content.
func (memoryClient) OpenTorrent(_ context.Context, info *metainfo.Info, _ metainfo.Hash) (storage.TorrentImpl, error) {
	pieces := make([]memoryPiece, info.NumPieces())
	return storage.TorrentImpl{
		Piece: func(p metainfo.Piece) storage.PieceImpl {
			piece := &pieces[p.Index()]
			piece.allocate.Do(func() { piece.data = make([]byte, p.Length()) })
			return piece
		},
		Close: func() error { return nil },
	}, nil
}

// A memoryPiece has no lock around its data: nobody reads what is being
// written.
type memoryPiece struct {
	allocate sync.Once
	data     []byte
	complete atomic.Bool
}

var _ io.WriterTo = (*memoryPiece)(nil)

func (p *memoryPiece) WriteAt(b []byte, off int64) (int, error) { return copy(p.data[off:], b), nil }

func (p *memoryPiece) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, p.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (p *memoryPiece) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(p.data)
	return int64(n), err
}

func (p *memoryPiece) MarkComplete() error {
	p.complete.Store(true)
	return nil
}

func (p *memoryPiece) MarkNotComplete() error {
	p.complete.Store(false)
	return nil
}

func (p *memoryPiece) Completion() storage.Completion {
	return storage.Completion{Ok: true, Complete: p.complete.Load()}
}
