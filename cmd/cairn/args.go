package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// flagsLast returns the arguments with all flags behind the other words, so
// that flags may stand anywhere: the parser takes a list of paths only in one
// piece. Arguments with a "--" stay as they are, because what is behind it is
// no flag.
func flagsLast(model *kong.Application, args []string) []string {
	if slices.Contains(args, "--") {
		return args
	}
	valued := valuedFlags(model.Node)
	var words, flags []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == stdinPath || !strings.HasPrefix(arg, "-") {
			words = append(words, arg)
			continue
		}
		flags = append(flags, arg)
		if valued[arg] && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return append(words, flags...)
}

// valuedFlags returns the flags of all commands whose value is the next
// argument.
func valuedFlags(node *kong.Node) map[string]bool {
	valued := make(map[string]bool)
	var visit func(node *kong.Node)
	visit = func(node *kong.Node) {
		for _, flag := range node.Flags {
			if flag.IsBool() {
				continue
			}
			valued["--"+flag.Name] = true
			if flag.Short != 0 {
				valued["-"+string(flag.Short)] = true
			}
		}
		for _, child := range node.Children {
			visit(child)
		}
	}
	visit(node)
	return valued
}

// exactString has an argument taken byte by byte: the parser's own way makes
// U+FFFD of what is no UTF-8, and so another path or key.
var exactString = kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
	token, err := ctx.Scan.PopValue("string")
	if err != nil {
		return err
	}
	target.SetString(fmt.Sprint(token.Value))
	return nil
})
