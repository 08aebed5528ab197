//go:build !linux

package main

import (
	"io/fs"
	"runtime"
)

// A memory is the resident set of this process in bytes. It is not known here.
type memory struct{ now, peak int64 }

func rss() memory                      { return memory{} }
func resetPeakRSS()                    {}
func syncDisks()                       {}
func allocated(info fs.FileInfo) int64 { return info.Size() }
func machine(string) []string          { return []string{runtime.GOOS + "/" + runtime.GOARCH} }
