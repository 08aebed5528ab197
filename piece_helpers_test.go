package cairn_test

import (
	"context"
	"runtime"
	"sync"

	"github.com/cairnstore/cairn"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// waitQueued waits until n requests wait for the writer.
func waitQueued(s *cairn.Store, n int) {
	for s.Queued() < n {
		runtime.Gosched()
	}
}

// execOn runs one statement on a connection.
func execOn(conn *sqlite.Conn, text string) error {
	return sqlitex.ExecuteTransient(conn, text, nil)
}

// holdWriter keeps the writer busy, so that what follows comes into one batch,
// until the function it returns is called.
func holdWriter(s *cairn.Store) (open func()) {
	gate, running := make(chan struct{}), make(chan struct{})
	started := sync.OnceFunc(func() { close(running) }) // it may run again
	go s.OnWriter(context.Background(), func(*sqlite.Conn) error { started(); <-gate; return nil })
	<-running
	return func() { close(gate) }
}
