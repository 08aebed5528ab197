package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A memory is the resident set of this process in bytes.
type memory struct{ now, peak int64 }

// rss returns the resident set now and at most since the last resetPeakRSS.
// Pages of mapped files count, as far as they are resident.
func rss() memory {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return memory{}
	}
	return memory{now: procField(text, "VmRSS"), peak: procField(text, "VmHWM")}
}

// procField returns a field of a /proc file that is in kB.
func procField(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name+":")
		if fields := strings.Fields(rest); ok && len(fields) > 0 {
			kib, _ := strconv.ParseInt(fields[0], 10, 64) // 0 shows in the table
			return kib << 10
		}
	}
	return 0
}

// resetPeakRSS makes the current resident set the peak. Where the kernel does
// not allow it, the peak includes the set-up, which is the same for all peers.
func resetPeakRSS() { os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// syncDisks writes the dirty pages of all files.
func syncDisks() { syscall.Sync() }

// allocated returns the bytes that the file system holds for a file, which is
// less than its size if the store made it larger than it needed yet.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// machine describes the hardware, the kernel and the file system of dir.
func machine(dir string) []string {
	mem, _ := os.ReadFile("/proc/meminfo")
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return []string{
		cpuModel(),
		fmt.Sprintf("%.1f GiB memory", float64(procField(mem, "MemTotal"))/(1<<30)),
		"Linux " + strings.TrimSpace(string(kernel)),
		fileSystem(dir),
	}
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

// fileSystem returns the type of the innermost mount that holds dir.
func fileSystem(dir string) string {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	best, kind := "", "unknown file system"
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, types := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(types) == 0 {
			continue
		}
		mount := fields[4]
		inside := mount == "/" || dir == mount || strings.HasPrefix(dir, mount+"/")
		if inside && len(mount) >= len(best) {
			best, kind = mount, types[0]
		}
	}
	return kind
}
