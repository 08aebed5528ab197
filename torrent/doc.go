// Package torrent is a storage for the client github.com/anacrolix/torrent: it
// keeps the pieces of torrents in a [cairn.Store], in one file.
//
//	config := torrent.NewDefaultClientConfig()
//	config.DefaultStorage, err = cairntorrent.Open(ctx, "pieces.db", nil)
//	config.KeepAliveTimeout = time.Second // see below
//
// # Capacity
//
// A store's capacity, and the quota of a torrent's [cairn.Owner], bound what is
// kept. The client asks for no more pieces than fit, those that a reader is about
// to read before others. A reader may read ahead as far as it likes: what has been
// read from start to end goes first, so each piece is fetched once, even with room
// for one piece only. What does not fit even so is evicted and fetched again: for
// several readers, there has to be room for what each of them is about to read.
// A torrent of which not one piece fits is not opened: [cairn.ErrTooLarge]. If the
// capacity falls below a piece later, the client asks for nothing until it is
// raised, and says nothing.
//
// Writes wait while there is no room, because all of it is protected or the disk
// is full, and go on when there is some; [Options.Logger] is told.
//
// # What to set in the client
//
// Version 1.61.0 of the client, which this package is built and tested with, has
// two faults that concern streams. The source of version 1.62.0 has neither.
//
// The goroutine that writes to a peer can miss that there is something to ask
// for, or to send, if that comes up just when it has found nothing to do. Nothing
// moves on that connection then, until something else is written to it, at the
// latest a keep-alive message, which by default is a minute later. It happens with
// any storage, but more often with a capacity, where the client looks for what to
// ask for at each piece that is read: once in some hundred streams of 16 MiB over
// loopback. With KeepAliveTimeout set to a second it lasts about that long; where
// the peer is such a client too, it has to be set there as well.
//
// Under a capacity, a read that waits for data when its context ends, or when the
// torrent is dropped, is retried at once and without end: if the data does not come
// soon, the process dies of a stack overflow. So end a stream between two reads, and
// close the Reader before the torrent is dropped.
package torrent
