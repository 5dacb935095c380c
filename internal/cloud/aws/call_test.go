package aws

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestPauses_GrowUntilACallWorks(t *testing.T) {
	var p pauses
	pass := func() { p.actions["a"].until = time.Now() }
	for i, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
		if got := p.begin("a", 0); got != want {
			t.Errorf("pause %d is %s, want %s", i, got, want)
		}
		pass()
	}
	if got := p.begin("a", 7*time.Second); got != 7*time.Second {
		t.Errorf("the pause is %s, want what the API asks for", got)
	}
	if got := p.begin("a", 0); got < 6*time.Second || got > 7*time.Second {
		t.Errorf("a call that began before the pause makes it %s", got)
	}
	p.end("a") // a call that began before the pause
	if p.left("a") == 0 {
		t.Error("the pause ended before its time")
	}
	pass()
	p.end("a")
	if got := p.begin("a", 0); got != 2*time.Second || p.left("b") != 0 {
		t.Errorf("the pause after a call that worked is %s", got)
	}
}

func TestMemo_KeepsFailuresForAWhile(t *testing.T) {
	var m memo[int]
	looks := 0
	look := func() error {
		_, err := m.get(t.Context(), "k", time.Hour, func(ctx context.Context) (int, error) {
			looks++
			return 0, errors.New("no VPC")
		})
		return err
	}
	for range 3 {
		if look() == nil {
			t.Error("there is no error")
		}
	}
	if looks != 1 {
		t.Errorf("it looked %d times", looks)
	}
	m.forget("k")
	if look() == nil || looks != 2 {
		t.Errorf("it looked %d times", looks)
	}
}
