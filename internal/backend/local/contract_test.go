package local

import (
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
)

func TestLocal_FollowsTheContract(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backendtest.Fixture {
		dir := t.TempDir()
		lacks := []backendtest.Feature{backendtest.RentedMachines, backendtest.Refusals, backendtest.Volumes, backendtest.ExternalDisks}
		return backendtest.Fixture{Timeout: 5 * time.Second, Lacks: lacks, Open: func(t *testing.T) backend.Backend {
			l, err := New(t.Context(), Options{Engine: "process", Dir: dir, Installation: "here", HostID: "abc"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			return l
		}}
	})
}
