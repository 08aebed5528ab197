package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"
)

// A task is what the parent asks of a child process.
type task struct {
	Workload string
	Peer     string
	Dir      string // the child's store; it exists
	Source   string // the large file, if the workload has one
	Round    int
	Prepare  bool // make the shared store instead of measuring
	Sizes    sizes

	CPUProfile string
	MemProfile string
}

// A result is what a child answers, as one line of JSON.
type result struct {
	Seconds   float64            `json:"seconds"`
	Ops       int64              `json:"ops"`
	Bytes     int64              `json:"bytes"`
	PeakRSS   int64              `json:"peak_rss_bytes"`
	FileBytes int64              `json:"file_bytes"`
	Extra     map[string]float64 `json:"extra,omitempty"`
}

// A child is a measurement under way.
type child struct {
	task
	result
	started time.Time
	profile *os.File
}

// runChild does one task and writes its result.
func runChild(arg string, stdout io.Writer) error {
	c := &child{result: result{Extra: make(map[string]float64)}}
	if err := json.Unmarshal([]byte(arg), &c.task); err != nil {
		return err
	}
	w, err := findWorkload(c.Sizes, c.Workload)
	if err != nil {
		return err
	}
	if err := c.do(w); err != nil {
		return fmt.Errorf("%s/%s: %w", c.Workload, c.Peer, err)
	}
	return json.NewEncoder(stdout).Encode(c.result)
}

func (c *child) do(w workload) error {
	if c.Prepare {
		return w.prepare(c)
	}
	if err := c.warm(); err != nil {
		return err
	}
	if err := w.run(c); err != nil {
		return err
	}
	// The store is closed now: what it leaves is measured, not its logs.
	size, err := diskUsage(c.Dir)
	c.FileBytes = size
	return err
}

// warm reads the source and the prepared store, so that all peers find their
// data in the page cache.
func (c *child) warm() error {
	buf := make([]byte, 1<<20)
	read := func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for {
			if _, err := f.Read(buf); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	if c.Source != "" {
		if err := read(c.Source); err != nil {
			return err
		}
	}
	return filepath.WalkDir(c.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return read(path)
	})
}

// start begins the measured part: nothing that came before is billed to it,
// neither dirty pages nor memory.
func (c *child) start() error {
	debug.FreeOSMemory()
	syncDisks()
	resetPeakRSS()
	if c.CPUProfile != "" {
		f, err := os.Create(c.CPUProfile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return errors.Join(err, f.Close())
		}
		c.profile = f
	}
	c.started = time.Now()
	return nil
}

// stop ends the measured part. The store is still open.
func (c *child) stop(ops, bytes int64) error {
	c.Seconds = time.Since(c.started).Seconds()
	return c.finish(ops, bytes)
}

// finish is stop for a workload that takes its times itself.
func (c *child) finish(ops, bytes int64) error {
	c.Ops, c.Bytes = ops, bytes
	c.PeakRSS = rss().peak
	if c.profile != nil {
		pprof.StopCPUProfile()
		if err := c.profile.Close(); err != nil {
			return err
		}
	}
	if c.MemProfile == "" {
		return nil
	}
	f, err := os.Create(c.MemProfile)
	if err != nil {
		return err
	}
	runtime.GC() // the profile is as of the last collection
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// diskUsage returns what the file system has allocated for the files below a
// directory.
func diskUsage(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += allocated(info)
		}
		return err
	})
	return total, err
}
