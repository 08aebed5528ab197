package main

import (
	"io"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/schollz/progressbar/v3"
)

// A meter shows on a terminal how many bytes have been taken of how many. A
// nil meter shows nothing.
type meter struct {
	bar  *progressbar.ProgressBar
	done int64 // bytes of the files before the current one
	pos  int64 // bytes of the current file
}

// newMeter shows a bar for total bytes, or one without an end if total is -1.
func newMeter(w io.Writer, total int64) *meter {
	if total == 0 {
		return nil // there is no part of nothing
	}
	return &meter{bar: progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionThrottle(65*time.Millisecond),
		// Drawn only when there is news: the bar may not write between our
		// own lines.
		progressbar.OptionSetSpinnerChangeInterval(0),
	)}
}

// progress shows how far the transfer of the current file has come.
func (m *meter) progress(p cairn.Progress) {
	if p.Phase != cairn.Outboarding {
		m.at(p.Bytes)
	}
}

// at shows that n bytes of the current file have been taken. The bar is a
// courtesy: what goes wrong with it, as when a file has grown since it was
// counted, is not worth ending the command.
func (m *meter) at(n int64) {
	if m == nil {
		return
	}
	m.pos = n
	m.bar.Set64(m.done + n)
}

// next ends the current file, which had size bytes, and makes room for a line
// of output.
func (m *meter) next(size int64) {
	if m == nil {
		return
	}
	m.at(size)
	m.done, m.pos = m.done+size, 0
	m.finish()
}

// finish removes the bar from the screen.
func (m *meter) finish() {
	if m != nil {
		m.bar.Clear()
	}
}

// Write counts bytes, for what has no other way to tell.
func (m *meter) Write(p []byte) (int, error) {
	if m != nil {
		m.at(m.pos + int64(len(p)))
	}
	return len(p), nil
}
