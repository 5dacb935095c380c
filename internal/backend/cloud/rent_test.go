package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/backend"
	"dstack/internal/cloud"
	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
)

var smallInNorth = cloudtest.Place{Region: "north", Zone: "north-a", Type: "small"}

func newRequest(id string, p cloudtest.Place) backend.CreateRequest {
	return backend.CreateRequest{
		Instance: dstack.InstanceID(id), Offer: dstack.Offer{
			Backend: "aws", Key: "aws", Region: p.Region, Zone: p.Zone, Type: p.Type, Spot: p.Spot,
			Hardware: dstack.Hardware{CPUs: 2, MemoryMiB: 8 << 10, DiskMiB: 100 << 10},
		},
		Labels: map[string]string{backend.LabelInstance: id, backend.LabelProject: "main"},
	}
}

// inBubble runs a test in which time passes at once, with a backend as the server has it.
func inBubble(t *testing.T, test func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.isSlow = true
		stop := r.open()
		defer stop()
		test(t, r)
	})
}

func (r *rig) create(request backend.CreateRequest) {
	r.t.Helper()
	if err := r.Create(context.Background(), request); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) machine(id string) (dstack.Machine, bool) {
	r.t.Helper()
	machines, err := r.Machines(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	m, ok := machines[dstack.InstanceID(id)]
	return m, ok
}

// waitFor waits until a machine is as the condition says.
func (r *rig) waitFor(id string, within time.Duration, is func(m dstack.Machine, exists bool) bool) dstack.Machine {
	r.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(time.Second) {
		m, exists := r.machine(id)
		if is(m, exists) {
			return m
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("after %s it is %+v, %t", within, m, exists)
		}
	}
}

func isRunning(m dstack.Machine, exists bool) bool { return exists && m.IsAlive() }
func isFailed(m dstack.Machine, exists bool) bool {
	return exists && m.State == dstack.MachineFailed && m.Failure != nil
}
func isGone(_ dstack.Machine, exists bool) bool { return !exists }

// The intent is recorded before a cloud is asked for anything.
func TestCreate_RecordsTheIntentFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		full := errors.New("the disk is full")
		r.store.fail(full)
		if err := r.Create(t.Context(), newRequest("one", smallInNorth)); !errors.Is(err, full) {
			t.Errorf("the error is %v", err)
		}
		if n := r.account.Calls()["Launch"]; n != 0 {
			t.Errorf("%d launches", n)
		}
	})
}

// An answer that was lost makes no second machine, whether the server goes on, or another process does.
func TestCreate_LostAnswers(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		for _, lag := range []time.Duration{0, time.Minute} {
			t.Run(fmt.Sprintf("restarts %t lag %s", restarts, lag), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					r.isSlow = true
					stop := r.open()
					r.account.SetLatency(cloudtest.Latency{Listed: lag, Running: time.Minute})
					r.account.SetFaults(cloudtest.Faults{Launch: map[cloudtest.Place]error{{}: cloudtest.NewTimeoutError()}, LaunchAnyway: true})
					request := newRequest("one", smallInNorth)
					if err := r.Create(t.Context(), request); err == nil {
						t.Fatal("the answer was not lost")
					}
					r.account.SetFaults(cloudtest.Faults{})
					if restarts {
						stop()
						stop = r.open()
					}
					defer stop()
					for range 3 {
						r.create(request)
						time.Sleep(10 * time.Second)
					}
					r.waitFor("one", 5*time.Minute, isRunning)
					if n := r.account.Launched()["one"]; n != 1 {
						t.Errorf("%d machines", n)
					}
				})
			})
		}
	}
}

// A machine that its cloud does not list yet is not gone, and can be deleted, also by the next process.
func TestMachines_ListingsLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.isSlow = true
		stop := r.open()
		r.account.SetLatency(cloudtest.Latency{Listed: time.Minute, Running: 2 * time.Minute})
		r.create(newRequest("one", smallInNorth))
		if m, ok := r.machine("one"); !ok || m.State != dstack.MachinePending || m.Ref == "" {
			t.Errorf("it is %+v, %t", m, ok)
		}
		stop()
		stop = r.open()
		defer stop()
		if m, ok := r.machine("one"); !ok || m.State != dstack.MachinePending || m.Ref == "" {
			t.Errorf("after a restart it is %+v, %t", m, ok)
		}
		if err := r.Delete(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		r.waitFor("one", 5*time.Minute, isGone)
		if alive := r.account.Alive(); len(alive) != 0 {
			t.Errorf("%+v lives", alive)
		}
	})
}

// A launch that was answered well may end all the same; the reason is kept until the machine is deleted.
func TestMachines_EndAfterAGoodAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.account.SetFaults(cloudtest.Faults{EndLaunched: &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Message: "none is left"}})
		r.create(newRequest("one", smallInNorth))
		m := r.waitFor("one", time.Minute, isFailed)
		if m.Failure.Cause != dstack.FailureNoCapacity || m.Failure.Message != "none is left" {
			t.Errorf("failure %+v", m.Failure)
		}
		if err := r.Delete(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		r.waitFor("one", time.Minute, isGone)
	})
}

// A deletion that fails, or does nothing, is repeated by its caller; meanwhile the machine is listed.
func TestDelete_FailsForAnHour(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create(newRequest("one", smallInNorth))
		r.waitFor("one", time.Minute, isRunning)
		r.account.SetFaults(cloudtest.Faults{Of: map[string]error{"Terminate": cloudtest.NewThrottledError(time.Minute)}})
		if err := r.Delete(t.Context(), "one"); dstack.KindOf(err) != dstack.Unavailable {
			t.Errorf("the error is %v", err)
		}
		r.account.SetFaults(cloudtest.Faults{IgnoreTerminate: true})
		for range 60 {
			if err := r.Delete(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if m, ok := r.machine("one"); !ok || m.State != dstack.MachineStopping {
				t.Fatalf("it is %+v, %t", m, ok)
			}
		}
		r.account.SetFaults(cloudtest.Faults{})
		if err := r.Delete(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		r.waitFor("one", time.Minute, isGone)
	})
}

func TestMachines_SetupDecidesWhenTheyRun(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.remote.change(func() { r.remote.setup["one"] = "running: installs Docker" })
		r.create(newRequest("one", smallInNorth))
		for range 60 {
			if m, _ := r.machine("one"); m.State != dstack.MachinePending {
				t.Fatalf("it is %+v", m)
			}
			time.Sleep(time.Second)
		}
		if m, _ := r.machine("one"); m.Progress != "installs Docker" {
			t.Errorf("it is %+v", m)
		}
		r.remote.change(func() { r.remote.setup["one"] = "" })
		r.waitFor("one", 5*time.Second, isRunning)

		r.remote.change(func() { r.remote.setup["two"] = "failed: Docker cannot be installed: no such\x1b[2J host" })
		r.create(newRequest("two", smallInNorth))
		m := r.waitFor("two", time.Minute, isFailed)
		if m.Failure.Cause != dstack.FailureBroken || m.Failure.Message != "its setup failed: Docker cannot be installed: no such[2J host" {
			t.Errorf("failure %+v", m.Failure)
		}
	})
}

// A machine that is never reached, or never ready, is given up with the reason.
func TestMachines_NeverReady(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.remote.change(func() {
			r.remote.setup["slow"] = "running: installs Docker"
			r.remote.fails["cut off"] = dstack.HostCheck{Status: dstack.HostFailed, Step: dstack.HostStepConnect, Message: "192.0.2.1:22 cannot be reached"}
			r.remote.setup["cut off"] = "running"
		})
		r.create(newRequest("cut off", smallInNorth))
		r.create(newRequest("slow", smallInNorth))
		r.machine("cut off")
		time.Sleep(maxUnreachable - time.Minute)
		if m, _ := r.machine("cut off"); m.State != dstack.MachinePending {
			t.Errorf("it is %+v", m)
		}
		m := r.waitFor("cut off", 3*time.Minute, isFailed)
		if want := "SSH did not answer within 10m: 192.0.2.1:22 cannot be reached"; !strings.HasPrefix(m.Failure.Message, "SSH did not answer within 10m") ||
			!strings.HasSuffix(m.Failure.Message, "192.0.2.1:22 cannot be reached") {
			t.Errorf("failure %+v, want %s", m.Failure, want)
		}
		r.waitFor("slow", 10*time.Minute, isFailed)
	})
}

// A machine has to have the GPUs that are paid for.
func TestMachines_MissingGPUs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		request := newRequest("one", cloudtest.Place{Region: "north", Zone: "north-a", Type: "gpu"})
		request.Offer.Hardware.GPUs = []dstack.GPU{{ID: "0", Maker: "nvidia", Name: "L4"}}
		r.create(request)
		m := r.waitFor("one", 2*time.Minute, isFailed)
		if want := "1 of its 1 GPU not found: the image has no driver for them"; !strings.HasPrefix(m.Failure.Message, want) {
			t.Errorf("failure %q, want %q", m.Failure.Message, want)
		}
		request.Instance = "two"
		r.remote.change(func() { r.remote.found["two"] = dstack.Hardware{GPUs: []dstack.GPU{{ID: "GPU-1"}}} })
		r.create(request)
		r.waitFor("two", 2*time.Minute, isRunning)
	})
}

// The notice of a cloud is known within seconds, and stays.
func TestMachines_NoticeOfTheCloud(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		spot := smallInNorth
		spot.Spot = true
		r.create(newRequest("one", spot))
		r.waitFor("one", time.Minute, isRunning)
		at := time.Now().Add(100 * time.Second).Truncate(time.Second)
		r.remote.change(func() {
			r.remote.lines["one"] = []string{`notice {"action": "terminate", "time": "` + at.UTC().Format(time.RFC3339) + `"}`}
		})
		m := r.waitFor("one", 3*time.Second, func(m dstack.Machine, _ bool) bool { return !m.TakenBackAt.IsZero() })
		if !m.TakenBackAt.Equal(at) || !m.IsDraining || !m.IsAlive() {
			t.Errorf("it is %+v, want the end at %s", m, at)
		}
	})
}

// A machine that is given up because its setup takes too long says what the setup did.
func TestExplainUnready_SaysWhatTheSetupDoes(t *testing.T) {
	now := time.Now()
	host := dstack.RentedHost{Instance: "one", CreatedAt: now.Add(-maxUnprepared)}
	host.Login.Address = "192.0.2.1:22"
	host.Check.Message = "Docker is not installed"
	s := machineState{setup: setupState{text: "installs the driver of the GPUs"}}
	if f := explainUnready(host, s, now); f == nil || f.Message != "it was not ready within 17m: its setup still installs the driver of the GPUs" {
		t.Errorf("the failure is %+v", f)
	}
	host.Check.Step, host.Check.Message = dstack.HostStepConnect, "it does not answer"
	if f := explainUnready(host, s, now); f == nil || !strings.HasSuffix(f.Message, "it does not answer") {
		t.Errorf("the failure is %+v", f)
	}
}

// A ready machine is watched for notices even if its setup runs again and fails.
func TestListWatched_KeepsReadySpotMachines(t *testing.T) {
	b := newBackend(Options{Key: "aws", Type: "aws"})
	host := newTestHost(t)
	host.Login.Address, host.Offer.Spot, host.ReadyAt = "192.0.2.1:22", true, time.Now()
	b.keepHost(host)
	b.noteSetup("one", "failed: Docker does not answer", time.Now())
	if watched := b.listWatched(); watched["one"] != "aws" {
		t.Errorf("it is not watched: %v", watched)
	}
}

func TestReadNotice(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		`{"action": "terminate", "time": "2026-11-29T12:02:00Z"}`: now.Add(2 * time.Minute),
		`{"action": "terminate", "time": "2026-11-29T11:00:00Z"}`: now,                      // the clocks differ
		`{"action": "terminate", "time": "2026-11-29T19:00:00Z"}`: now.Add(2 * time.Minute), // they do
		`TRUE`:                    now.Add(2 * time.Minute),
		`{"action": "hibernate"}`: now.Add(2 * time.Minute),
		``:                        now.Add(2 * time.Minute),
	} {
		if got := readNotice(text, now, 2*time.Minute); !got.Equal(want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// The cloud is asked rarely while machines only run, and at once while one is silent.
func TestMachines_AskTheCloudRarely(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range 20 {
			r.create(newRequest(fmt.Sprint(i), smallInNorth))
		}
		for i := range 20 {
			r.waitFor(fmt.Sprint(i), time.Minute, isRunning)
		}
		time.Sleep(2 * time.Minute)
		count := func(d time.Duration) int {
			before := r.account.Calls()["ListMachines"]
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				r.machine("0")
			}
			return r.account.Calls()["ListMachines"] - before
		}
		if n := count(10 * time.Minute); n > 10 {
			t.Errorf("%d calls in 10 minutes for 20 machines", n)
		}
		r.remote.change(func() { r.remote.silent["0"] = time.Now() })
		if n := count(10 * time.Second); n < 2 {
			t.Errorf("%d calls while a machine is silent", n)
		}
	})
}

// A region that cannot be used has no offers, which plans say. The others go on.
func TestOffers_RegionsThatCannotBeUsed(t *testing.T) {
	r := newBackend(newRig(t).options()) // without its tasks, which would check the account
	noSubnet := &dstack.Error{Kind: dstack.NoCapacity, Message: "aws south: vpc-1 has no subnet", Hint: "add one"}
	partial := &dstack.Error{Kind: dstack.NoCapacity, Message: "aws south: vpc-1 has no subnet", Cause: cloud.RegionErrors{"south": noSubnet}}
	r.access.set(partial)
	found, err := r.SearchOffers(t.Context(), dstack.Requirements{}, 100)
	if err != nil || len(found.Offers) == 0 || !slices.Equal(found.Missing, []error{noSubnet}) {
		t.Fatalf("%d offers, missing %v, %v", len(found.Offers), found.Missing, err)
	}
	for _, o := range found.Offers {
		if o.Region == "south" {
			t.Errorf("%s is offered in the region that cannot be used", o.Type)
		}
	}
	if text := r.Describe(); text != "aws: all regions; south cannot be used: aws south: vpc-1 has no subnet (add one)" {
		t.Errorf("it says %q", text)
	}
	r.access.set(noSubnet) // of the only region
	if _, err := r.SearchOffers(t.Context(), dstack.Requirements{}, 100); !errors.Is(err, noSubnet) {
		t.Errorf("without any region: %v", err)
	}
}

// Wrong credentials are said in plans, and no longer once they are mended.
func TestOffers_NeedAccess(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.account.SetFaults(cloudtest.Faults{All: cloudtest.NewUnauthorizedError()})
		time.Sleep(accessInterval)
		if _, err := r.Offers(t.Context(), dstack.Requirements{}); dstack.KindOf(err) != dstack.Unauthorized {
			t.Errorf("the error is %v", err)
		}
		if text := r.Describe(); !strings.Contains(text, "cannot be used: ") {
			t.Errorf("it says %q", text)
		}
		r.account.SetFaults(cloudtest.Faults{All: cloudtest.NewThrottledError(0)})
		time.Sleep(accessRetry + time.Second)
		if _, err := r.Offers(t.Context(), dstack.Requirements{}); err != nil {
			t.Errorf("while the cloud is busy: %v", err)
		}
		r.account.SetFaults(cloudtest.Faults{})
		time.Sleep(accessRetry + time.Second)
		if text := r.Describe(); text != "aws: all regions" {
			t.Errorf("it says %q", text)
		}
	})
}
