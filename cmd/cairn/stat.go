package main

import (
	"context"
	"fmt"

	"github.com/cairnstore/cairn"
)

type statCmd struct{}

// totals are what is printed of a store. Sizes are in bytes.
type totals struct {
	Blobs         int64  `json:"blobs"`
	Partial       int64  `json:"partial"`
	Pieces        int64  `json:"pieces"`
	Tags          int64  `json:"tags"`
	Logs          int64  `json:"logs"`
	Bytes         int64  `json:"bytes"`
	StoredBytes   int64  `json:"stored_bytes"`
	ParityBytes   int64  `json:"parity_bytes"`
	FileBytes     int64  `json:"file_bytes"`
	FreeBytes     int64  `json:"free_bytes"`
	WALBytes      int64  `json:"wal_bytes"`
	Capacity      *int64 `json:"capacity"` // nil for none
	Used          int64  `json:"used"`
	SchemaVersion int    `json:"schema_version"`
	ExternalBytes int64  `json:"external_bytes"`
}

func (statCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	stats, err := store.Stats(ctx)
	if err != nil {
		return err
	}
	usage, err := store.Usage(ctx)
	if err != nil {
		return err
	}
	t := newTotals(stats, usage)
	return a.print(a.out, t.text(), t)
}

// newTotals leaves zero what a store of this version cannot hold: logs and
// parity.
func newTotals(stats cairn.Stats, usage cairn.Usage) totals {
	return totals{
		Blobs:         stats.Blobs,
		Partial:       stats.Partial,
		Pieces:        stats.Pieces,
		Tags:          stats.Tags,
		Bytes:         stats.Bytes,
		StoredBytes:   stats.StoredBytes,
		FileBytes:     stats.FileBytes,
		FreeBytes:     stats.FreeBytes,
		WALBytes:      stats.WALBytes,
		Capacity:      limitObject(usage.Capacity),
		Used:          usage.Used,
		SchemaVersion: stats.SchemaVersion,
		ExternalBytes: stats.ExternalBytes,
	}
}

// text returns a line for each total.
func (t totals) text() string {
	capacity := noLimit
	if t.Capacity != nil {
		capacity = fmt.Sprint(*t.Capacity)
	}
	return lines([]field{
		{"blobs", t.Blobs},
		{"partial", t.Partial},
		{"pieces", t.Pieces},
		{"tags", t.Tags},
		{"logs", t.Logs},
		{"bytes", t.Bytes},
		{"stored_bytes", t.StoredBytes},
		{"parity_bytes", t.ParityBytes},
		{"file_bytes", t.FileBytes},
		{"free_bytes", t.FreeBytes},
		{"wal_bytes", t.WALBytes},
		{"capacity", capacity},
		{"used", t.Used},
		{"schema_version", t.SchemaVersion},
		{"external_bytes", t.ExternalBytes},
	})
}
