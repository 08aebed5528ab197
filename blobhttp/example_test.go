package blobhttp_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/blobhttp"
)

// One store serves a blob, another one fetches it.
func Example() {
	ctx := context.Background()
	from, err := cairn.Open(ctx, ":memory:", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer from.Close()
	tag, err := from.Add(ctx, strings.NewReader("hello, cairn\n"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer tag.Release()
	// In a program: blobhttp.NewServer(handler) with an Addr, and its
	// ListenAndServe.
	server := httptest.NewServer(blobhttp.NewHandler(from, nil))
	defer server.Close()

	to, err := cairn.Open(ctx, ":memory:", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer to.Close()
	report, err := blobhttp.Fetch(ctx, to, server.URL, tag.Hash(), nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.State, report.Size, report.FetchedBytes)
	// Output: complete 13 21
}
