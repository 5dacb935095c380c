package store_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// submittedBy submits a run of a user.
func (h *fixture) submittedBy(user, name string) dstack.Run {
	h.t.Helper()
	run := dstack.Run{ID: dstack.RunID(uuid.NewString()), ProjectID: h.project.ID, User: user, Name: name,
		Spec: usesSecret(name, tokenReference), SubmittedAt: t0}
	h.noError(h.s.SubmitRun(h.ctx(), run))
	run, _ = h.reread(run.ID)
	return run
}

// Who sets a secret does not write the commands of the services that use it: a global
// admin must not lend a member's commands the right to plain processes, nor must an
// admin of the project take it from a global admin's service. This holds after a
// rollback to that revision, too.
func TestSetSecret_LendsAndTakesNoRights(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.addUser("root", dstack.RoleAdmin)
		h.addUser("bob", dstack.RoleUser)
		set := func(value, user string) {
			t.Helper()
			_, err := h.s.SetSecret(t.Context(), h.project.ID, "TOKEN", value, user, t0.Add(time.Minute))
			h.noError(err)
		}
		set("one", "root")
		for _, c := range []struct {
			author, setter string
			isAdmin        bool
		}{{"bob", "root", false}, {"root", "bob", true}} {
			run := h.submittedBy(c.author, c.author+"s-run")
			set("by "+c.setter, c.setter)
			now, _ := h.reread(run.ID)
			if now.Revision != 2 || now.User != c.author || now.IsGlobalAdmin != c.isAdmin {
				t.Errorf("%s after %s set the secret: revision %d is by %s, global admin: %v", run.Name, c.setter, now.Revision, now.User, now.IsGlobalAdmin)
			}
			rev, err := h.s.Revision(t.Context(), run.ID, 2)
			if h.noError(err); rev.User != c.author {
				t.Errorf("the revision of %s is by %s", run.Name, rev.User)
			}
			events := h.events(run.Name, 0, 10)
			if last := events[len(events)-1]; last.User != c.setter {
				t.Errorf("%s: the event is %+v", run.Name, last)
			}
			h.noError(h.s.StopRun(t.Context(), run.ID, dstack.StopGraceful, "root", t0)) // or the next change revises it, too
		}
	})
}

// A replica of an earlier revision has the rights of that revision's author, not those
// of whoever applied the present one.
func TestReplicaFacts_EarlierRevisionKeepsItsAuthor(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		h.addUser("root", dstack.RoleAdmin)
		h.addUser("bob", dstack.RoleUser)
		h.setSecret("TOKEN", "one", t0)
		for _, c := range []struct {
			author, next string
			isAdmin      bool
		}{{"bob", "root", false}, {"root", "bob", true}} {
			run := h.submittedBy(c.author, c.author+"s-run")
			h.runStep(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: newNums(0), Due: t0}, t0)
			_, r := h.reread(run.ID)
			rs := runSpec(run.Name)
			rs.Configuration.Commands = []string{"other"}
			_, err := h.s.ReviseRun(t.Context(), run.ID, store.Revision{Revision: 1, Spec: rs, User: c.next, NeedsRollout: true, Now: t0})
			h.noError(err)
			seen, err := h.s.ReplicaFacts(t.Context(), r.ID)
			h.noError(err)
			if seen.Run.User != c.author || seen.Run.IsGlobalAdmin != c.isAdmin || seen.Run.Spec.Configuration.Commands[0] != "serve" {
				t.Errorf("a replica of revision 1: by %s, global admin: %v, runs %v", seen.Run.User, seen.Run.IsGlobalAdmin,
					seen.Run.Spec.Configuration.Commands)
			}
			h.replicaStep(r.ID, placed(dstack.Claim{}), t0)
			placed, err := h.s.InstanceFacts(t.Context(), "local-box")
			h.noError(err)
			for _, p := range placed.Replicas {
				if p.Replica.ID == r.ID && (p.Run.User != c.author || p.Run.IsGlobalAdmin != c.isAdmin) {
					t.Errorf("on its machine: by %s, global admin: %v", p.Run.User, p.Run.IsGlobalAdmin)
				}
			}
		}
	})
}
