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
	cfg := &config{sizes: shortSizes, rss4: true}
	rows := 0
	for _, w := range allRows(cfg) {
		prefix := "| " + w + " |"
		if !strings.Contains(table, prefix) {
			t.Errorf("no row %q", prefix)
		}
		rows++
	}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if strings.Contains(line, failed) || len(cells) > 4 && strings.Contains(cells[4], "NaN") {
			t.Errorf("row without a result: %s", line)
		}
	}
	if got := strings.Count(table, "\n| ") - 1; got != rows {
		t.Errorf("%d rows, want %d", got, rows)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if t.Failed() {
		t.Log(table)
	}
}
