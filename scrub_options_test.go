package cairn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairnstore/cairn"
)

// TestScrubOptions: what is impossible is refused, and what is selected is looked
// at.
func TestScrubOptions(t *testing.T) {
	s := open(t, ":memory:", nil)
	for _, opts := range []*cairn.ScrubOptions{
		{Sample: -0.1}, {Sample: 1.1}, {Sample: math.NaN()}, {Sample: math.Inf(1)}, {Prefix: "xy"}, {Prefix: fmt.Sprintf("%065d", 0)},
	} {
		_, err := s.Scrub(t.Context(), opts)
		mustBe(t, err, cairn.ErrMismatch)
	}
	report, err := s.Scrub(t.Context(), nil)
	if err != nil || report != (cairn.ScrubReport{Done: true}) {
		t.Errorf("%+v, %v", report, err)
	}
	var hashes []cairn.Hash
	for i := range uint64(600) {
		hashes = append(hashes, add(t, s, content(i, 1+int(i)*7%40_000)))
	}
	hashes = append(hashes, add(t, s, content(1000, 3<<20)))
	slices.SortFunc(hashes, func(a, b cairn.Hash) int { return bytes.Compare(a[:], b[:]) })
	st := must(s.Stats(t.Context()))
	want := cairn.ScrubReport{Scanned: st.Blobs, Bytes: st.StoredBytes, Last: hashes[len(hashes)-1], Done: true}
	for _, opts := range []*cairn.ScrubOptions{nil, {Sample: 1}, {Rate: 1 << 40}} {
		if report, err := s.Scrub(t.Context(), opts); err != nil || report != want {
			t.Errorf("%+v, %v, want %+v", report, err, want)
		}
	}
	half := 0
	for _, h := range hashes {
		if h.String()[0] == 'a' {
			half++
		}
	}
	if report, err := s.Scrub(t.Context(), &cairn.ScrubOptions{Prefix: "A"}); err != nil || int(report.Scanned) != half {
		t.Errorf("%+v, %v, want %d", report, err, half)
	}
	if report, err := s.Scrub(t.Context(), &cairn.ScrubOptions{After: hashes[599]}); err != nil || report.Scanned != 1 || report.Last != hashes[600] {
		t.Errorf("%+v, %v", report, err)
	}
	if report, err := s.Scrub(t.Context(), &cairn.ScrubOptions{After: hashes[600]}); err != nil || report.Scanned != 0 || !report.Done {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestScrubSample: each run of 64 groups is picked as often as any other, of small
// blobs and large ones, and damage in one has all of its blob looked at.
func TestScrubSample(t *testing.T) {
	s := open(t, ":memory:", nil)
	const large = 20
	add(t, s, content(1, large<<20))
	for i := range uint64(20) {
		add(t, s, content(i+2, 1000))
	}
	const rounds = 400
	var bytes, scanned int64
	for range rounds {
		report := must(s.Scrub(t.Context(), &cairn.ScrubOptions{Sample: 0.25}))
		bytes += report.Bytes
		scanned += report.Scanned
	}
	// Of rounds times 20 coins, each seven standard deviations.
	runs := float64(bytes>>20) / (rounds * large)
	if math.Abs(runs-0.25) > 0.034 {
		t.Errorf("%.3f of the runs were picked", runs)
	}
	if got := float64(scanned) / rounds; math.Abs(got-6) > 0.7 {
		t.Errorf("%.2f blobs were picked, of 21", got)
	}
	hash := hashOf(content(1, large<<20))
	for _, g := range []int64{5, 70, 1279} {
		script(t, s, fmt.Sprintf(`delete from "row" where id = %d`, idOf(t, s, hash)+g))
	}
	for {
		list := scrub(t, s, &cairn.ScrubOptions{Sample: 0.25})
		if len(list) > 0 {
			if want := groupsOf(large<<20, 5, 70, 1279); !list[0].Ranges.Equal(want) {
				t.Errorf("found %v, not %v", list, want)
			}
			break
		}
	}
	mustBeSound(t, s)
}

// TestScrubResumes ends a scrub after each finding, and after each blob, and goes
// on from there.
func TestScrubResumes(t *testing.T) {
	const blobs = 30
	build := func() *cairn.Store {
		s := open(t, ":memory:", nil)
		for i := range blobs {
			hash := add(t, s, content(uint64(i), 1+i*9000))
			if i%3 == 0 {
				script(t, s, fmt.Sprintf(`update "row" set data = x'' where id = %d`, idOf(t, s, hash)))
			}
		}
		return s
	}
	want := scrub(t, build(), nil)
	if len(want) != blobs/3 {
		t.Fatalf("%d findings", len(want))
	}
	s := build()
	var got []cairn.Finding
	var after cairn.Hash
	for more := true; more; {
		more = false
		for f, err := range s.Findings(t.Context(), &cairn.ScrubOptions{After: after}) {
			mustBe(t, err, nil)
			got, after, more = append(got, f), f.Hash, true
			break
		}
	}
	mustBeSame(t, got, want)

	s = build()
	got = nil
	var total int64
	for report := (cairn.ScrubReport{}); !report.Done; {
		ctx, cancel := context.WithCancel(t.Context())
		opts := &cairn.ScrubOptions{After: report.Last, Progress: func(r cairn.ScrubReport) {
			report = r
			if r.Scanned > 0 {
				cancel()
			}
		}}
		for f, err := range s.Findings(ctx, opts) {
			if err != nil {
				mustBe(t, err, context.Canceled)
				break
			}
			got = append(got, f)
		}
		if report.Scanned > 1 {
			t.Errorf("%d blobs after the scrub was cancelled", report.Scanned-1)
		}
		total += report.Scanned
		cancel()
	}
	mustBeSame(t, got, want)
	if total != blobs {
		t.Errorf("%d blobs scanned, of %d", total, blobs)
	}
}

func mustBeSame(t *testing.T, got, want []cairn.Finding) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b cairn.Finding) bool {
		return a.Hash == b.Hash && a.Outcome == b.Outcome && a.Ranges.Equal(b.Ranges)
	}) {
		t.Errorf("found %v, want %v", got, want)
	}
}

// TestScrubProgress: the reports grow, one comes after each blob, and about one
// for each MiB.
func TestScrubProgress(t *testing.T) {
	s := open(t, ":memory:", nil)
	add(t, s, content(1, 5<<20))
	add(t, s, content(2, 10))
	var all []cairn.ScrubReport
	report := must(s.Scrub(t.Context(), &cairn.ScrubOptions{Progress: func(r cairn.ScrubReport) { all = append(all, r) }}))
	if len(all) != 5+2+1 || all[len(all)-1] != report {
		t.Errorf("%+v, and told was %+v", report, all)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Bytes < all[i-1].Bytes || all[i].Scanned < all[i-1].Scanned {
			t.Errorf("%+v after %+v", all[i], all[i-1])
		}
	}
}

// TestScrubCancelled cancels a scrub that has to wait.
func TestScrubCancelled(t *testing.T) {
	s := open(t, ":memory:", nil)
	add(t, s, content(1, 5<<20))
	ctx, cancel := context.WithCancel(t.Context())
	report, err := s.Scrub(ctx, &cairn.ScrubOptions{Rate: 1, Progress: func(cairn.ScrubReport) { cancel() }})
	if mustBe(t, err, context.Canceled); report.Bytes != 1<<20 || report.Done {
		t.Errorf("%+v", report)
	}
	if report, err := s.Scrub(ctx, nil); !errors.Is(err, context.Canceled) || report.Bytes != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	s.Close()
	_, err = s.Scrub(t.Context(), nil)
	mustBe(t, err, cairn.ErrClosed)
}

// TestThrottle lets bytes pass on a clock that does not run by itself.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		throttle := cairn.NewThrottle(1000)
		for range 11 {
			mustBe(t, throttle.Wait(t.Context(), 500), nil)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("11 times 500 bytes at 1000 a second took %v", took)
		}
		time.Sleep(time.Hour) // gives no credit
		start = time.Now()
		for range 3 {
			mustBe(t, throttle.Wait(t.Context(), 1000), nil)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("3 times 1000 bytes took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		mustBe(t, throttle.Wait(ctx, 1), context.DeadlineExceeded)
		for range 100 {
			mustBe(t, cairn.NewThrottle(0).Wait(t.Context(), 1<<40), nil)
		}
	})
}
