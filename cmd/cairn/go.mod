module github.com/cairnstore/cairn/cmd/cairn

go 1.26.0

require (
	github.com/alecthomas/kong v1.17.0 // the command line
	github.com/cairnstore/cairn v0.0.0
	github.com/dustin/go-humanize v1.1.0 // numbers of bytes like 10GiB
	github.com/rogpeppe/go-internal v1.16.0 // tests: scripts in testdata
	github.com/schollz/progressbar/v3 v3.19.1 // the progress bar
	golang.org/x/term v0.47.0 // is standard error a terminal?
	lukechampine.com/blake3 v1.4.1 // tests: a second opinion on hashes
	zombiezen.com/go/sqlite v1.4.2 // the version of SQLite; tests: damage
)

require (
	github.com/gofrs/flock v0.13.1 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/klauspost/cpuid/v2 v2.0.9 // indirect
	github.com/mattn/go-isatty v0.0.24 // indirect
	github.com/mitchellh/colorstring v0.0.0-20190213212951-d06e56a500db // indirect
	github.com/ncruces/go-strftime v1.1.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/tools v0.52.0 // indirect
	modernc.org/libc v1.79.0 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.12.1 // indirect
	modernc.org/sqlite v1.61.1 // indirect
)

replace github.com/cairnstore/cairn => ../..
