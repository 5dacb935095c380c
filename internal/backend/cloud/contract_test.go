package cloud

import (
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func TestContract(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backendtest.Fixture {
		r := newRig(t)
		r.account.SetLatency(cloudtest.Latency{Listed: 5 * time.Millisecond, Running: 10 * time.Millisecond, Ended: 10 * time.Millisecond})
		stop := func() {}
		return backendtest.Fixture{
			Timeout: 5 * time.Second,
			Lacks:   []backendtest.Feature{backendtest.OwnedMachines},
			CreateDisk: func(*testing.T) string {
				return r.account.AddDisk("north", "north-a", 2048)
			},
			Volume: dstack.Volume{Region: "north", Configuration: spec.Volume{Backend: "aws", Region: "north", LaterVolume: spec.LaterVolume{Zone: "north-a"}}},
			Open: func(*testing.T) backend.Backend {
				stop()
				stop = r.open()
				return r.Backend
			},
			RefuseCreation: func(_ *testing.T, kind dstack.Kind) {
				faults := cloudtest.Faults{}
				if kind != "" {
					faults.Of = map[string]error{"Launch": &dstack.Error{Kind: kind, Message: "refused"}}
				}
				r.account.SetFaults(faults)
			},
		}
	})
}
