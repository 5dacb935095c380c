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

func TestProber_SendAtOnceAndThenEveryInterval(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		began := time.Now()
		r.expectStatus("a", nil)
		r.setTargets("i", []target{newTarget("a", newProbe())})
		r.advance(0)
		r.expectStatus("a", passingStatus())
		r.advance(100 * second)
		at := r.takeRequests("a:80", "/health")
		if len(at) < 11 || len(at) > 12 || !at[0].Equal(began) {
			t.Fatalf("probed at %v", at)
		}
		gaps := map[time.Duration]bool{}
		for i := range at[1:] {
			gap := at[i+1].Sub(at[i])
			gaps[gap] = true
			if gap < 9*second || gap > 10*second {
				t.Errorf("%v between two probes", gap)
			}
		}
		if len(gaps) < 5 {
			t.Errorf("the gaps are not spread: %v", gaps)
		}
	})
}

func TestProber_TheIntervalBeginsAtTheEndOfTheAnswer(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.configure("a:80", func(p *probedReplica) { p.delay = 4 * second })
		r.setTargets("i", []target{newTarget("a", newProbe(every(1)))})
		r.advance(60 * second)
		at := r.takeRequests("a:80", "/health")
		for i := range at[1:] {
			if gap := at[i+1].Sub(at[i]); gap < 4900*time.Millisecond || gap > 5*second {
				t.Errorf("%v between two probes", gap)
			}
		}
		r.expectStatus("a", passingStatus())
	})
}

func TestProber_AStartingAttemptIsProbedSooner(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.configure("a:80", func(p *probedReplica) { p.refuse = true })
		r.setTargets("i", []target{newTarget("a", newProbe())})
		r.advance(50 * second)
		at := r.takeRequests("a:80", "")
		wants := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000}
		if len(at) <= len(wants) {
			t.Fatalf("probed at %v", at)
		}
		for i, want := range wants {
			want *= time.Millisecond
			if gap := at[i+1].Sub(at[i]); gap > want || gap < want*9/10 {
				t.Errorf("wait %d is %v, want %v", i, gap, want)
			}
		}
		r.expectStatus("a", failingStatus(0, "GET /health: connection refused"))
		if n := r.takeChanges(); n != 1 {
			t.Errorf("%d changes, want 1 for the first answer", n)
		}
		r.configure("a:80", func(p *probedReplica) { p.refuse = false })
		r.advance(10 * second)
		r.expectStatus("a", passingStatus())
		if n := r.takeChanges(); n != 1 {
			t.Errorf("%d changes, want 1 for becoming ready", n)
		}
	})
}

func TestProber_ReadyAfterConsecutiveSuccesses(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.setTargets("i", []target{newTarget("a", newProbe(readyAfter(3)))})
		r.advance(0)
		r.expectStatus("a", failingStatus(0, "GET /health has answered 1 of 3 times"))
		r.advance(100 * time.Millisecond)
		r.expectStatus("a", failingStatus(0, "GET /health has answered 2 of 3 times"))
		r.configure("a:80", func(p *probedReplica) { p.status["/health"] = 503 })
		r.advance(200 * time.Millisecond)
		r.expectStatus("a", failingStatus(0, "GET /health answered 503"))
		r.configure("a:80", func(p *probedReplica) { p.status["/health"] = 204 })
		r.advance(400 * time.Millisecond)
		r.expectStatus("a", failingStatus(0, "GET /health has answered 1 of 3 times"))
		r.advance(3 * second)
		r.expectStatus("a", passingStatus())
	})
}

func TestProber_OneFailureTakesAReplicaOutAndSuccessesBringItBack(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.setTargets("i", []target{newTarget("a", newProbe(readyAfter(2)))})
		r.advance(second)
		r.expectStatus("a", passingStatus())
		r.takeChanges()
		r.configure("a:80", func(p *probedReplica) { p.status["/health"] = 500 })
		for fails := range 5 {
			r.advance(10 * second)
			r.expectStatus("a", failingStatus(min(fails+1, dstack.ProbeFailureThreshold), "GET /health answered 500"))
		}
		if n := r.takeChanges(); n != 3 {
			t.Errorf("%d changes, want one for each of 3 failures", n)
		}
		r.configure("a:80", func(p *probedReplica) { delete(p.status, "/health") })
		r.advance(10 * second)
		r.expectStatus("a", failingStatus(0, "GET /health has answered 1 of 2 times"))
		r.advance(10 * second)
		r.expectStatus("a", passingStatus())
		if n := r.takeChanges(); n != 2 {
			t.Errorf("%d changes, want one for no failures and one for ready", n)
		}
	})
}

func TestProber_AllMustPassAndTheWorstIsReported(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.configure("a:80", func(p *probedReplica) { p.status["/b"] = 404 })
		r.setTargets("i", []target{newTarget("a", newProbe(atPath("/a")), newProbe(atPath("/b"), every(2)))})
		r.advance(second)
		r.expectStatus("a", failingStatus(0, "GET /b answered 404"))
		r.configure("a:80", func(p *probedReplica) { delete(p.status, "/b") })
		r.advance(2 * second)
		r.expectStatus("a", passingStatus())
		r.configure("a:80", func(p *probedReplica) { p.status["/a"], p.status["/b"] = 418, 500 })
		r.advance(13 * second) // two answers of /a at most
		r.expectStatus("a", failingStatus(3, "GET /b answered 500"))
		r.configure("a:80", func(p *probedReplica) { delete(p.status, "/b") })
		r.advance(2 * second)
		if got := r.statusOf("a"); got.Ready || got.ConsecutiveFailures < 1 || got.Message != "GET /a answered 418" {
			t.Errorf("one of two passes: %+v", got)
		}
	})
}

func TestProber_UntilReadyIsNotSentOnceAllPass(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.configure("a:80", func(p *probedReplica) { p.status["/health"] = 503 })
		r.setTargets("i", []target{newTarget("a", newProbe(atPath("/loaded"), untilReady()), newProbe())})
		r.advance(30 * second)
		if n := len(r.takeRequests("a:80", "/loaded")); n < 5 {
			t.Errorf("probed %d times before all passed", n)
		}
		r.configure("a:80", func(p *probedReplica) { delete(p.status, "/health") })
		r.advance(10 * second)
		r.expectStatus("a", passingStatus())
		r.takeRequests("a:80", "/loaded")
		r.configure("a:80", func(p *probedReplica) { p.status["/loaded"] = 500 })
		r.advance(100 * second)
		r.expectStatus("a", passingStatus())
		if n := len(r.takeRequests("a:80", "/loaded")); n != 0 {
			t.Errorf("probed %d times after", n)
		}
	})
}

func TestProber_AHangingReplicaIsOutWithinTwoIntervals(t *testing.T) {
	for _, interval := range []spec.Seconds{5, 10, 60} {
		testProbes(t, func(r *probeRig) {
			targets := []target{newTarget("a", newProbe(every(interval)))}
			r.setTargets("i", targets)
			r.advance(second)
			for range 7 { // at different moments of the interval
				r.setTargets("i", targets)
				r.expectStatus("a", passingStatus())
				r.configure("a:80", func(p *probedReplica) { p.hang = true })
				r.advance(2 * time.Duration(interval) * second)
				if got := r.statusOf("a"); got.Ready || got.ConsecutiveFailures < 1 || got.Message != "GET /health did not answer within 5s" {
					t.Errorf("after two intervals: %+v", got)
				}
				r.configure("a:80", func(p *probedReplica) { p.hang = false })
				r.advance(time.Duration(interval)*second + 5*second)
				r.advance(second)
			}
		})
	}
}

func TestProber_AnUnreachableHostIsDialledOnceAtATime(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.configure("a:80", func(p *probedReplica) { p.drop = true })
		r.setTargets("i", []target{newTarget("a", newProbe(every(1)))})
		for range 100 {
			r.advance(second)
			r.configure("a:80", func(p *probedReplica) {
				if p.dials > 1 {
					r.t.Errorf("%d dials at the same time", p.dials)
				}
			})
		}
		r.expectStatus("a", failingStatus(0, "GET /health did not answer within 5s"))
	})
}

func TestProber_ARestartedServerTakesNoReplicaOut(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		var targets []target
		for i := range 50 {
			targets = append(targets, wasReady(newTarget(dstack.AttemptID(fmt.Sprint("a", i)), newProbe(readyAfter(3)), newProbe(atPath("/loaded"), untilReady()))))
		}
		r.setTargets("i", targets)
		began, firsts := time.Now(), map[time.Duration]bool{}
		r.expectStatus("a0", passingStatus())
		r.configure("a7:80", func(p *probedReplica) { p.status["/health"] = 502 })
		r.advance(second)
		r.expectStatus("a7", failingStatus(1, "GET /health answered 502"))
		for _, one := range targets {
			if one.Attempt != "a7" {
				r.expectStatus(one.Attempt, passingStatus())
			}
			at := r.takeRequests(one.Address, "/health")
			if len(at) != 1 {
				t.Fatalf("probed at %v in the first second", at)
			}
			firsts[at[0].Sub(began)] = true
		}
		if len(firsts) < 25 {
			t.Errorf("50 replicas are probed at %d different times", len(firsts))
		}
		r.advance(60 * second)
		if n := len(r.takeRequests("a1:80", "/loaded")); n != 0 {
			t.Errorf("the probe with until_ready was sent %d times", n)
		}
	})
}

func TestProber_UntilReadyIsNotSentToAReplicaThatWasReady(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.setTargets("i", []target{wasReady(newTarget("a", newProbe(untilReady())))})
		r.advance(60 * second)
		r.expectStatus("a", passingStatus())
		if at := r.takeRequests("a:80", "/health"); at != nil {
			t.Errorf("probed at %v", at)
		}
	})
}

func TestProber_AShortageOfThisServerTakesNoReplicaOut(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.configure("b:80", func(p *probedReplica) { p.shortage = syscall.EMFILE })
		r.setTargets("i", []target{newTarget("a", newProbe()), newTarget("b", newProbe())})
		r.advance(0)
		r.expectStatus("b", failingStatus(0, "GET /health: too many open files"))
		r.configure("a:80", func(p *probedReplica) { p.shortage = syscall.EMFILE })
		r.advance(60 * second)
		r.expectStatus("a", passingStatus())
	})
}

func TestProber_SetTargetsStartsAndEndsProbing(t *testing.T) {
	moved := newTarget("a", newProbe())
	moved.Address = "elsewhere:80"
	unknown := newTarget("a", newProbe())
	unknown.Address = ""
	cases := []struct {
		name   string
		next   []target
		sent   []string // paths at a:80 right after
		wanted *dstack.ProbeStatus
	}{
		{"the same", []target{newTarget("a", newProbe())}, nil, passingStatus()},
		{"the same, and it was ready", []target{wasReady(newTarget("a", newProbe()))}, nil, passingStatus()},
		{"listed twice", []target{newTarget("a", newProbe()), newTarget("a", newProbe())}, nil, passingStatus()},
		{"another attempt is added", []target{newTarget("b", newProbe()), newTarget("a", newProbe())}, nil, passingStatus()},
		{"address not known at the moment", []target{unknown}, nil, passingStatus()},
		{"another address", []target{moved}, nil, passingStatus()},
		{"another probe", []target{newTarget("a", newProbe(atPath("/x")))}, []string{"/x"}, passingStatus()},
		{"more successes are needed", []target{newTarget("a", newProbe(readyAfter(2)))}, []string{"/health"}, failingStatus(0, "GET /health has answered 1 of 2 times")},
		{"no probes left", []target{newTarget("a")}, nil, nil},
		{"none", nil, nil, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			testProbes(t, func(r *probeRig) {
				r.setTargets("other", []target{newTarget("o", newProbe())})
				r.setTargets("i", []target{newTarget("a", newProbe())})
				r.advance(0)
				r.takeRequests("a:80", "")
				r.setTargets("i", c.next)
				r.advance(0)
				r.expectStatus("a", c.wanted)
				r.expectStatus("o", passingStatus())
				r.mu.Lock()
				var paths []string
				for _, q := range r.replica("a:80").received {
					paths = append(paths, q.path)
				}
				r.mu.Unlock()
				if !slices.Equal(paths, c.sent) {
					t.Errorf("probed %v, want %v", paths, c.sent)
				}
				r.takeRequests("a:80", "")
				r.advance(second) // probing that continues sends the next probe after 9 s or more
				stays := c.wanted != nil && c.name != "another address" && c.name != "another probe"
				r.advance(20 * second)
				if goesOn := len(r.takeRequests("a:80", "/health")) > 0; goesOn != stays {
					t.Errorf("probing goes on: %v, want %v", goesOn, stays)
				}
			})
		})
	}
}

func TestProber_AnAnswerAfterTheEndIsIgnored(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.configure("a:80", func(p *probedReplica) { p.hang = true })
		r.setTargets("i", []target{wasReady(newTarget("a", newProbe()))})
		r.advance(2 * second)
		r.setTargets("i", nil)
		r.advance(10 * second)
		r.expectStatus("a", nil)
		r.setTargets("i", []target{wasReady(newTarget("a", newProbe()))})
		r.advance(2 * second)
		r.stop()
		r.expectStatus("a", passingStatus())
		if n := r.takeChanges(); n != 0 {
			t.Errorf("%d changes", n)
		}
	})
}

func TestProber_AnInstanceWithoutPassesIsNotProbed(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.setTargets("i", []target{newTarget("a", newProbe())})
		r.setTargets("j", []target{newTarget("b", newProbe())})
		for range 14 {
			r.advance(30 * second)
			r.setTargets("j", []target{newTarget("b", newProbe())})
		}
		r.expectStatus("a", nil)
		r.expectStatus("b", passingStatus())
		r.takeRequests("a:80", "")
		r.advance(60 * second)
		if at := r.takeRequests("a:80", "/health"); at != nil {
			t.Errorf("probed at %v", at)
		}
	})
}

func TestProber_NothingIsSentBeforeRunOrAfter(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		r.setTargets("i", []target{newTarget("a", newProbe())})
		r.advance(0)
		r.stop()
		r.takeRequests("a:80", "")
		r.setTargets("i", []target{newTarget("a", newProbe()), newTarget("b", newProbe())})
		r.advance(60 * second)
		if at := append(r.takeRequests("a:80", "/health"), r.takeRequests("b:80", "/health")...); at != nil {
			t.Errorf("probed at %v", at)
		}
		r.start() // a second run starts without targets
		r.expectStatus("a", nil)
		r.setTargets("i", []target{newTarget("a", newProbe())})
		r.advance(0)
		r.expectStatus("a", passingStatus())
	})
}

func TestProber_ManyAttempts(t *testing.T) {
	testProbes(t, func(r *probeRig) {
		var targets []target
		for i := range 1000 {
			targets = append(targets, wasReady(newTarget(dstack.AttemptID(fmt.Sprint("a", i)), newProbe())))
		}
		r.setTargets("i", targets)
		r.advance(10 * second)
		for _, one := range targets {
			r.expectStatus(one.Attempt, passingStatus())
			if n := len(r.takeRequests(one.Address, "/health")); n < 1 || n > 2 {
				t.Fatalf("%s was probed %d times", one.Attempt, n)
			}
		}
	})
}
