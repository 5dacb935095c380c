package backendtest

import (
	"context"
	"slices"
	"sync"
	"time"

	"dstack/internal/dstack"
)

var contractCases = slices.Concat(offerCases, ownedCases, rentedCases, volumeCases)

type contractCase struct {
	name string
	run  func(h *harness)
}

var offerCases = []contractCase{
	{"offers describe machines", func(h *harness) {
		offers, err := h.Offers(h.ctx(), dstack.Requirements{})
		h.check(err)
		if len(offers) == 0 {
			h.t.Fatal("there is no offer")
		}
		owned := map[dstack.InstanceID]bool{}
		for _, o := range offers {
			if o.Backend == "" || o.Type == "" || o.Hardware.CPUs < 1 || o.Hardware.MemoryMiB < 1 || o.Price < 0 {
				h.t.Errorf("offer %+v", o)
			}
			if o.OwnedInstance != "" && owned[o.OwnedInstance] {
				h.t.Errorf("the owned machine %s is offered twice", o.OwnedInstance)
			}
			owned[o.OwnedInstance] = true
		}
	}},
	{"offers that meet the requirements are returned", func(h *harness) {
		all, err := h.Offers(h.ctx(), dstack.Requirements{})
		h.check(err)
		for _, o := range all {
			need := dstack.Requirements{
				Backends: []string{o.Backend}, Regions: []string{o.Region}, InstanceTypes: []string{o.Type},
				Spot: &o.Spot, MaxPrice: &o.Price,
			}
			some, err := h.Offers(h.ctx(), need)
			h.check(err)
			if !slices.ContainsFunc(some, func(other dstack.Offer) bool { return other.Type == o.Type && other.Region == o.Region }) {
				h.t.Errorf("the offer %s %s is not among those for its own requirements", o.Region, o.Type)
			}
		}
	}},
	{"calls end with their context", func(h *harness) {
		ctx, cancel := context.WithCancel(h.ctx())
		cancel()
		began := time.Now()
		_, _ = h.Offers(ctx, dstack.Requirements{}) // an error or an answer
		_, _ = h.Machines(ctx)
		_, _ = h.Engine(ctx, "nobody")
		_ = h.Delete(ctx, "nobody")
		if took := time.Since(began); took > 10*time.Second {
			h.t.Errorf("calls with a context that has ended took %s", took)
		}
	}},
}

var ownedCases = []contractCase{
	{"owned machines are listed and run", func(h *harness) {
		id := h.findOffer(true).OwnedInstance
		if m, ok := h.list()[id]; !ok || !m.IsAlive() || m.Ref == "" {
			h.t.Errorf("machine %+v, listed %t", m, ok)
		}
	}},
	{"owned machines are neither created nor deleted", func(h *harness) {
		offer := h.findOffer(true)
		before := len(h.list())
		h.check(h.Delete(h.ctx(), offer.OwnedInstance))
		request := h.newOwnedRequest(offer)
		h.check(h.Create(h.ctx(), request))
		if machines := h.list(); len(machines) != before || !machines[offer.OwnedInstance].IsAlive() {
			h.t.Errorf("machines %+v", machines)
		}
	}},
	{"owned machines have engines", func(h *harness) {
		id := h.findOffer(true).OwnedInstance
		for range 2 {
			eng, err := h.Engine(h.ctx(), id)
			h.check(err)
			if _, err := eng.ListReports(h.ctx()); err != nil {
				h.t.Error(err)
			}
		}
	}},
	{"an unknown machine has no engine", func(h *harness) {
		_, err := h.Engine(h.ctx(), "nobody")
		h.expectKind(err, dstack.NotFound)
	}},
	{"deleting an unknown machine is no error", func(h *harness) {
		before := len(h.list())
		h.check(h.Delete(h.ctx(), "nobody"))
		if after := len(h.list()); after != before {
			h.t.Errorf("%d machines, %d before", after, before)
		}
	}},
}

var rentedCases = []contractCase{
	{"a created machine runs in the end", func(h *harness) {
		id, m := h.startMachine()
		if m.Ref == "" || m.Failure != nil || m.Price < 0 {
			h.t.Errorf("machine %+v", m)
		}
		eng, err := h.Engine(h.ctx(), id)
		h.check(err)
		h.waitFor("answering", func() bool {
			_, err := eng.ListReports(h.ctx())
			return err == nil
		})
	}},
	{"a creation that is repeated makes one machine", func(h *harness) {
		request := h.newRequest()
		before := len(h.list())
		for range 3 {
			h.check(h.Create(h.ctx(), request))
		}
		ref := h.waitUntilRunning(request.Instance).Ref
		h.check(h.Create(h.ctx(), request))
		if machines := h.list(); len(machines) != before+1 || machines[request.Instance].Ref != ref {
			h.t.Errorf("machines %+v, want one more than %d", machines, before)
		}
	}},
	{"creations at the same time make one machine", func(h *harness) {
		request := h.newRequest()
		before := len(h.list())
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				if err := h.Create(h.ctx(), request); err != nil {
					h.t.Error(err)
				}
			})
		}
		calls.Wait()
		h.waitUntilRunning(request.Instance)
		if machines := h.list(); len(machines) != before+1 {
			h.t.Errorf("machines %+v, want one more than %d", machines, before)
		}
	}},
	{"a restarted server finds its machines", func(h *harness) {
		id, m := h.startMachine()
		h.reopen()
		if got := h.list()[id]; got.Ref != m.Ref || !got.IsAlive() {
			h.t.Errorf("machine %+v, want %+v", got, m)
		}
		if _, err := h.Engine(h.ctx(), id); err != nil {
			h.t.Error(err)
		}
	}},
	{"a deleted machine is gone in the end and stays so", func(h *harness) {
		id, _ := h.startMachine()
		h.check(h.Delete(h.ctx(), id))
		h.check(h.Delete(h.ctx(), id))
		h.waitUntilGone(id)
		h.check(h.Delete(h.ctx(), id))
		if m, listed := h.list()[id]; listed {
			h.t.Errorf("the machine is listed again: %+v", m)
		}
	}},
	{"a machine can be deleted before it runs", func(h *harness) {
		request := h.newRequest()
		h.check(h.Create(h.ctx(), request))
		h.check(h.Delete(h.ctx(), request.Instance))
		h.startMachine() // by then a machine that was created before is listed
		h.check(h.Delete(h.ctx(), request.Instance))
		h.waitUntilGone(request.Instance)
	}},
	{"deletion leaves other machines", func(h *harness) {
		first, _ := h.startMachine()
		second, m := h.startMachine()
		h.check(h.Delete(h.ctx(), first))
		h.waitUntilGone(first)
		if got := h.list()[second]; got.Ref != m.Ref || !got.IsAlive() {
			h.t.Errorf("machine %+v, want %+v", got, m)
		}
	}},
	{"a refused creation says why and may be repeated", func(h *harness) {
		h.require(Refusals, h.f.RefuseCreation != nil)
		request := h.newRequest()
		for _, kind := range []dstack.Kind{dstack.NoCapacity, dstack.Unauthorized, dstack.Unavailable} {
			h.f.RefuseCreation(h.t, kind)
			h.expectKind(h.Create(h.ctx(), request), kind)
		}
		h.f.RefuseCreation(h.t, "")
		h.check(h.Create(h.ctx(), request))
		h.waitUntilRunning(request.Instance)
	}},
}
