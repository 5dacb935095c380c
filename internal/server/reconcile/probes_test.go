package reconcile

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

const second = time.Second

func TestProbes_AskAtOnceAndThenEveryInterval(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		began := time.Now()
		r.want("a", nil)
		r.keep("i", []probed{probedAt("a", health())})
		r.pass(0)
		r.want("a", isReady())
		r.pass(100 * second)
		at := r.asks("a:80", "/health")
		if len(at) < 11 || len(at) > 12 || !at[0].Equal(began) {
			t.Fatalf("asked at %v", at)
		}
		gaps := map[time.Duration]bool{}
		for i := range at[1:] {
			gap := at[i+1].Sub(at[i])
			gaps[gap] = true
			if gap < 9*second || gap > 10*second {
				t.Errorf("%v between two questions", gap)
			}
		}
		if len(gaps) < 5 {
			t.Errorf("the gaps are not spread: %v", gaps)
		}
	})
}

func TestProbes_TheIntervalBeginsWithTheEndOfTheAnswer(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.set("a:80", func(one *probedReplica) { one.slow = 4 * second })
		r.keep("i", []probed{probedAt("a", health(every(1)))})
		r.pass(60 * second)
		at := r.asks("a:80", "/health")
		for i := range at[1:] {
			if gap := at[i+1].Sub(at[i]); gap < 4900*time.Millisecond || gap > 5*second {
				t.Errorf("%v between two questions", gap)
			}
		}
		r.want("a", isReady())
	})
}

func TestProbes_AStartIsAskedSooner(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.set("a:80", func(one *probedReplica) { one.refuse = true })
		r.keep("i", []probed{probedAt("a", health())})
		r.pass(50 * second)
		at := r.asks("a:80", "")
		wants := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000}
		if len(at) <= len(wants) {
			t.Fatalf("asked at %v", at)
		}
		for i, want := range wants {
			want *= time.Millisecond
			if gap := at[i+1].Sub(at[i]); gap > want || gap < want*9/10 {
				t.Errorf("wait %d is %v, want %v", i, gap, want)
			}
		}
		r.want("a", isOut(0, "GET /health: connection refused"))
		if n := r.woken(); n != 1 {
			t.Errorf("woken %d times, for the first answer alone it is 1", n)
		}
		r.set("a:80", func(one *probedReplica) { one.refuse = false })
		r.pass(10 * second)
		r.want("a", isReady())
		if n := r.woken(); n != 1 {
			t.Errorf("woken %d times for getting ready", n)
		}
	})
}

func TestProbes_ReadyAfterGoodAnswersInARow(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.keep("i", []probed{probedAt("a", health(readyAfter(3)))})
		r.pass(0)
		r.want("a", isOut(0, "GET /health has answered 1 of 3 times"))
		r.pass(100 * time.Millisecond)
		r.want("a", isOut(0, "GET /health has answered 2 of 3 times"))
		r.set("a:80", func(one *probedReplica) { one.status["/health"] = 503 })
		r.pass(200 * time.Millisecond)
		r.want("a", isOut(0, "GET /health answered 503"))
		r.set("a:80", func(one *probedReplica) { one.status["/health"] = 204 })
		r.pass(400 * time.Millisecond)
		r.want("a", isOut(0, "GET /health has answered 1 of 3 times"))
		r.pass(3 * second)
		r.want("a", isReady())
	})
}

func TestProbes_OneFailTakesItOutAndGoodOnesInARowBringItBack(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.keep("i", []probed{probedAt("a", health(readyAfter(2)))})
		r.pass(second)
		r.want("a", isReady())
		r.woken()
		r.set("a:80", func(one *probedReplica) { one.status["/health"] = 500 })
		for fails := range 5 {
			r.pass(10 * second)
			r.want("a", isOut(min(fails+1, dstack.ProbeFailureThreshold), "GET /health answered 500"))
		}
		if n := r.woken(); n != 3 {
			t.Errorf("woken %d times, want once for each of 3 fails", n)
		}
		r.set("a:80", func(one *probedReplica) { delete(one.status, "/health") })
		r.pass(10 * second)
		r.want("a", isOut(0, "GET /health has answered 1 of 2 times"))
		r.pass(10 * second)
		r.want("a", isReady())
		if n := r.woken(); n != 2 {
			t.Errorf("woken %d times, want for no fails and for ready", n)
		}
	})
}

func TestProbes_AreReadyTogetherAndTheWorstIsNamed(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.set("a:80", func(one *probedReplica) { one.status["/b"] = 404 })
		r.keep("i", []probed{probedAt("a", health(atPath("/a")), health(atPath("/b"), every(2)))})
		r.pass(second)
		r.want("a", isOut(0, "GET /b answered 404"))
		r.set("a:80", func(one *probedReplica) { delete(one.status, "/b") })
		r.pass(2 * second)
		r.want("a", isReady())
		r.set("a:80", func(one *probedReplica) { one.status["/a"], one.status["/b"] = 418, 500 })
		r.pass(13 * second) // two answers of /a at most
		r.want("a", isOut(3, "GET /b answered 500"))
		r.set("a:80", func(one *probedReplica) { delete(one.status, "/b") })
		r.pass(2 * second)
		if got := r.of("a"); got.Ready || got.ConsecutiveFailures < 1 || got.Message != "GET /a answered 418" {
			t.Errorf("one of two is well: %+v", got)
		}
	})
}

func TestProbes_UntilReadyIsAskedNoMoreOnceAllAreReady(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.set("a:80", func(one *probedReplica) { one.status["/health"] = 503 })
		r.keep("i", []probed{probedAt("a", health(atPath("/loaded"), untilReady()), health())})
		r.pass(30 * second)
		if n := len(r.asks("a:80", "/loaded")); n < 5 {
			t.Errorf("asked %d times before all were ready", n)
		}
		r.set("a:80", func(one *probedReplica) { delete(one.status, "/health") })
		r.pass(10 * second)
		r.want("a", isReady())
		r.asks("a:80", "/loaded")
		r.set("a:80", func(one *probedReplica) { one.status["/loaded"] = 500 })
		r.pass(100 * second)
		r.want("a", isReady())
		if n := len(r.asks("a:80", "/loaded")); n != 0 {
			t.Errorf("asked %d times after", n)
		}
	})
}

func TestProbes_AReplicaThatHangsIsOutWithinTwoIntervals(t *testing.T) {
	for _, interval := range []spec.Seconds{5, 10, 60} {
		inBubble(t, func(r *probeRig) {
			on := []probed{probedAt("a", health(every(interval)))}
			r.keep("i", on)
			r.pass(second)
			for range 7 { // wherever in the interval it is stopped
				r.keep("i", on)
				r.want("a", isReady())
				r.set("a:80", func(one *probedReplica) { one.hang = true })
				r.pass(2 * time.Duration(interval) * second)
				if got := r.of("a"); got.Ready || got.ConsecutiveFailures < 1 || got.Message != "GET /health did not answer within 5s" {
					t.Errorf("after two intervals: %+v", got)
				}
				r.set("a:80", func(one *probedReplica) { one.hang = false })
				r.pass(time.Duration(interval)*second + 5*second)
				r.pass(second)
			}
		})
	}
}

func TestProbes_AHostThatIsGoneIsDialledOnceAtATime(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.set("a:80", func(one *probedReplica) { one.drop = true })
		r.keep("i", []probed{probedAt("a", health(every(1)))})
		for range 100 {
			r.pass(second)
			r.set("a:80", func(one *probedReplica) {
				if one.dials > 1 {
					r.t.Errorf("%d dials at once", one.dials)
				}
			})
		}
		r.want("a", isOut(0, "GET /health did not answer within 5s"))
	})
}

func TestProbes_ARestartedServerTakesNobodyOut(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		var on []probed
		for i := range 50 {
			on = append(on, wasReady(probedAt(dstack.AttemptID(fmt.Sprint("a", i)), health(readyAfter(3)), health(atPath("/loaded"), untilReady()))))
		}
		r.keep("i", on)
		began, firsts := time.Now(), map[time.Duration]bool{}
		r.want("a0", isReady())
		r.set("a7:80", func(one *probedReplica) { one.status["/health"] = 502 })
		r.pass(second)
		r.want("a7", isOut(1, "GET /health answered 502"))
		for _, one := range on {
			if one.Attempt != "a7" {
				r.want(one.Attempt, isReady())
			}
			at := r.asks(one.Address, "/health")
			if len(at) != 1 {
				t.Fatalf("asked at %v in the first second", at)
			}
			firsts[at[0].Sub(began)] = true
		}
		if len(firsts) < 25 {
			t.Errorf("50 replicas are asked in %d instants", len(firsts))
		}
		r.pass(60 * second)
		if n := len(r.asks("a1:80", "/loaded")); n != 0 {
			t.Errorf("what is asked until ready was asked %d times", n)
		}
	})
}

func TestProbes_OnlyUntilReadyOfWhoWasReadyAskNothing(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.keep("i", []probed{wasReady(probedAt("a", health(untilReady())))})
		r.pass(60 * second)
		r.want("a", isReady())
		if at := r.asks("a:80", "/health"); at != nil {
			t.Errorf("asked at %v", at)
		}
	})
}

func TestProbes_WhatThisServerLacksTakesNobodyOut(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.set("b:80", func(one *probedReplica) { one.short = syscall.EMFILE })
		r.keep("i", []probed{probedAt("a", health()), probedAt("b", health())})
		r.pass(0)
		r.want("b", isOut(0, "GET /health: too many open files"))
		r.set("a:80", func(one *probedReplica) { one.short = syscall.EMFILE })
		r.pass(60 * second)
		r.want("a", isReady())
	})
}

func TestProbes_KeepBeginsEndsAndBeginsAfresh(t *testing.T) {
	moved := probedAt("a", health())
	moved.Address = "elsewhere:80"
	unknown := probedAt("a", health())
	unknown.Address = ""
	cases := []struct {
		name   string
		next   []probed
		asked  []string // paths at a:80 in the next moment
		wanted *dstack.ProbeStatus
	}{
		{"the same", []probed{probedAt("a", health())}, nil, isReady()},
		{"the same and ready", []probed{wasReady(probedAt("a", health()))}, nil, isReady()},
		{"listed twice", []probed{probedAt("a", health()), probedAt("a", health())}, nil, isReady()},
		{"one more beside", []probed{probedAt("b", health()), probedAt("a", health())}, nil, isReady()},
		{"address not known at the moment", []probed{unknown}, nil, isReady()},
		{"another address", []probed{moved}, nil, isReady()},
		{"another probe", []probed{probedAt("a", health(atPath("/x")))}, []string{"/x"}, isReady()},
		{"more patience", []probed{probedAt("a", health(readyAfter(2)))}, []string{"/health"}, isOut(0, "GET /health has answered 1 of 2 times")},
		{"no probes left", []probed{probedAt("a")}, nil, nil},
		{"none", nil, nil, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(r *probeRig) {
				r.keep("other", []probed{probedAt("o", health())})
				r.keep("i", []probed{probedAt("a", health())})
				r.pass(0)
				r.asks("a:80", "")
				r.keep("i", c.next)
				r.pass(0)
				r.want("a", c.wanted)
				r.want("o", isReady())
				r.mu.Lock()
				var paths []string
				for _, q := range r.replica("a:80").asked {
					paths = append(paths, q.path)
				}
				r.mu.Unlock()
				if !slices.Equal(paths, c.asked) {
					t.Errorf("asked %v, want %v", paths, c.asked)
				}
				r.asks("a:80", "")
				r.pass(second) // who is kept has the next question in 9 s or more
				stays := c.wanted != nil && c.name != "another address" && c.name != "another probe"
				r.pass(20 * second)
				if asked := len(r.asks("a:80", "/health")) > 0; asked != stays {
					t.Errorf("asked further: %v, want %v", asked, stays)
				}
			})
		})
	}
}

func TestProbes_AnAnswerAfterTheEndSaysNothing(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.set("a:80", func(one *probedReplica) { one.hang = true })
		r.keep("i", []probed{wasReady(probedAt("a", health()))})
		r.pass(2 * second)
		r.keep("i", nil)
		r.pass(10 * second)
		r.want("a", nil)
		r.keep("i", []probed{wasReady(probedAt("a", health()))})
		r.pass(2 * second)
		r.stop()
		r.want("a", isReady())
		if n := r.woken(); n != 0 {
			t.Errorf("woken %d times", n)
		}
	})
}

func TestProbes_AnInstanceThatNoPassKeepsIsForgotten(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.keep("i", []probed{probedAt("a", health())})
		r.keep("j", []probed{probedAt("b", health())})
		for range 14 {
			r.pass(30 * second)
			r.keep("j", []probed{probedAt("b", health())})
		}
		r.want("a", nil)
		r.want("b", isReady())
		r.asks("a:80", "")
		r.pass(60 * second)
		if at := r.asks("a:80", "/health"); at != nil {
			t.Errorf("asked at %v", at)
		}
	})
}

func TestProbes_AskNothingBeforeRunAndAfter(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		r.keep("i", []probed{probedAt("a", health())})
		r.pass(0)
		r.stop()
		r.asks("a:80", "")
		r.keep("i", []probed{probedAt("a", health()), probedAt("b", health())})
		r.pass(60 * second)
		if at := append(r.asks("a:80", "/health"), r.asks("b:80", "/health")...); at != nil {
			t.Errorf("asked at %v", at)
		}
		r.begin() // and once more it begins anew
		r.want("a", nil)
		r.keep("i", []probed{probedAt("a", health())})
		r.pass(0)
		r.want("a", isReady())
	})
}

func TestProbes_ManyAttempts(t *testing.T) {
	inBubble(t, func(r *probeRig) {
		var on []probed
		for i := range 1000 {
			on = append(on, wasReady(probedAt(dstack.AttemptID(fmt.Sprint("a", i)), health())))
		}
		r.keep("i", on)
		r.pass(10 * second)
		for _, one := range on {
			r.want(one.Attempt, isReady())
			if n := len(r.asks(one.Address, "/health")); n < 1 || n > 2 {
				t.Fatalf("%s was asked %d times", one.Attempt, n)
			}
		}
	})
}
