package main_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// runProgram runs a program of others. The test is skipped where it is not
// installed.
func runProgram(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func mustBeFile(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, not the %d that it must have: %v", name, len(got), len(want), err)
	}
}

// Programs that know nothing of Cairn download what was added, and go on with a
// file of which they have the beginning.
func TestPrograms(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows cannot interrupt one process")
	}
	// Neither their settings nor a proxy may have a say.
	t.Setenv("HOME", t.TempDir())
	t.Setenv("no_proxy", "127.0.0.1")
	content := make([]byte, 32<<20) // enough for eight connections
	rand.NewChaCha8([32]byte{}).Read(content)
	db, hash := fillWith(t, content)
	s := startServer(t, "", "--db", db)
	url := "http://" + s.addr + "/blob/" + hash

	t.Run("curl", func(t *testing.T) {
		runProgram(t, "curl", "-sSf", "-o", "curled", url)
		mustBeFile(t, "curled", content)
		runProgram(t, "curl", "-sSf", "-r", "100000-299999", "-o", "range", url)
		mustBeFile(t, "range", content[100_000:300_000])
		if err := os.Truncate("curled", 1_234_567); err != nil {
			t.Fatal(err)
		}
		runProgram(t, "curl", "-sSf", "-C", "-", "-o", "curled", url)
		mustBeFile(t, "curled", content)
	})
	t.Run("aria2c", func(t *testing.T) {
		args := []string{"-x", "8", "-s", "8", "-k", "1M", "--file-allocation=none", "--no-conf", "-q", "-o", "loaded", url}
		runProgram(t, "aria2c", args...)
		mustBeFile(t, "loaded", content)
		if err := os.Truncate("loaded", 1_234_567); err != nil {
			t.Fatal(err)
		}
		runProgram(t, "aria2c", append(args, "-c")...)
		mustBeFile(t, "loaded", content)
	})
	if err := s.stop(os.Interrupt); err != nil {
		t.Error(err)
	}
}
