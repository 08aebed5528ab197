package cairn_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/cairnstore/cairn"
)

// Chunks come in any order, are read as one, and become the content of another
// key.
func ExampleProvider() {
	store, err := cairn.Open(context.Background(), "", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	provider := cairn.NewProvider(store, &cairn.ProviderOptions{Owner: "film"})
	for _, chunk := range []struct{ key, text string }{
		{"incomplete/7", "world\n"},
		{"incomplete/0", "hello, "},
	} {
		instance, err := provider.NewInstance(chunk.key)
		if err != nil {
			log.Fatal(err)
		}
		if err := instance.Put(strings.NewReader(chunk.text)); err != nil {
			log.Fatal(err)
		}
	}
	chunks, err := provider.ReadConsecutiveChunks("incomplete/")
	if err != nil {
		log.Fatal(err)
	}
	defer chunks.Close()
	complete, err := provider.NewInstance("complete")
	if err != nil {
		log.Fatal(err)
	}
	if err := complete.PutSized(chunks, 13); err != nil {
		log.Fatal(err)
	}
	if err := provider.DeletePrefix("incomplete/"); err != nil {
		log.Fatal(err)
	}
	content, err := io.ReadAll(io.NewSectionReader(complete, 0, 13))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(content))
	// Output: hello, world
}
