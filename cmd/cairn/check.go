package main

import (
	"context"
	"fmt"

	"github.com/cairnstore/cairn"
)

type checkCmd struct{}

// problem is what is printed of one. The hash is empty if no blob is known to
// be concerned.
type problem struct {
	Kind   string `json:"kind"`
	Hash   string `json:"hash"`
	Detail string `json:"detail"`
}

func (checkCmd) Run(ctx context.Context, a *app) (err error) {
	store, err := a.openReading(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	count := 0
	for p, err := range store.Check(ctx, nil) {
		if err != nil {
			return err
		}
		count++
		if err := a.print(a.out, oneLine(p.String()), newProblem(p)); err != nil {
			return err
		}
	}
	if count > 0 {
		return fmt.Errorf("%w: problems found: %d", cairn.ErrCorrupt, count)
	}
	return nil
}

func newProblem(p cairn.Problem) problem {
	object := problem{Kind: p.Kind, Detail: p.Detail}
	if p.Hash != (cairn.Hash{}) {
		object.Hash = p.Hash.String()
	}
	return object
}
