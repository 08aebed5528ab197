package torrent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/cairnstore/cairn"
)

// Options configure a [Storage]. The zero value, and nil, are the defaults.
type Options struct {
	// Store are the options of the store that [Open] opens: its capacity, for
	// example. [New] takes no notice of them.
	Store *cairn.Options
	// DurableBlocks makes each block that arrives as durable as the store is,
	// before the client is told that it is written. By default blocks wait in
	// memory until their piece is marked complete, or a few seconds: the death
	// of the process loses them, and a power loss a few more. It does no harm
	// but that the client fetches them again, which it does in any case with a
	// piece that it had not marked. A complete piece is always durable.
	DurableBlocks bool
	// Buffer is how many bytes of blocks wait in memory at most, of all
	// torrents together. Default (0): 32 MiB. If negative, each block goes to
	// the store when it comes.
	Buffer int64
	// Logger is told about each wait for room, about torrents of which no piece
	// fits, and about damaged pieces that are fetched again. Default: nothing is
	// logged.
	Logger *slog.Logger
}

func (o *Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

func (o *Options) buffer() int64 {
	switch {
	case o.DurableBlocks:
		return 0
	case o.Buffer == 0:
		return 32 << 20
	}
	return o.Buffer
}

// pieceOptions are those of the pieces of a torrent.
func (o *Options) pieceOptions(owner string) *cairn.PieceOptions {
	opts := &cairn.PieceOptions{Owner: owner}
	if !o.DurableBlocks {
		opts.Durability = cairn.Relaxed
	}
	return opts
}

// A Storage keeps the pieces of torrents in a [cairn.Store]. All its methods
// may be called concurrently.
type Storage struct {
	store *cairn.Store
	owned bool // the store is closed with the Storage
	opts  Options
	log   *slog.Logger

	// capacity is what the torrents that share the store's capacity show to
	// the client, which groups them by this pointer.
	capacity storage.TorrentCapacity

	buffers buffers
	pins    pins
	// changes counts the changes that are made through this Storage, each
	// once it is over.
	changes atomic.Uint64

	mu       sync.Mutex
	closed   bool
	torrents map[*torrent]struct{} // those that are open
}

var _ storage.ClientImplCloser = (*Storage)(nil)

// Open opens the database at path, makes it if there is none, and returns a
// Storage on it whose Close closes it. The errors are those of [cairn.Open].
// ctx bounds the opening only.
func Open(ctx context.Context, path string, opts *Options) (*Storage, error) {
	var storeOpts *cairn.Options
	if opts != nil {
		storeOpts = opts.Store
	}
	store, err := cairn.Open(ctx, path, storeOpts)
	if err != nil {
		return nil, err
	}
	s := New(store, opts)
	s.owned = true
	return s, nil
}

// New returns a Storage on a store, which stays open when the Storage is
// closed. Several Storages on one store see the same pieces.
func New(store *cairn.Store, opts *Options) *Storage {
	if opts == nil {
		opts = &Options{}
	}
	s := &Storage{
		store:    store,
		opts:     *opts,
		log:      opts.logger(),
		torrents: make(map[*torrent]struct{}),
	}
	s.buffers = buffers{log: s.log, limit: opts.buffer(), byPiece: make(map[pieceID]*buffer)}
	capacity := func() (int64, bool) { return limit(store.Capacity()), true }
	s.capacity = &capacity
	return s
}

// limit turns a capacity or a quota into one that is compared as a number.
func limit(bytes int64) int64 {
	if bytes == cairn.Unlimited {
		return math.MaxInt64
	}
	return bytes
}

// Store returns the store that the pieces are in.
func (s *Storage) Store() *cairn.Store { return s.store }

// Owner returns the owner of a torrent's pieces, whose name is the infohash in
// hexadecimal digits. Its [cairn.Owner.Usage] tells what the torrent takes;
// its quota, if it has one when the client opens the torrent, is shown to the
// client as the torrent's capacity, so that it does not ask for more than it
// can keep.
func (s *Storage) Owner(infoHash metainfo.Hash) *cairn.Owner {
	return s.store.Owner(infoHash.HexString())
}

// OpenTorrent implements [storage.ClientImpl]. A torrent whose pieces cannot
// be listed opens all the same, as the client cannot do without, and each
// [storage.Completion] tells the error.
//
// It is [cairn.ErrTooLarge] if the capacity or the quota is below the length of
// a piece: the client would never ask for anything, and say nothing.
//
// A client learns whether the space is limited when it opens a torrent, and
// must not be told otherwise later. A capacity or a quota may change at any
// time, but one that is set where there was none is unknown to the client for
// as long as the torrent is open: it finds pieces gone and fetches them again.
func (s *Storage) OpenTorrent(ctx context.Context, info *metainfo.Info, infoHash metainfo.Hash) (storage.TorrentImpl, error) {
	t := newTorrent(s, info, infoHash.HexString())
	capacity := s.capacityOf(ctx, t)
	if err := admits(capacity, info.PieceLength); err != nil {
		t.cancel()
		err = fmt.Errorf("open torrent %s: %w", t.owner, err)
		s.log.Error("a torrent does not fit", "err", err)
		return storage.TorrentImpl{}, err
	}
	s.mu.Lock()
	if s.closed {
		t.cancel()
	} else {
		s.torrents[t] = struct{}{}
	}
	s.mu.Unlock()
	return storage.TorrentImpl{
		Piece:         t.piece,
		PieceWithHash: t.pieceWithHash,
		Close:         t.Close,
		Capacity:      capacity,
	}, nil
}

// capacityOf returns what bounds a torrent: nil if nothing does.
func (s *Storage) capacityOf(ctx context.Context, t *torrent) storage.TorrentCapacity {
	usage, err := s.store.Owner(t.owner).Usage(ctx)
	if err == nil && usage.Quota != cairn.Unlimited {
		quota := usage.Quota
		capacity := func() (int64, bool) { return min(quota, limit(s.store.Capacity())), true }
		return &capacity
	}
	if s.store.Capacity() == cairn.Unlimited {
		return nil
	}
	return s.capacity
}

// admits returns ErrTooLarge if no piece fits a capacity. It is the length that
// pieces usually have which the client compares, too, even if there is but one,
// and that is shorter.
func admits(capacity storage.TorrentCapacity, pieceLength int64) error {
	if capacity == nil {
		return nil
	}
	if limit, _ := (*capacity)(); limit < pieceLength {
		return fmt.Errorf("%w: pieces of %d bytes, the capacity or the quota is %d", cairn.ErrTooLarge, pieceLength, limit)
	}
	return nil
}

// RemoveTorrent deletes, in one commit, all that only this torrent has. What
// of it is open is closed first, so drop it from the client before: later
// calls on it return [cairn.ErrClosed]. A torrent of which there is nothing is
// not an error; [cairn.ErrConflict] means that somebody else's pin holds a
// piece, and that nothing has been deleted.
func (s *Storage) RemoveTorrent(ctx context.Context, infoHash metainfo.Hash) error {
	owner := infoHash.HexString()
	for _, t := range s.find(func(t *torrent) bool { return t.owner == owner }) {
		t.stop() // a write that waits for room holds the blocks of its piece
	}
	s.buffers.dropTorrent(owner)
	s.closeTorrents(func(t *torrent) bool { return t.owner == owner })
	err := s.store.Owner(owner).Delete(ctx)
	if err != nil && !errors.Is(err, cairn.ErrNotFound) {
		return fmt.Errorf("remove torrent %s: %w", owner, err)
	}
	return nil
}

// closeTorrents closes the open torrents that match.
func (s *Storage) closeTorrents(match func(*torrent) bool) {
	for _, t := range s.find(match) {
		t.end()
	}
}

// find returns the open torrents that match.
func (s *Storage) find(match func(*torrent) bool) (found []*torrent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.torrents {
		if match(t) {
			found = append(found, t)
		}
	}
	return found
}

// Close closes what torrents are open, ends the waits for room, and closes the
// store if [Open] has opened it. The client does not close a storage that it
// was given: close the client first.
func (s *Storage) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	open := s.find(func(*torrent) bool { return true })
	for _, t := range open {
		t.stop()
	}
	for _, t := range open {
		t.Close()
	}
	s.buffers.close()
	if s.owned {
		return s.store.Close()
	}
	return nil
}
