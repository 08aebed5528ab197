package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/blobhttp"
)

// serve sends the large blob over loopback to a client in the same process,
// that reads and forgets it: Cairn by blobhttp, which verifies what it sends;
// plain files by http.FileServer, which has the kernel copy them.
func serve(size int64) workload {
	return workload{
		name:       "serve",
		title:      formatBytes(float64(size)) + " over HTTP on loopback",
		durability: readDurability,
		peers:      []string{cairnPeer, filesPeer},
		size:       size,
		store:      bigStore,
		prepare:    (*child).prepareBig,
		run:        (*child).serve,
		measures:   []measure{elapsed, peakRSS},
	}
}

func (c *child) serve() error {
	if c.Peer == filesPeer {
		return c.download(http.FileServer(http.Dir(c.Dir)), "/blob")
	}
	return c.with(func(s store) error {
		store := s.(cairnStore).Store
		hash, err := onlyHash(store)
		if err != nil {
			return err
		}
		return c.download(blobhttp.NewHandler(store, nil), "/blob/"+hash.String())
	})
}

func onlyHash(s *cairn.Store) (cairn.Hash, error) {
	b, err := onlyBlob(s)
	if err != nil {
		return cairn.Hash{}, err
	}
	return b.Hash(), b.Close()
}

// download measures one GET from a server with the given handler.
func (c *child) download(handler http.Handler, path string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := blobhttp.NewServer(handler)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = c.get("http://" + listener.Addr().String() + path)
	err = errors.Join(err, server.Shutdown(context.Background()))
	if serveErr := <-served; serveErr != http.ErrServerClosed {
		err = errors.Join(err, serveErr)
	}
	return err
}

func (c *child) get(url string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ReadBufferSize: 64 << 10}}
	if err := c.start(); err != nil {
		return err
	}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// Without ReadFrom, which would read 8 KiB at a time.
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{resp.Body}, make([]byte, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || n != c.Sizes.Big {
		return fmt.Errorf("%s: %s, %d bytes", url, resp.Status, n)
	}
	return c.stop(1, n)
}
