package cairn_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/cairnstore/cairn"
)

func Example() {
	ctx := context.Background()
	store, err := cairn.Open(ctx, "", nil) // a path, or "" for a temporary store
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	tag, err := store.Add(ctx, strings.NewReader("hello, cairn\n"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer tag.Release() // protects the blob until here
	blob, err := store.Blob(ctx, tag.Hash())
	if err != nil {
		log.Fatal(err)
	}
	defer blob.Close()
	fmt.Println(blob.Size(), "bytes, BLAKE3", blob.Hash())
	if _, err := io.Copy(os.Stdout, blob); err != nil { // every byte verified
		log.Fatal(err)
	}
	// Output:
	// 13 bytes, BLAKE3 304d6e1791df3d0eabd1e6451c301dd85caed0e1d6d2759b8ba2dcfd9032ac90
	// hello, cairn
}
