package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// A parent starts the children, one at a time, and collects what they answer.
type parent struct {
	ctx  context.Context
	cfg  *config
	log  io.Writer
	self string // the running program
	dir  string // everything is below
}

// measured is a workload with the results of each peer, one a round. A round
// that failed has none.
type measured struct {
	workload
	results map[string][]result
}

func newParent(ctx context.Context, cfg *config, log io.Writer) (*parent, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(cfg.dir, "cairn-bench-")
	if err != nil {
		return nil, err
	}
	return &parent{ctx, cfg, log, self, dir}, nil
}

func (p *parent) remove() {
	if err := os.RemoveAll(p.dir); err != nil {
		fmt.Fprintln(p.log, "bench:", err)
	}
}

// measureAll runs what the flags select. A failure spoils its own cell only;
// the first one is returned with the results.
func (p *parent) measureAll() (all []measured, first error) {
	list := p.cfg.workloads()
	for i, w := range list {
		m := measured{w, make(map[string][]result)}
		err := p.measure(m)
		if first == nil {
			first = err
		}
		if p.ctx.Err() != nil {
			return nil, p.ctx.Err()
		}
		all = append(all, m)
		last := !slices.ContainsFunc(list[i+1:], func(o workload) bool { return o.store == w.store })
		if w.store != "" && last {
			if err := os.RemoveAll(filepath.Join(p.dir, w.store)); err != nil {
				return all, err
			}
		}
	}
	return all, first
}

// measure prepares the stores of a workload's peers, then measures the peers
// in turns: A B C, A B C, and so on.
func (p *parent) measure(m measured) (first error) {
	note := func(err error) bool {
		if err != nil {
			fmt.Fprintln(p.log, "bench:", err)
			if first == nil {
				first = err
			}
		}
		return err == nil
	}
	source, err := p.source(m.size)
	if err != nil {
		return err
	}
	peers := slices.DeleteFunc(p.cfg.peers(m.workload), func(peer string) bool {
		return !note(p.prepare(m.workload, peer, source))
	})
	rounds := p.cfg.rounds
	if m.rounds > 0 {
		rounds = m.rounds
	}
	for round := range rounds {
		for _, peer := range peers {
			if p.ctx.Err() != nil {
				return p.ctx.Err()
			}
			r, err := p.round(m.workload, peer, source, round)
			if note(err) {
				m.results[peer] = append(m.results[peer], r)
			}
		}
	}
	return first
}

// source makes the pseudo-random file of a size, once.
func (p *parent) source(size int64) (string, error) {
	if size == 0 {
		return "", nil
	}
	path := filepath.Join(p.dir, fmt.Sprintf("source-%d", size))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte([]byte("the source of the large workload"))), size)
	return path, errors.Join(err, f.Sync(), f.Close())
}

// storeDir returns where a peer's prepared store is.
func (p *parent) storeDir(w workload, peer string) string {
	if w.oneStore {
		peer = "all"
	}
	return filepath.Join(p.dir, w.store, peer)
}

// prepare makes a peer's prepared store, if the workload has one and it is not
// there from another workload.
func (p *parent) prepare(w workload, peer, source string) error {
	if w.store == "" {
		return nil
	}
	dir := p.storeDir(w, peer)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fmt.Fprintf(p.log, "preparing %s for %s\n", w.store, peer)
	_, err := p.child(task{Workload: w.name, Peer: peer, Dir: dir, Source: source, Prepare: true})
	if err != nil {
		// A half prepared store must not pass for one.
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// round makes one measurement.
func (p *parent) round(w workload, peer, source string, round int) (result, error) {
	dir := p.storeDir(w, peer)
	if w.store == "" {
		dir = filepath.Join(p.dir, "fresh")
		if err := os.Mkdir(dir, 0o700); err != nil {
			return result{}, err
		}
		defer os.RemoveAll(dir)
	}
	r, err := p.child(task{
		Workload: w.name, Peer: peer, Dir: dir, Source: source, Round: round,
		CPUProfile: p.cfg.cpuprofile, MemProfile: p.cfg.memprofile,
	})
	if err == nil {
		fmt.Fprintf(p.log, "%s/%s round %d: %.3f s, %s peak\n", w.name, peer, round+1, r.Seconds, formatBytes(float64(r.PeakRSS)))
	}
	return r, err
}

// child runs this program again for one task and waits for its answer.
func (p *parent) child(t task) (r result, err error) {
	t.Sizes = p.cfg.sizes
	arg, err := json.Marshal(t)
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(p.ctx, p.self, "child", string(arg))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, p.log
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("%s/%s: %w", t.Workload, t.Peer, err)
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("%s/%s: answer %q: %w", t.Workload, t.Peer, out.Bytes(), err)
	}
	return r, nil
}
