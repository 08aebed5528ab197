package cairn

import (
	"context"
	"time"
)

// A throttle lets bytes pass at a rate. Nil, and a rate of 0, let all pass. It is
// for one goroutine.
type throttle struct {
	rate int64     // bytes a second
	next time.Time // when the next bytes may pass
}

// wait returns when n bytes may pass: those before them have had their time.
func (t *throttle) wait(ctx context.Context, n int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if t == nil || t.rate <= 0 {
		return nil
	}
	now := time.Now()
	delay := t.next.Sub(now)
	if delay < 0 {
		t.next, delay = now, 0
	}
	t.next = t.next.Add(time.Duration(float64(n) / float64(t.rate) * float64(time.Second)))
	if delay == 0 {
		return nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
