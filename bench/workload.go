package main

import (
	"fmt"
	"slices"
)

// A workload is one thing to measure for several peers.
type workload struct {
	// table is the heading of the table that the workload is in.
	table string
	name  string
	title string
	// durability is what every peer of the row promises, but for those it
	// names with something else.
	durability string
	peers      []string
	// size is that of the source file the workload reads, 0 for none.
	size int64
	// store names the prepared store that all rounds, and other workloads of
	// the same store, share. Without one, each round gets an empty directory.
	store string
	// oneStore has all peers take turns with one prepared store, which each
	// leaves as it found it.
	oneStore bool
	prepare  func(c *child) error
	run      func(c *child) error
	// rounds is how often to run it, if not as often as the others.
	rounds   int
	measures []measure
}

// A measure is one row of a workload in the table.
type measure struct {
	name   string
	format func(float64) string
	value  func(result) float64
}

var (
	elapsed  = measure{"time", formatSeconds, func(r result) float64 { return r.Seconds }}
	perRead  = timePer("read")
	peakRSS  = measure{"peak RSS", formatBytes, func(r result) float64 { return float64(r.PeakRSS) }}
	fileSize = measure{"on disk", formatBytes, func(r result) float64 { return float64(r.FileBytes) }}
)

// timePer is the mean time of one operation, which it names.
func timePer(operation string) measure {
	return measure{"time per " + operation, formatSeconds, func(r result) float64 { return r.Seconds / float64(r.Ops) }}
}

// extra is a measure that the workload puts into its result under its name.
func extra(name string, format func(float64) string) measure {
	return measure{name, format, func(r result) float64 { return r.Extra[name] }}
}

// Headings of the tables.
const (
	blobTable    = "Blobs"
	pieceTable   = "Pieces"
	torrentTable = "Torrents"
	keepTable    = "Keeping"
)

// allWorkloads lists the workloads in the order of the tables.
func allWorkloads(s sizes) []workload {
	return slices.Concat(
		inTable(blobTable, blobWorkloads(s)),
		inTable(pieceTable, pieceWorkloads(s)),
		inTable(torrentTable, torrentWorkloads(s)),
		inTable(keepTable, keepWorkloads(s)),
	)
}

// inTable puts workloads under a heading.
func inTable(heading string, list []workload) []workload {
	for i := range list {
		list[i].table = heading
	}
	return list
}

func blobWorkloads(s sizes) []workload {
	return []workload{
		addFile("add-big", s.Big),
		addSmall(s.Small),
		readSeq(s.Big),
		readRandom(s.Big, 1),
		readRandom(s.Big, 4),
		exchange(s.Big),
		importRandom(s.Big / 4),
		serve(s.Big),
		openStore("open-few", s.Few),
		openStore("open-many", s.Many),
	}
}

func pieceWorkloads(s sizes) []workload {
	return []workload{
		capacity("capacity-few", s.Few),
		capacity("capacity-many", s.Many),
		readUnderWrite(s.Big),
	}
}

func torrentWorkloads(s sizes) []workload {
	return []workload{
		torrentWrite(s.Big),
		markComplete(s.Marks),
		transfer(s.Big, 256<<10),
		transfer(s.Big, 1<<20),
		transfer(s.Big, 4<<20),
		torrentReopen(s.Big),
		torrentStart(s.Pieces),
	}
}

func keepWorkloads(s sizes) []workload {
	return []workload{
		setTags(s.Tags),
		listTags(s.Tags),
		collect(s.Many),
		scrub(s.Big),
		addReference(s.Big),
	}
}

// workloads returns those that -only selects at least one peer of.
func (cfg *config) workloads() []workload {
	list := allWorkloads(cfg.sizes)
	if cfg.rss4 {
		list = append(list, addRSS4(cfg.sizes))
	}
	return slices.DeleteFunc(list, func(w workload) bool { return len(cfg.peers(w)) == 0 })
}

// peers returns the peers of a workload that -only selects.
func (cfg *config) peers(w workload) []string {
	return slices.DeleteFunc(slices.Clone(w.peers), func(peer string) bool {
		return !cfg.only.MatchString(w.name + "/" + peer)
	})
}

// addRSS4 adds a file four times as large, for its peak memory.
func addRSS4(s sizes) workload {
	w := addFile("add-rss4", 4*s.Big)
	w.table, w.rounds = blobTable, 1
	return w
}

// findWorkload returns the named workload.
func findWorkload(s sizes, name string) (workload, error) {
	all := append(allWorkloads(s), addRSS4(s))
	for _, w := range all {
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("no workload %q", name)
}
