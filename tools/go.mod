// The tools that .ci/run uses, in a module of their own so that no importer
// of Cairn meets them.
module github.com/cairnstore/cairn/tools

go 1.26.0

tool (
	golang.org/x/vuln/cmd/govulncheck
	honnef.co/go/tools/cmd/staticcheck
)
