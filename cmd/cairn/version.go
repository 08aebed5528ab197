package main

import (
	"fmt"
	"runtime/debug"

	"zombiezen.com/go/sqlite"
)

type versionCmd struct{}

// versions are what is printed.
type versions struct {
	Version string `json:"version"`
	SQLite  string `json:"sqlite"`
}

func (versionCmd) Run(a *app) error {
	v := versions{moduleVersion(), sqlite.Version}
	return a.print(a.out, fmt.Sprintf("cairn %s\nsqlite %s", v.Version, v.SQLite), v)
}

// moduleVersion returns the version of the module the command was built from.
func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
