package store_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// usesSecret is runSpec with a variable TOKEN.
func usesSecret(name, template string) dstack.RunSpec {
	rs := runSpec(name)
	rs.Configuration.Env = spec.Env{{Name: "TOKEN", Value: template}}
	return rs
}

const tokenReference = "Bearer ${{ secrets.TOKEN }}"

func (h *fixture) setSecret(name, value string, now time.Time) store.SecretChange {
	h.t.Helper()
	change, err := h.s.SetSecret(h.ctx(), h.project.ID, name, value, "alice", now)
	h.noError(err)
	return change
}

// resolve returns the value of TOKEN that an attempt of a run would get.
func (h *fixture) resolve(run dstack.Run) string {
	h.t.Helper()
	resolved, err := h.s.ResolveSecrets(h.ctx(), run)
	h.noError(err)
	value, _ := resolved.Spec.Configuration.Env.Get("TOKEN")
	return value
}

func TestSecrets_SetListAndDelete(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		first := h.setSecret("TOKEN", "one", t0)
		if !first.Created || !first.Changed || len(first.Rolled) > 0 {
			t.Errorf("got %+v", first)
		}
		same := h.setSecret("TOKEN", "one", t0.Add(time.Hour))
		if same.Created || same.Changed || !same.Secret.At.Equal(t0) {
			t.Errorf("got %+v", same)
		}
		h.setSecret("A-b", "x", t0)
		h.submitted(usesSecret("web", tokenReference), t0)
		second := h.setSecret("TOKEN", "two", t0.Add(time.Minute))
		if second.Created || !second.Changed || second.Secret.ID != first.Secret.ID || !cmp.Equal(second.Rolled, []string{"web"}) {
			t.Errorf("got %+v", second)
		}
		list, err := h.s.Secrets(t.Context(), h.project.ID)
		h.noError(err)
		for i := range list {
			list[i].ID = ""
		}
		want := []dstack.Secret{{Name: "A-b", User: "alice", At: t0}, {Name: "TOKEN", User: "alice", At: t0.Add(time.Minute), Runs: []string{"web"}}}
		if list[0].Runs = nil; !cmp.Equal(want, list) {
			t.Error(cmp.Diff(want, list))
		}
		h.wantKind(dstack.NotFound, h.s.DeleteSecrets(t.Context(), h.project.ID, []string{"A-b", "none"}, true))
		err = h.s.DeleteSecrets(t.Context(), h.project.ID, []string{"A-b", "TOKEN"}, false)
		if h.wantKind(dstack.Conflict, err); !strings.Contains(err.Error(), "TOKEN is used by web") {
			t.Error(err)
		}
		if list, _ := h.s.Secrets(t.Context(), h.project.ID); len(list) != 2 {
			t.Errorf("half of a refused deletion was done: %v", list)
		}
		h.noError(h.s.DeleteSecrets(t.Context(), h.project.ID, []string{"A-b", "TOKEN"}, true))
		if list, _ := h.s.Secrets(t.Context(), h.project.ID); len(list) != 0 {
			t.Errorf("got %v", list)
		}
	})
}

func TestSecrets_MissingOnesAreRefusedByName(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		rs := usesSecret("web", "${{ secrets.B }} ${{ secrets.A }}")
		err := h.s.PinSecrets(t.Context(), h.project.ID, &rs)
		h.wantKind(dstack.Invalid, err)
		e, _ := errors.AsType[*dstack.Error](err)
		if e.Message != "this project has no secrets A, B" || e.Hint != "an admin of the project can set it: dstack secret set A; dstack secret set B" {
			t.Errorf("got %q, %q", e.Message, e.Hint)
		}
		h.wantKind(dstack.Invalid, h.s.SubmitRun(t.Context(), dstack.Run{ID: "x", ProjectID: h.project.ID, User: "admin", Name: "web", Spec: rs}))
		h.setSecret("A", "a", t0)
		if err := h.s.PinSecrets(t.Context(), h.project.ID, &rs); err == nil || err.Error() != "this project has no secret B" {
			t.Error(err)
		}
		run := h.submit("other", t0)
		_, err = h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: 1, Spec: rs, NeedsRollout: true, Now: t0})
		h.wantKind(dstack.Invalid, err)
	})
}

// A change rolls the runs that use the secret, and no other.
func TestSetSecret_RevisesTheRunsThatUseIt(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.setSecret("TOKEN", "one", t0)
		h.setSecret("OTHER", "o", t0)
		run := h.submitted(usesSecret("web", tokenReference), t0)
		login := usesSecret("login", "plain")
		login.Configuration.RegistryAuth = &spec.RegistryAuth{Username: "u", Password: "${{ secrets.TOKEN }}"}
		h.submitted(login, t0)
		h.submitted(usesSecret("other", "${{ secrets.OTHER }}"), t0)
		stopped := h.submitted(usesSecret("stopped", tokenReference), t0)
		h.noError(h.s.StopRun(t.Context(), stopped.ID, dstack.StopGraceful, "bob", t0))
		ended := h.submitted(usesSecret("ended", tokenReference), t0)
		h.runStep(ended.ID, lifecycle.RunStep{To: dstack.RunTerminated}, t0)

		change := h.setSecret("TOKEN", "two", t0.Add(time.Minute))
		if diff := cmp.Diff([]string{"login", "web"}, change.Rolled); diff != "" {
			t.Error(diff)
		}
		next, _ := h.reread(run.ID)
		if next.Revision != 2 || next.TemplateRevision != 2 || h.resolve(next) != "Bearer two" {
			t.Errorf("got %+v with %s", next, h.resolve(next))
		}
		if value, _ := next.Spec.Configuration.Env.Get("TOKEN"); value != tokenReference {
			t.Errorf("the spec has %s", value)
		}
		events, err := h.s.Events(t.Context(), h.project.ID, "web", 0, 10)
		h.noError(err)
		last := events[len(events)-1]
		if last.Kind != dstack.EventApplied || last.User != "alice" || last.Message != "revision 2, rolling: secret TOKEN was changed by alice" {
			t.Errorf("got %+v", last)
		}
		for _, name := range []string{"other", "stopped"} {
			if run, err := h.s.Run(t.Context(), h.project.ID, name); err != nil || run.Revision != 1 {
				t.Errorf("%s is at revision %d, %v", name, run.Revision, err)
			}
		}
		if !h.isDue(store.Runs, string(run.ID), t0.Add(time.Minute)) {
			t.Error("the run is not due")
		}
	})
}

// Replicas and revisions keep the value that they began with, until nothing
// needs it.
func TestSetSecret_EarlierValuesStayWhileTheyAreNeeded(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.setSecret("TOKEN", "canary-one", t0)
		run := h.submitted(usesSecret("web", tokenReference), t0)
		step := lifecycle.RunStep{To: dstack.RunActive, DesiredReplicas: 1, Due: t0}
		ready, back := step, step
		ready.Ready = true
		h.runStep(run.ID, ready, t0)
		h.setSecret("TOKEN", "canary-two", t0)
		now, _ := h.reread(run.ID)
		before, err := h.s.Revision(t.Context(), run.ID, 1)
		h.noError(err)
		old := now
		old.Spec = before.Spec
		if got := h.resolve(now) + h.resolve(old); got != "Bearer canary-twoBearer canary-one" {
			t.Errorf("got %s", got)
		}
		back.Rollback = &lifecycle.Rollback{ToRevision: 1, Reason: "refused"}
		h.runStep(run.ID, back, t0)
		if now, _ = h.reread(run.ID); now.Revision != 1 || h.resolve(now) != "Bearer canary-one" {
			t.Errorf("after a rollback: revision %d with %s", now.Revision, h.resolve(now))
		}
		h.setSecret("TOKEN", "canary-three", t0) // the value in between is not needed
		h.runStep(run.ID, ready, t0)
		if got := h.countSecretRows(); got != 2 {
			t.Errorf("%d values are kept, want those of revisions 1 and 3", got)
		}
		h.restart()
		if now, _ = h.reread(run.ID); h.resolve(now) != "Bearer canary-three" {
			t.Errorf("got %s", h.resolve(now))
		}
		if got := h.countSecretRows(); got != 1 {
			t.Errorf("%d values are kept after the new one serves", got)
		}
		if h.resolve(old) != "Bearer canary-three" {
			t.Error("a forgotten value is not replaced by the present one")
		}
		if all := string(h.everything()); strings.Contains(all, "canary-three") || strings.Contains(all, "canary-one") {
			t.Error("a value is readable in the database")
		}
	})
}

func (h *fixture) countSecretRows() (n int) {
	h.t.Helper()
	h.noError(h.openRaw().QueryRowContext(h.t.Context(), "SELECT count(*) FROM secrets").Scan(&n))
	return n
}

func TestResolveSecrets_DeletedSecretIsAPlainError(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.setSecret("TOKEN", "one", t0)
		run := h.submitted(usesSecret("web", tokenReference), t0)
		h.noError(h.s.DeleteSecrets(t.Context(), h.project.ID, []string{"TOKEN"}, true))
		run, _ = h.reread(run.ID)
		resolved, err := h.s.ResolveSecrets(t.Context(), run)
		h.wantKind(dstack.NotFound, err)
		if value, _ := resolved.Spec.Configuration.Env.Get("TOKEN"); value != tokenReference || err.Error() != "cannot start: this project has no secret TOKEN any more" {
			t.Errorf("got %q, %v", value, err)
		}
		if change := h.setSecret("TOKEN", "again", t0); !change.Created || !cmp.Equal(change.Rolled, []string{"web"}) {
			t.Errorf("got %+v", change)
		}
		if run, _ = h.reread(run.ID); h.resolve(run) != "Bearer again" {
			t.Errorf("got %s", h.resolve(run))
		}
	})
}

// A value is bound to its row: another secret's does not open in its place.
func TestSecrets_ValuesCannotBeSwapped(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.setSecret("TOKEN", "one", t0)
		h.setSecret("OTHER", "two", t0)
		run := h.submitted(usesSecret("web", tokenReference), t0)
		_, err := h.openRaw().ExecContext(t.Context(), "UPDATE secrets SET value = (SELECT value FROM secrets WHERE name = 'OTHER') WHERE name = 'TOKEN'")
		h.noError(err)
		if _, err := h.s.ResolveSecrets(t.Context(), run); err == nil || strings.Contains(err.Error(), "two") {
			t.Errorf("got %v", err)
		}
	})
}

// Two servers that set a value at once leave each run at the last one.
func TestSetSecret_AtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.setSecret("TOKEN", "start", t0)
		run := h.submitted(usesSecret("web", tokenReference), t0)
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				if _, err := h.s.SetSecret(t.Context(), h.project.ID, "TOKEN", strings.Repeat("v", i+1), "alice", time.Time{}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		present, _ := h.reread(run.ID)
		fresh := present
		fresh.Spec.Secrets = nil // the present value
		if present.Revision != 5 || h.resolve(present) != h.resolve(fresh) {
			t.Errorf("revision %d has %s, the secret is %s", present.Revision, h.resolve(present), h.resolve(fresh))
		}
	})
}

func TestSecrets_AreDeletedWithTheirProject(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.setSecret("TOKEN", "one", t0)
		h.noError(h.s.DeleteProjects(t.Context(), []string{h.project.Name}))
		if got := h.countSecretRows(); got != 0 {
			t.Errorf("%d values are left", got)
		}
	})
}

// A pass that holds a run's row adds its event while a change of a secret waits for
// the run: otherwise each would wait for the other.
func TestSetSecret_DoesNotHoldUpPasses(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		if strings.HasPrefix(h.url, "sqlite") {
			return // it has one writer at a time
		}
		h.setSecret("TOKEN", "one", t0)
		run := h.submitted(usesSecret("web", tokenReference), t0)
		raw := h.openRaw()
		pass, err := raw.BeginTx(t.Context(), nil)
		h.noError(err)
		defer func() { _ = pass.Rollback() }()
		_, err = pass.ExecContext(t.Context(), "UPDATE runs SET reason = 'x' WHERE id = $1", string(run.ID))
		h.noError(err)
		changed := make(chan error, 1)
		go func() {
			_, err := h.s.SetSecret(t.Context(), h.project.ID, "TOKEN", "two", "alice", t0)
			changed <- err
		}()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			var waiting int
			h.noError(raw.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting))
			if waiting > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the change of the secret does not wait for the run")
			}
		}
		_, err = pass.ExecContext(t.Context(), "SET LOCAL lock_timeout = '200ms'")
		h.noError(err)
		_, err = pass.ExecContext(t.Context(), `INSERT INTO events (id, project_id, run_id, run_name, at, kind, revision, was, became, username, message)
			VALUES (1000, $1, $2, 'web', 0, 'run', 1, '', '', '', '')`, string(h.project.ID), string(run.ID))
		h.noError(err)
		h.noError(pass.Commit())
		h.noError(<-changed)
	})
}
