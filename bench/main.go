// Bench compares Cairn with plain files and with other embedded stores, and
// prints Markdown tables:
//
//	go run ./bench                          # from the repository's root
//	go run ./bench -short -rounds 1         # tiny, to see that it works
//	go run ./bench -only 'add-small/(cairn|bbolt)'
//	go run ./bench -only '^(torrent|mark|transfer)'
//	go run ./bench -only '^(tag|gc|scrub|add-reference)'
//	go run ./bench -only add-big/cairn -cpuprofile cpu.prof
//
// Each measurement runs in a process of its own, which says what it used. The
// peers of a workload take turns, round after round, so that whatever else the
// machine does meets all of them; the tables have the medians. All peers of a
// row keep the same promise of durability, or the row says which does not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		stop()
		os.Exit(1)
	}
}

// run is the program. With "child" as the first argument it makes the one
// measurement that the second describes.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 2 && args[0] == "child" {
		return runChild(args[1], stdout)
	}
	cfg, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	p, err := newParent(ctx, cfg, stderr)
	if err != nil {
		return err
	}
	defer p.remove()
	results, err := p.measureAll()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if writeErr := writeTable(stdout, cfg, results); writeErr != nil {
		return writeErr
	}
	return err
}

// sizes say how much each workload does.
type sizes struct {
	Big   int64 // bytes of the large blob
	Small int   // blobs of 4 KiB to add
	Many  int   // blobs in the large store to open
	Few   int   // blobs in the small store it is compared with
	Reads int   // random reads of 16 KiB
	Adds  int   // additions of which the latency is taken
	Gets  int   // reads of which the latency is taken

	Turnover int // pieces written to a store that has Few or Many
	Pieces   int // pieces of the torrent with the most
	Marks    int // times that 16 pieces of 2 MiB are written and marked complete
	Tags     int // tags to set, and to list
}

var (
	fullSizes = sizes{
		Big: 1 << 30, Small: 100_000, Many: 1_000_000, Few: 10_000, Reads: 131_072, Adds: 1000, Gets: 10_000,
		Turnover: 30_000, Pieces: 50_000, Marks: 32, Tags: 100_000,
	}
	shortSizes = sizes{
		Big: 16 << 20, Small: 1000, Many: 10_000, Few: 1000, Reads: 2000, Adds: 50, Gets: 500,
		Turnover: 500, Pieces: 500, Marks: 1, Tags: 1000,
	}
)

// A config is the command line, read.
type config struct {
	sizes
	dir        string
	rounds     int
	only       *regexp.Regexp
	rss4       bool
	cpuprofile string
	memprofile string
}

func parseFlags(args []string, stderr io.Writer) (*config, error) {
	cfg := &config{sizes: fullSizes}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	short := flags.Bool("short", false, "tiny sizes, to try the program; -big and -many still count")
	big := flags.String("big", "", "`size` of the large blob, like 256MiB (default 1GiB)")
	many := flags.Int("many", 0, "`number` of blobs or pieces in the large stores (default 1000000)")
	only := flags.String("only", "", "`regexp` of workload/peer pairs to run, like 'add-small/(cairn|sqlite)'")
	flags.StringVar(&cfg.dir, "dir", os.TempDir(), "`directory` to work in; everything is removed afterwards")
	flags.IntVar(&cfg.rounds, "rounds", 5, "how often each measurement is made")
	flags.BoolVar(&cfg.rss4, "rss4", false, "also add a file four times as large, once, for its peak memory")
	flags.StringVar(&cfg.cpuprofile, "cpuprofile", "", "write a CPU profile of the only measurement to `file`")
	flags.StringVar(&cfg.memprofile, "memprofile", "", "write an allocation profile of the only measurement to `file`")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *short {
		cfg.sizes = shortSizes
	}
	if *many > 0 {
		cfg.Many = *many
	}
	if cfg.rounds < 1 {
		return nil, errors.New("-rounds must be at least 1")
	}
	var err error
	if cfg.only, err = regexp.Compile(*only); err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	if *big != "" {
		if cfg.Big, err = parseSize(*big); err != nil {
			return nil, fmt.Errorf("-big: %w", err)
		}
	}
	return cfg, cfg.checkSelection()
}

// checkSelection refuses to run nothing, and profiles of more than one
// measurement: the last one would overwrite the others. Of several rounds, the
// profile is of the last.
func (cfg *config) checkSelection() error {
	n := 0
	for _, w := range cfg.workloads() {
		n += len(cfg.peers(w))
	}
	switch profile := cfg.cpuprofile != "" || cfg.memprofile != ""; {
	case n == 0:
		return errors.New("-only selects nothing")
	case n > 1 && profile:
		return fmt.Errorf("-only selects %d measurements; a profile is of exactly one", n)
	}
	return nil
}

// parseSize reads a number of bytes with an optional unit. The large blob is
// at least 1 MiB.
func parseSize(s string) (int64, error) {
	digits, unit := s, int64(1)
	for suffix, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			digits, unit = rest, bytes
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n > 1<<40/unit || n*unit < 1<<20 {
		return 0, fmt.Errorf("%q is not a size of 1MiB to 1024GiB", s)
	}
	return n * unit, nil
}
