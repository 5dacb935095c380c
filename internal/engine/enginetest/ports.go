package enginetest

import (
	"net"
	"slices"
	"strconv"

	"dstack/internal/dstack"
)

// reportsOtherPort runs a server that does not listen on the port of its specification.
func reportsOtherPort(h *harness) {
	if !h.f.ReadsListeners {
		return
	}
	spec := h.newSpec(h.f.Serve)
	other := FindFreePort(h.t)
	spec.Env["PORT"] = strconv.Itoa(other)
	id := h.startAttempt(spec)
	r := h.waitForReport(id, "listening on another port", func(r dstack.Report) bool { return len(r.Listening) > 0 })
	if r.Ready || len(r.Listening) != 1 || r.Listening[0].Port != other {
		h.t.Errorf("it listens on %d: %+v", other, r)
	}
}

// reportsAddresses runs a server that accepts connections only from its own machine, or
// its own container: the latter never becomes ready.
func reportsAddresses(h *harness) {
	if !h.f.ReadsListeners {
		return
	}
	spec := h.newSpec(h.f.ServeLocally)
	id := h.startAttempt(spec)
	r := h.waitForReport(id, "listening", func(r dstack.Report) bool { return len(r.Listening) > 0 })
	if want := []dstack.Listener{{Host: "127.0.0.1", Port: spec.Port}}; !slices.Equal(r.Listening, want) {
		h.t.Errorf("it listens on %v, want %v", r.Listening, want)
	}
	if r.Ready == h.f.Capabilities.Containers {
		h.t.Errorf("it is ready: %v", r.Ready)
	}
}

// choosesPort runs a server on the port in PORT, which the engine may change.
func choosesPort(h *harness) {
	spec := h.newSpec("echo hello > index.html; "+h.f.Serve, func(spec *dstack.AttemptSpec) { spec.ChoosePort = true })
	id := h.startAttempt(spec)
	r := h.waitForReport(id, "ready", isReady)
	if got := h.fetchIndex(r); got != "hello" {
		h.t.Errorf("the response is %q", got)
	}
	_, port, _ := net.SplitHostPort(r.Address)
	switch chosen := r.Port != 0; {
	case chosen != h.f.Capabilities.SharesPorts:
		h.t.Errorf("the port was chosen: %v; %+v", chosen, r)
	case chosen && port != strconv.Itoa(r.Port):
		h.t.Errorf("the address is %s, the port %d", r.Address, r.Port)
	}
}
