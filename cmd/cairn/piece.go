package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cairnstore/cairn"
)

// pieceCmd are the commands about keyed pieces.
type pieceCmd struct {
	Put      piecePutCmd      `cmd:"" help:"Store a file as a complete piece."`
	Write    pieceWriteCmd    `cmd:"" help:"Write a part of a piece."`
	Complete pieceCompleteCmd `cmd:"" help:"Make a piece of which all is written a blob."`
	Get      pieceGetCmd      `cmd:"" help:"Write a complete piece's verified bytes."`
	Ls       pieceLsCmd       `cmd:"" help:"List pieces in byte order of their keys."`
	Rm       pieceRmCmd       `cmd:"" help:"Delete a piece."`
}

// pieceHelp tells how pieces are printed.
var pieceHelp = "Prints KEY SIZE STATE HASH, with - for the hash of a piece that is not complete (in JSON, nothing). " + namesHelp("key", "key")

// pieceObject is what is printed of a piece.
type pieceObject struct {
	Key      string      `json:"key"`
	KeyBytes []byte      `json:"key_base64,omitempty"`
	Size     int64       `json:"size"`
	State    cairn.State `json:"state"`
	Hash     string      `json:"hash"` // empty of an incomplete piece
}

func printPiece(a *app, w io.Writer, key string, size int64, state cairn.State, hash cairn.Hash) error {
	object := pieceObject{Key: key, KeyBytes: nameBytes(key), Size: size, State: state}
	text := "-"
	if state == cairn.Complete {
		object.Hash = hash.String()
		text = object.Hash
	}
	return a.print(w, fmt.Sprintf("%s %d %v %s", nameText(key), size, state, text), object)
}

// printState prints what there is of an open piece now.
func printState(ctx context.Context, a *app, piece *cairn.Piece) error {
	c, err := piece.Completion(ctx)
	if err != nil {
		return err
	}
	return printPiece(a, a.out, piece.Key(), piece.Size(), c.State, c.Hash)
}

type piecePutCmd struct {
	Owner name   `name:"owner" placeholder:"NAME" help:"Whom a new piece belongs to. Default: nobody."`
	Key   name   `arg:"" name:"key" help:"The piece."`
	File  string `arg:"" name:"file" default:"-" help:"Its content. Default: -, standard input."`
}

// Help is shown below the usage.
func (piecePutCmd) Help() string {
	return pieceHelp + "\n\nWhat the piece had is replaced; its owner stays the same."
}

// Validate is called by the parser.
func (c *piecePutCmd) Validate() error {
	return validFile(c.File)
}

func (c *piecePutCmd) Run(ctx context.Context, a *app) error {
	opts := &cairn.PieceOptions{Owner: string(c.Owner)}
	return a.takeIn(ctx, c.File, func(store *cairn.Store, in io.Reader) (*cairn.Piece, error) {
		if _, err := store.PutPiece(ctx, string(c.Key), in, sizeOf(in), opts); err != nil {
			return nil, err
		}
		return store.OpenPiece(ctx, string(c.Key))
	})
}

type pieceWriteCmd struct {
	Key    name      `arg:"" name:"key" help:"The piece."`
	Size   byteCount `arg:"" name:"size" help:"The size of the whole piece in bytes."`
	Offset byteCount `arg:"" name:"offset" help:"Where to write."`
	File   string    `arg:"" name:"file" default:"-" help:"What to write. Default: -, standard input."`
}

// Help is shown below the usage.
func (pieceWriteCmd) Help() string {
	return pieceHelp + "\n\nThe piece is made if there is none, unless there is nothing to write. A complete one becomes incomplete. " +
		"More than 1 MiB is written in several steps: what was written before an error stays."
}

// Validate is called by the parser.
func (c *pieceWriteCmd) Validate() error { return validFile(c.File) }

func (c *pieceWriteCmd) Run(ctx context.Context, a *app) error {
	return a.takeIn(ctx, c.File, func(store *cairn.Store, in io.Reader) (*cairn.Piece, error) {
		piece, err := store.Piece(ctx, string(c.Key), int64(c.Size), nil)
		if err != nil {
			return nil, err
		}
		if err := c.write(piece, in); err != nil {
			return nil, errors.Join(err, piece.Close())
		}
		return piece, nil
	})
}

// write writes what in has at the offset. Each step is a commit of its own, so
// there are as few as possible.
func (c *pieceWriteCmd) write(piece *cairn.Piece, in io.Reader) error {
	out := bufio.NewWriterSize(io.NewOffsetWriter(piece, int64(c.Offset)), copySize)
	if _, err := out.ReadFrom(in); err != nil {
		return err
	}
	return out.Flush()
}

type pieceCompleteCmd struct {
	Key name `arg:"" name:"key" help:"The piece."`
}

// Help is shown below the usage.
func (pieceCompleteCmd) Help() string { return pieceHelp }

func (c *pieceCompleteCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openExisting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	piece, err := store.OpenPiece(ctx, string(c.Key))
	if err != nil {
		return err
	}
	defer piece.Close()
	if _, err := piece.Complete(ctx); err != nil {
		return err
	}
	return printState(ctx, a, piece)
}

type pieceGetCmd struct {
	Key name `arg:"" name:"key" help:"The piece."`
}

func (c *pieceGetCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	piece, err := store.OpenPiece(ctx, string(c.Key))
	if err != nil {
		return err
	}
	defer piece.Close()
	hash, err := completed(ctx, piece)
	if err != nil {
		return err
	}
	blob, err := store.Blob(ctx, hash)
	if err != nil {
		return err
	}
	defer blob.Close()
	_, err = blob.WriteTo(a.out)
	return err
}

// completed returns the hash of a complete piece. Without one there is nothing
// to verify its bytes by, so nothing of it is given out, as of a blob that lacks
// some of what is wanted.
func completed(ctx context.Context, piece *cairn.Piece) (cairn.Hash, error) {
	c, err := piece.Completion(ctx)
	if err != nil || c.State == cairn.Complete {
		return c.Hash, err
	}
	written, err := piece.Written(ctx)
	if err != nil {
		return cairn.Hash{}, err
	}
	if missing := missingBytes(written, piece.Size()); len(missing) > 0 {
		return cairn.Hash{}, &cairn.UnwrittenError{Key: piece.Key(), Ranges: missing}
	}
	return cairn.Hash{}, fmt.Errorf("piece %q: %w: it has not been completed", piece.Key(), cairn.ErrMissing)
}

// missingBytes returns what of size bytes is not written.
func missingBytes(written []cairn.ByteRange, size int64) (missing []cairn.ByteRange) {
	end := int64(0)
	for _, r := range append(written, cairn.ByteRange{Start: size, End: size}) {
		if r.Start > end {
			missing = append(missing, cairn.ByteRange{Start: end, End: r.Start})
		}
		end = r.End
	}
	return missing
}

type pieceLsCmd struct {
	Prefix string `arg:"" name:"prefix" default:"" help:"List keys that begin with these bytes."`
}

// Help is shown below the usage.
func (pieceLsCmd) Help() string { return pieceHelp }

func (c *pieceLsCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	out := bufio.NewWriter(a.out)
	defer func() { err = errors.Join(err, out.Flush()) }()
	for p, err := range store.Pieces(ctx, &cairn.PieceListOptions{Prefix: c.Prefix}) {
		if err != nil {
			return err
		}
		if err := printPiece(a, out, p.Key, p.Size, p.State, p.Hash); err != nil {
			return err
		}
	}
	return nil
}

type pieceRmCmd struct {
	Key name `arg:"" name:"key" help:"The piece."`
}

func (c *pieceRmCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openExisting(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	piece, err := store.OpenPiece(ctx, string(c.Key))
	if err != nil {
		return err
	}
	defer piece.Close()
	return piece.Delete(ctx)
}
