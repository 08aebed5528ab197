package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// subject is the peer that the others are compared with.
const subject = "cairn"

// noPeer and failed are cells without a value.
const (
	noPeer = "-"
	failed = "failed"
)

// writeTable writes the machine and the tables of all results.
func writeTable(w io.Writer, cfg *config, all []measured) error {
	var b strings.Builder
	head, err := header(cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "%s\n", head)
	for _, heading := range []string{blobTable, pieceTable, torrentTable, keepTable} {
		list := slices.DeleteFunc(slices.Clone(all), func(m measured) bool { return m.table != heading })
		if len(list) > 0 {
			writeSection(&b, cfg, heading, list)
		}
	}
	fmt.Fprintf(&b, "\n"+notes, formatBytes(float64(rss().now)))
	_, err = io.WriteString(w, b.String())
	return err
}

// writeSection writes one table.
func writeSection(b *strings.Builder, cfg *config, heading string, list []measured) {
	columns := others(cfg, list)
	fmt.Fprintf(b, "\n**%s**\n\n", heading)
	fmt.Fprintf(b, "| workload | durability | measure | %s (min–max) |", subject)
	for _, peer := range columns {
		fmt.Fprintf(b, " %s |", peer)
	}
	fmt.Fprintf(b, " %s/peer |\n|%s\n", subject, strings.Repeat("---|", 5+len(columns)))
	for _, m := range list {
		for _, row := range m.measures {
			writeRow(b, cfg, m, row, columns)
		}
	}
}

// notes tell what the columns mean. The parent does nothing that takes memory.
const notes = `Below 1 in the last column, Cairn takes less. Of what keeps blobs and pieces, only cairn and files-checked verify what they read.
The storages of anacrolix/torrent do not; there, who reads compares the SHA-1 of whole pieces, but Cairn verifies all the same.
Peak RSS counts the program, with all peers linked in, which takes %s before it does anything, and the resident pages of mapped files, by which bbolt and badger read and write.
"On disk" is what the file system has allocated after the store was closed, preallocated logs of pebble included.
`

// header names what the numbers were taken on.
func header(cfg *config) (string, error) {
	version, err := sqliteVersion()
	if err != nil {
		return "", err
	}
	parts := machine(cfg.dir)
	parts = slices.Insert(parts, 1, fmt.Sprintf("%d cores", runtime.NumCPU()))
	parts = append(parts, runtime.Version(), "SQLite "+version)
	parts = append(parts, peerVersions()...)
	parts = append(parts, fmt.Sprintf("median of %d interleaved rounds", cfg.rounds))
	return strings.Join(parts, ", "), nil
}

func sqliteVersion() (version string, err error) {
	conn, err := sqlite.OpenConn(":memory:")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	err = sqlitex.ExecuteTransient(conn, "select sqlite_version()", &sqlitex.ExecOptions{
		ResultFunc: func(stmt *sqlite.Stmt) error {
			version = stmt.ColumnText(0)
			return nil
		},
	})
	return version, err
}

// peerVersions lists the modules that the program was built with.
func peerVersions() (list []string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	names := map[string]string{
		"go.etcd.io/bbolt":                 "bbolt",
		"github.com/cockroachdb/pebble/v2": "pebble",
		"github.com/dgraph-io/badger/v4":   "badger",
		"zombiezen.com/go/sqlite":          "zombiezen",
		"github.com/anacrolix/torrent":     "anacrolix/torrent",
	}
	for _, dep := range info.Deps {
		if name, ok := names[dep.Path]; ok {
			list = append(list, name+" "+dep.Version)
		}
	}
	return list
}

// others returns the peers beside the subject that have a column, in the order
// of peerNames.
func others(cfg *config, table []measured) (list []string) {
	for _, peer := range peerNames {
		used := func(m measured) bool { return slices.Contains(cfg.peers(m.workload), peer) }
		if peer != subject && slices.ContainsFunc(table, used) {
			list = append(list, peer)
		}
	}
	return list
}

// writeRow writes one measure of a workload for all peers.
func writeRow(b *strings.Builder, cfg *config, m measured, row measure, columns []string) {
	fmt.Fprintf(b, "| %s: %s | %s | %s | %s |", m.name, m.title, m.durability, row.name, cell(cfg, m, row, subject, true))
	var ratios []string
	mine, haveMine := m.median(row, subject)
	for _, peer := range columns {
		fmt.Fprintf(b, " %s |", cell(cfg, m, row, peer, false))
		if theirs, ok := m.median(row, peer); ok && haveMine && theirs > 0 {
			ratios = append(ratios, fmt.Sprintf("%s %.2f", peer, mine/theirs))
		}
	}
	if len(ratios) == 0 {
		ratios = []string{noPeer}
	}
	fmt.Fprintf(b, " %s |\n", strings.Join(ratios, ", "))
}

// cell returns the median of a peer's results, with the extremes if spread.
func cell(cfg *config, m measured, row measure, peer string, spread bool) string {
	values := m.values(row, peer)
	switch {
	case !slices.Contains(cfg.peers(m.workload), peer):
		return noPeer
	case len(values) == 0:
		return failed
	}
	text := row.format(median(values))
	if spread {
		text += fmt.Sprintf(" (%s–%s)", row.format(slices.Min(values)), row.format(slices.Max(values)))
	}
	return text
}

func (m measured) values(row measure, peer string) (list []float64) {
	for _, r := range m.results[peer] {
		list = append(list, row.value(r))
	}
	return list
}

func (m measured) median(row measure, peer string) (float64, bool) {
	values := m.values(row, peer)
	if len(values) == 0 {
		return 0, false
	}
	return median(values), true
}

// median returns the middle value, or the mean of the two middle ones.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// percentile returns the nearest-rank percentile of sorted values.
func percentile(sorted []float64, p int) float64 {
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(0, rank-1)]
}

func formatSeconds(s float64) string {
	switch {
	case s < 1e-3:
		return fmt.Sprintf("%.1f µs", s*1e6)
	case s < 1:
		return fmt.Sprintf("%.2f ms", s*1e3)
	}
	return fmt.Sprintf("%.2f s", s)
}

func formatRatio(r float64) string { return fmt.Sprintf("%.2f", r) }

func formatBytes(n float64) string {
	switch {
	case n < 1<<20:
		return fmt.Sprintf("%.0f KiB", n/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", n/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", n/(1<<30))
}
