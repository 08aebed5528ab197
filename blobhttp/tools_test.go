package blobhttp_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cairnstore/cairn/blobhttp"
)

// run runs a program that is not part of this module, if it is installed.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func mustBeFile(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d: %v", len(got), len(want), err)
	}
}

// TestCurl downloads, resumes and uploads with curl.
func TestCurl(t *testing.T) {
	s := openStore(t, tempPath(t), nil)
	server := writable(t, s, blobhttp.HandlerOptions{})
	data := content(1, 5_000_000)
	url := server + "/blob/" + add(t, s, data).String()
	out := filepath.Join(t.TempDir(), "out")

	run(t, "curl", "-sSf", "-o", out, url)
	mustBeFile(t, out, data)
	run(t, "curl", "-sSf", "-r", "100000-299999", "-o", out, url)
	mustBeFile(t, out, data[100_000:300_000])
	run(t, "curl", "-sSf", "-r", "-5", "-o", out, url)
	mustBeFile(t, out, data[len(data)-5:])
	if err := os.WriteFile(out, data[:1_234_567], 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "curl", "-sSf", "-C", "-", "-o", out, url)
	mustBeFile(t, out, data)

	other := content(2, 3_000_000)
	if err := os.WriteFile(out, other, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "curl", "-sSf", "-H", token, "-T", out, server+"/blob/"+hashOf(other).String())
	mustHave(t, s, other)
}

// TestAria2 downloads over eight connections.
func TestAria2(t *testing.T) {
	s := openStore(t, tempPath(t), nil)
	data := content(1, 64<<20)
	url := serve(t, blobhttp.NewHandler(s, nil)).URL + "/blob/" + add(t, s, data).String()
	dir := t.TempDir()
	run(t, "aria2c", "-x", "8", "-s", "8", "--min-split-size=1M", "--file-allocation=none", "--no-conf", "-q", "-d", dir, "-o", "out", url)
	mustBeFile(t, filepath.Join(dir, "out"), data)
}
