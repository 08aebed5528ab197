package main

import (
	"context"
	"errors"
	"io"
	"os"
	"reflect"

	"github.com/alecthomas/kong"
)

// defaultDB is the database if neither --db nor $CAIRN_DB names one.
const defaultDB = "cairn.db"

// grammar is what can be said on the command line.
type grammar struct {
	DB   *string  `name:"db" placeholder:"FILE" help:"The database. Default: $$CAIRN_DB, else cairn.db."`
	JSON bool     `name:"json" help:"Print one JSON object a line."`
	Help helpFlag `name:"help" short:"h" help:"Show this help."`

	Add      addCmd      `cmd:"" help:"Add files, and print the hash, size and path of each."`
	Get      getCmd      `cmd:"" help:"Write a blob's verified bytes."`
	Ls       lsCmd       `cmd:"" help:"List blobs in the order of their hashes."`
	Rm       rmCmd       `cmd:"" help:"Delete a blob that nothing protects."`
	Export   exportCmd   `cmd:"" help:"Write a blob to a file, or move it there."`
	Stat     statCmd     `cmd:"" help:"Show totals."`
	Outboard outboardCmd `cmd:"" help:"Write a blob's hash tree in the obao4 format."`
	Tag      tagCmd      `cmd:"" help:"Name content, which keeps it."`
	Gc       gcCmd       `cmd:"" help:"Sweep what nothing protects."`
	Scrub    scrubCmd    `cmd:"" help:"Hash the blobs' bytes, and say what is damaged."`
	Check    checkCmd    `cmd:"" help:"Check the database's structure, not the blobs' bytes."`
	Bao      baoCmd      `cmd:"" help:"Exchange ranges of blobs in the form that can be verified."`
	Ranges   rangesCmd   `cmd:"" help:"Show which chunks of a blob are there."`
	Serve    serveCmd    `cmd:"" help:"Serve the blobs over HTTP."`
	Fetch    fetchCmd    `cmd:"" help:"Download a blob from a server, verified, from where it stopped."`
	Piece    pieceCmd    `cmd:"" help:"Keep pieces: bytes under a key, written in any order."`
	Owner    ownerCmd    `cmd:"" help:"Bound and drop what a set of pieces keeps."`
	Capacity capacityCmd `cmd:"" help:"Show or set how many bytes are kept at most."`
	Version  versionCmd  `cmd:"" help:"Show the versions of Cairn and SQLite."`
}

// helpFlag prints the help of the command it is given to. It comes before
// everything else is looked at, so that help needs no complete command line.
type helpFlag bool

// errHelp ends the parsing once the help has been printed.
var errHelp = errors.New("help was asked for")

// BeforeReset is called by the parser as soon as it meets the flag.
func (helpFlag) BeforeReset(k *kong.Context) error {
	if err := k.PrintUsage(false); err != nil {
		return err
	}
	return errHelp
}

// A command is a parsed command line.
type command struct {
	parsed *kong.Context
	db     string
	json   bool
}

// newParser returns a parser whose help goes to w. It never ends the process.
func newParser(g *grammar, w io.Writer) *kong.Kong {
	return kong.Must(g,
		kong.Name("cairn"),
		kong.Description("Content-addressed blobs in one SQLite file."),
		kong.Vars{"ranges_help": rangesHelp, "limit_help": limitHelp},
		kong.KindMapper(reflect.String, exactString),
		kong.NoDefaultHelp(),
		kong.Writers(w, w),
		kong.Exit(func(int) {}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
}

// parse reads a command line. Its error is a usageError, or errHelp after the
// help has been printed to help.
func parse(args []string, help io.Writer) (*command, error) {
	var g grammar
	k := newParser(&g, help)
	parsed, err := k.Parse(flagsLast(k.Model, args))
	if errors.Is(err, errHelp) {
		return nil, errHelp
	}
	if err != nil {
		return nil, newUsageError(err)
	}
	db, err := g.database()
	if err != nil {
		return nil, newUsageError(err)
	}
	return &command{parsed, db, g.JSON}, nil
}

// database returns the path of the database. The two names that mean a
// temporary store to the library are refused: what is added there is lost.
func (g *grammar) database() (string, error) {
	db := os.Getenv("CAIRN_DB")
	if g.DB != nil {
		db = *g.DB
	} else if db == "" {
		db = defaultDB
	}
	if db == "" || db == ":memory:" {
		return "", errors.New("the database must be a file")
	}
	return db, nil
}

// run executes the command.
func (c *command) run(ctx context.Context, std streams) error {
	c.parsed.BindTo(ctx, (*context.Context)(nil))
	err := c.parsed.Run(&app{streams: std, db: c.db, json: c.json})
	return naming(c.parsed.Selected().Path(), err)
}

// printUsage prints the help of the whole command.
func printUsage(w io.Writer) {
	k := newParser(new(grammar), w)
	if parsed, err := kong.Trace(k, nil); err == nil {
		parsed.PrintUsage(false)
	}
}
