package cairn_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"testing"

	"github.com/cairnstore/cairn"
)

// TestReadmeExample keeps the README's program the same as the one that is
// compiled and run here.
func TestReadmeExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("example_readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(program), "func Example() {\n")
	body, _, _ = strings.Cut(body, "\t// Output:")
	if body == "" || !strings.Contains(string(readme), "func main() {\n"+body+"}\n") {
		t.Error("the example in README.md is not the one in example_readme_test.go")
	}
}

// One store downloads from another what it lacks, over any transport; here it
// is a pipe.
func ExampleStore_ImportBao() {
	ctx := context.Background()
	peer, err := cairn.Open(ctx, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer peer.Close()
	tag, err := peer.AddBytes(ctx, make([]byte, 1<<20), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer tag.Release()

	store, err := cairn.Open(ctx, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	for want, err := range store.Missing(ctx, tag.HashAndFormat()) {
		if err != nil {
			log.Fatal(err)
		}
		r, w := io.Pipe()
		go func() { w.CloseWithError(peer.ExportBao(ctx, want.Hash, want.Ranges, w)) }()
		if err := store.ImportBao(ctx, want.Hash, want.Ranges, r); err != nil {
			log.Fatal(err) // what came before is stored all the same
		}
	}
	status, err := store.Status(ctx, tag.Hash())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status.State, status.Size)
	// Output: complete 1048576
}
