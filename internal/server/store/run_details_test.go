package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/spec"
)

// The number of queries for a list does not depend on the number of runs, and nothing is read twice.
func TestListRunDetails_Queries(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		for i := range 3 {
			h.ready(fmt.Sprintf("web-%d", i), fmt.Sprintf("127.0.0.1:%d", i+1), t0)
		}
		h.noError(saveLoad(h))
		reads := h.s.CountReads()
		for limit := 1; limit <= 3; limit++ {
			reads.Store(0)
			found, err := h.s.ListRunDetails(h.ctx(), store.RunQuery{Limit: limit})
			h.noError(err)
			if len(found) != limit || len(found[0].Replicas) != 1 || len(found[0].Reports) != 1 || len(found[0].Instances) != 1 {
				t.Fatalf("%+v", found)
			}
			// Runs, gateways, their counts, draining replicas, replicas, instances, reports.
			if n := reads.Load(); n > 7 {
				t.Errorf("%d queries for %d runs", n, limit)
			}
		}
	})
}

// saveLoad saves a report of a gateway, so that loads are read.
func saveLoad(h *fixture) error {
	_, err := h.s.SaveLoadReport(h.ctx(), dstack.LoadReport{Gateway: "here"}, time.Now())
	return err
}

// All ways to read the details of a run agree, and lists are in the order of the query.
func TestRunDetails_WaysAgree(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		a, _ := h.ready("a", "127.0.0.1:1", t0)
		b, _ := h.ready("b", "127.0.0.1:2", t0.Add(time.Second))
		byID, err := h.s.RunDetails(h.ctx(), b.ID, a.ID, "unknown", b.ID)
		h.noError(err)
		listed, err := h.s.ListRunDetails(h.ctx(), store.RunQuery{})
		h.noError(err)
		if diff := cmp.Diff(byID, listed); diff != "" || len(listed) != 2 {
			t.Errorf("by ID and listed (-, +):\n%s", diff)
		}
		older, err := h.s.ListRunDetails(h.ctx(), store.RunQuery{Ascending: true, Limit: 1})
		h.noError(err)
		named, err := h.s.NamedRunDetails(h.ctx(), h.project.ID, "a")
		h.noError(err)
		if diff := cmp.Diff(older, []store.RunDetails{named}); diff != "" {
			t.Errorf("ascending and by name (-, +):\n%s", diff)
		}
		_, err = h.s.NamedRunDetails(h.ctx(), h.project.ID, "c")
		h.wantKind(dstack.NotFound, err)
	})
}

// The details of a run have the present configuration, also if another server changed it.
func TestRunDetails_HaveThePresentConfiguration(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		run := h.submit("web", t0)
		other, err := store.Open(h.ctx(), h.url, h.sealer)
		h.noError(err)
		defer other.Close()
		for revision := 1; revision <= 3; revision++ {
			rs := h.details(run.ID).Run.Spec
			rs.Configuration.Image = spec.Text(fmt.Sprintf("image-%d", revision))
			_, err := other.ReviseRun(h.ctx(), run.ID, store.Revision{Revision: revision, Spec: rs, User: "admin", Now: t0})
			h.noError(err)
			if got := h.details(run.ID).Run.Spec.Configuration.Image; got != rs.Configuration.Image {
				t.Errorf("revision %d: the image is %s", revision+1, got)
			}
		}
	})
}
