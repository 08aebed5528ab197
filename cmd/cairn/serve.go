package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/cairnstore/cairn"
	"github.com/cairnstore/cairn/blobhttp"
)

// shutdownGrace is how long requests under way may go on once the server has
// been told to end.
const shutdownGrace = 10 * time.Second

type serveCmd struct {
	Addr       string  `name:"addr" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to listen; port 0 is one that is free. Default: 127.0.0.1:8080, for this computer only."`
	WriteToken *string `name:"write-token" placeholder:"T" help:"Let clients that send the bearer token T add blobs. Default: $$CAIRN_WRITE_TOKEN, else nobody."`
}

// Help is shown below the usage.
func (serveCmd) Help() string {
	return "The address is printed once requests are answered. An interrupt ends the server when the requests under way are done.\n\n" +
		"Without a token the database is opened for reading only, so that another process can write meanwhile. " +
		"Everybody on this computer can see a token on the command line, so better have it in $CAIRN_WRITE_TOKEN. " +
		"That it is there, and lets clients add blobs, is said on standard error when serving begins. " +
		"What is served is not encrypted, and may be read by everybody who reaches the address."
}

// Validate is called by the parser.
func (c *serveCmd) Validate() error {
	if err := validAddr(c.Addr); err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	if c.WriteToken == nil {
		// As with $CAIRN_DB, an empty variable is as good as none.
		if token := os.Getenv("CAIRN_WRITE_TOKEN"); token != "" {
			return validToken("$CAIRN_WRITE_TOKEN", token)
		}
		return nil
	}
	return validToken("--write-token", *c.WriteToken)
}

// validAddr returns an error for an address that is none on any computer.
func validAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	return err
}

// validToken returns an error for a token that no client could send.
func validToken(name, token string) error {
	unfit := func(r rune) bool { return r <= ' ' || r > '~' }
	if token == "" || strings.ContainsFunc(token, unfit) {
		return errors.New(name + " must be visible ASCII characters")
	}
	return nil
}

// token returns the write token, empty if nobody may write.
func (c *serveCmd) token() string {
	if c.WriteToken != nil {
		return *c.WriteToken
	}
	return os.Getenv("CAIRN_WRITE_TOKEN")
}

// warn tells of a token from the environment: it may have been left there for
// another server.
func (c *serveCmd) warn(a *app) {
	if c.WriteToken == nil && c.token() != "" {
		fmt.Fprintln(a.err, "cairn: serve: adding blobs is allowed by CAIRN_WRITE_TOKEN")
	}
}

// served is what is printed of a server.
type served struct {
	Addr string `json:"addr"`
}

func (c *serveCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := c.open(ctx, a)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return err
	}
	server := c.server(store, a)
	c.warn(a)
	addr := listener.Addr().String()
	if err := a.print(a.out, addr, served{addr}); err != nil {
		return errors.Join(err, listener.Close())
	}
	return serve(ctx, server, listener)
}

// open opens the database with the rights that the clients are going to have.
func (c *serveCmd) open(ctx context.Context, a *app) (*cairn.Store, error) {
	if c.token() == "" {
		return a.openReading(ctx)
	}
	return a.openWriting(ctx)
}

func (c *serveCmd) server(store *cairn.Store, a *app) *http.Server {
	logger := a.logger()
	server := blobhttp.NewServer(blobhttp.NewHandler(store, &blobhttp.HandlerOptions{
		WriteToken: c.token(),
		Logger:     logger,
	}))
	server.ErrorLog = errorLog(logger)
	return server
}

func errorLog(logger *slog.Logger) *log.Logger {
	return slog.NewLogLogger(logger.Handler(), slog.LevelWarn)
}

// serve answers requests until ctx ends, which is no error.
func serve(ctx context.Context, server *http.Server, listener net.Listener) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		shutdown(server)
	})
	err := server.Serve(listener)
	if stop() {
		return err
	}
	<-ended
	return nil
}

// shutdown takes no more requests and waits for those that are under way. The
// connections that take too long are cut: their clients can tell.
func shutdown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
}
