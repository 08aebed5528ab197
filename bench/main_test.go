package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMain lets the test binary be the program that the parent starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "child" {
		if err := runChild(os.Args[2], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestTable runs everything once, at tiny sizes, and looks for a result in
// every cell that a peer takes part in.
func TestTable(t *testing.T) {
	dir := t.TempDir()
	var out, log bytes.Buffer
	err := run(t.Context(), []string{"-short", "-rounds", "1", "-rss4", "-dir", dir}, &out, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	table := out.String()
	all := append(allWorkloads(shortSizes), addRSS4(shortSizes))
	for _, w := range all {
		for _, m := range w.measures {
			checkRow(t, table, w, m, peersIn(all, w.table))
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if t.Failed() {
		t.Log(table)
	}
}

// peersIn counts the peers that have a column in a table.
func peersIn(all []workload, table string) int {
	peers := make(map[string]bool)
	for _, w := range all {
		for _, peer := range w.peers {
			if w.table == table {
				peers[peer] = true
			}
		}
	}
	return len(peers)
}

// checkRow fails if a row is missing, or a peer's value in it.
func checkRow(t *testing.T, table string, w workload, m measure, columns int) {
	t.Helper()
	start := fmt.Sprintf("| %s: %s | %s | %s | ", w.name, w.title, w.durability, m.name)
	_, rest, found := strings.Cut(table, start)
	if !found {
		t.Errorf("no row %q", start)
		return
	}
	row, _, _ := strings.Cut(rest, "\n")
	cells := strings.Split(strings.TrimSuffix(row, " |"), " | ")
	if want := columns + 1; len(cells) != want {
		t.Errorf("%s: %d cells, want %d", start, len(cells), want)
	}
	values := 0
	for _, cell := range cells[:len(cells)-1] {
		switch {
		case cell == noPeer:
		case cell == failed || strings.HasPrefix(cell, "0.0 ") || strings.HasPrefix(cell, "0 "):
			t.Errorf("%s: no result: %q", start, cell)
		default:
			values++
		}
	}
	if values != len(w.peers) {
		t.Errorf("%s: %d values, want %d", start, values, len(w.peers))
	}
}
