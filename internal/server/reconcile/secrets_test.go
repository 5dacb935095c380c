package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

func (r *rig) setSecret(value string) {
	r.t.Helper()
	if _, err := r.store.SetSecret(r.t.Context(), r.project.ID, "TOKEN", value, "alice", time.Now()); err != nil {
		r.t.Fatal(err)
	}
	r.wake()
}

func usesToken(s *spec.Service) {
	s.Env = spec.Env{{Name: "AUTH", Value: "Bearer ${{ secrets.TOKEN }}"}, {Name: "TEXT", Value: "$${{ x }}"}}
	s.RegistryAuth = &spec.RegistryAuth{Username: "me", Password: "${{ secrets.TOKEN }}"}
}

// attemptSpec returns what the engine was given for the present attempt of the
// last replica.
func (r *rig) attemptSpec(w store.RunDetails) (got dstack.AttemptSpec) {
	attempt := w.Replicas[len(w.Replicas)-1].Attempt
	r.engine.with(func(e *fakeEngine) {
		if a := e.attempts[attempt]; a != nil {
			got = a.spec
		}
	})
	return got
}

func TestPasses_TheEngineGetsTheValuesOfSecrets(t *testing.T) {
	r := newRig(t)
	r.setSecret("canary-one")
	r.begin(lifecycle.Limits{})
	id := r.submitLike(usesToken)
	served := func(w store.RunDetails) bool { return readyCount(w) == 1 && !w.Run.ReadyAt.IsZero() }
	w := r.until(id, "ready", served)
	got := r.attemptSpec(w)
	if got.Env["AUTH"] != "Bearer canary-one" || got.Env["TEXT"] != "${{ x }}" || got.Auth.Password != "canary-one" {
		t.Errorf("the engine got %v, %v", got.Env, got.Auth)
	}
	if value, _ := w.Run.Spec.Configuration.Env.Get("AUTH"); value != "Bearer ${{ secrets.TOKEN }}" {
		t.Errorf("the run has %s", value)
	}

	r.setSecret("canary-two")
	w = r.until(id, "rolled", func(w store.RunDetails) bool { return w.Run.Revision == 2 && served(w) })
	if got := r.attemptSpec(w); got.Env["AUTH"] != "Bearer canary-two" {
		t.Errorf("the engine got %v", got.Env)
	}
}

// A new value that does not work is rolled back, and attempts of the old revision
// start with the old value.
func TestPasses_ABadValueIsRolledBackToTheValueBefore(t *testing.T) {
	r := newRig(t)
	r.setSecret("canary-one")
	r.begin(lifecycle.Limits{})
	id := r.submitLike(usesToken)
	served := func(w store.RunDetails) bool { return readyCount(w) == 1 && !w.Run.ReadyAt.IsZero() }
	first := r.until(id, "ready", served)
	r.engine.with(func(e *fakeEngine) { e.refuse, e.refuseAfter = "login failed with canary-two", 1 })
	r.setSecret("canary-two")
	w := r.until(id, "rolled back", func(w store.RunDetails) bool { return w.Run.Revision == 1 && w.Run.LatestRevision == 2 && served(w) })
	if w.Replicas[0].ID != first.Replicas[0].ID {
		t.Error("the old replica was replaced")
	}
	rev, err := r.store.Revision(t.Context(), id, 2)
	if err != nil || rev.Reason != "login failed with •••" {
		t.Errorf("revision 2 failed with %q, %v", rev.Reason, err)
	}
	r.engine.with(func(e *fakeEngine) { e.refuse = "" })
	r.engine.crash(1)
	attempt := w.Replicas[0].Attempt
	w = r.until(id, "restarted", func(w store.RunDetails) bool { return served(w) && w.Replicas[0].Attempt != attempt })
	var got dstack.AttemptSpec
	r.engine.with(func(e *fakeEngine) { got = e.attempts[w.Replicas[0].Attempt].spec })
	if got.Env["AUTH"] != "Bearer canary-one" {
		t.Errorf("after the rollback, the engine got %v", got.Env)
	}
	events, err := r.store.Events(t.Context(), r.project.ID, "web", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if strings.Contains(e.Message, "canary") {
			t.Errorf("an event shows a value: %s", e.Message)
		}
	}
}

// A replica whose secret was deleted says so, and starts once it is set again.
func TestPasses_ADeletedSecretIsAPlainReason(t *testing.T) {
	r := newRig(t)
	r.setSecret("one")
	r.begin(lifecycle.Limits{})
	id := r.submitLike(usesToken)
	r.until(id, "ready", func(w store.RunDetails) bool { return readyCount(w) == 1 && !w.Run.ReadyAt.IsZero() })
	if err := r.store.DeleteSecrets(t.Context(), r.project.ID, []string{"TOKEN"}, true); err != nil {
		t.Fatal(err)
	}
	r.engine.crash(1)
	const why = "cannot start: this project has no secret TOKEN any more; an admin of the project can set it: dstack secret set TOKEN"
	r.until(id, "explained", func(w store.RunDetails) bool {
		return w.Replicas[0].Status == dstack.ReplicaRestarting && w.Replicas[0].Reason == why
	})
	r.setSecret("two")
	w := r.until(id, "ready again", func(w store.RunDetails) bool { return readyCount(w) == 1 && w.Run.Revision == 2 })
	if got := r.attemptSpec(w); got.Env["AUTH"] != "Bearer two" {
		t.Errorf("the engine got %v", got.Env)
	}
}

// Values that are too long together are told before the kernel refuses them.
func TestPasses_TooLongWithItsSecrets(t *testing.T) {
	r := newRig(t)
	r.setSecret(strings.Repeat("x", 64<<10))
	r.begin(lifecycle.Limits{})
	id := r.submitLike(func(s *spec.Service) {
		s.Env = spec.Env{{Name: "LONG", Value: "${{ secrets.TOKEN }}${{ secrets.TOKEN }}"}}
	})
	w := r.until(id, "failed", finished)
	if !strings.Contains(string(w.Run.Reason), "cannot start with the values of its secrets: the environment variable `LONG` has 131077 bytes") {
		t.Errorf("it failed with %s", w.Run.Reason)
	}
}
