package cairn_test

import (
	"context"
	"fmt"
	"log"
	"slices"

	"github.com/cairnstore/cairn"
)

// What is to stay gets a tag; a collection deletes what nothing protects.
func ExampleStore_GC() {
	ctx := context.Background()
	store, err := cairn.Open(ctx, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	batch := store.Batch() // protects what is added, until it is closed
	var parts []cairn.Hash
	for _, text := range []string{"one", "two", "three"} {
		part, err := batch.AddBytes(ctx, []byte(text), nil)
		if err != nil {
			log.Fatal(err)
		}
		parts = append(parts, part.Hash())
	}
	// The tag of a sequence keeps what the sequence names: here, two of the three.
	_, err = batch.AddHashSeq(ctx, slices.Values(parts[:2]), &cairn.AddOptions{Tag: "numbers"})
	if err != nil {
		log.Fatal(err)
	}
	batch.Close()

	report, err := store.GC(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Marked, "blobs stay,", report.Swept, "is gone")

	if err := store.DeleteTag(ctx, "numbers"); err != nil {
		log.Fatal(err)
	}
	report, err = store.GC(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Marked, "blobs stay,", report.Swept, "are gone")
	// Output:
	// 3 blobs stay, 1 is gone
	// 0 blobs stay, 3 are gone
}
