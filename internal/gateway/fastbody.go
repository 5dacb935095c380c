package gateway

import (
	"time"

	"dstack/internal/openai"
	"dstack/internal/relay"
)

// fastBody is the body of a call to a model on the fast path: in memory, within the gateway's budgets, as modelBody is on the
// slow path. It waits for nothing: where it would have to, the slow path reads the body.
type fastBody struct {
	scanner   openai.BodyScanner
	isRead    bool
	memory    []byte      // of the body
	held      reservation // of the body budget, until the request ends
	reading   reservation // of the read budget, until the request waits or has a replica
	paceSince time.Time   // since when the body must keep minReadRate; zero: it need not
}

func (b *fastBody) reset() {
	b.scanner.Begin("")
	b.isRead, b.memory, b.paceSince = false, nil, time.Time{}
	b.held, b.reading = reservation{}, reservation{}
}

// beginBody takes memory for the beginning of a body. It reports false where there is none.
func (f *fastRequest) beginBody() bool {
	b, size := &f.model.body, int64(minFastBody)
	if f.x.Request.Length > size {
		size = freeRead
	}
	b.held.owner, b.reading.owner = f.conn.destination.Project, f.conn.destination.Project
	b.scanner.Begin("")
	if !f.gateway.bodyBudget.tryReserve(&b.held, size) {
		return false
	}
	b.memory = f.gateway.buffers.getFastBody(size)
	f.x.Body = b.memory
	return true
}

// minFastBody is how much memory a body gets at least.
const minFastBody = 2 << 10

// growBody makes room for more of a body that fills its memory. It reports false where there is none.
func (f *fastRequest) growBody() bool {
	b, size, length := &f.model.body, int64(cap(f.x.Body)), f.x.Request.Length
	if len(f.x.Body) < cap(f.x.Body) {
		return true
	}
	n := max(2*size, freeRead)
	if length < 0 {
		n = min(n, f.gateway.limits.MaxBody)
	} else {
		n = min(max(n, min(length, readStep)), length)
	}
	if n <= size {
		return false // it is larger than allowed
	}
	if beyond := n - freeRead - b.reading.bytes; beyond > 0 {
		if !f.gateway.readBudget.tryReserve(&b.reading, beyond) {
			return false
		}
		if b.paceSince.IsZero() {
			b.paceSince = time.Now()
		}
	}
	if !f.gateway.bodyBudget.tryReserve(&b.held, n-size) {
		return false
	}
	larger := append(f.gateway.buffers.getFastBody(n), f.x.Body...)
	f.gateway.buffers.putFastBody(b.memory)
	b.memory, f.x.Body = larger, larger
	return true
}

// paceDeadline is when so many bytes of a body must have arrived for which others may have to wait; zero: never.
func (b *fastBody) paceDeadline(arrived int, maxLag time.Duration) time.Time {
	if b.paceSince.IsZero() {
		return time.Time{}
	}
	return b.paceSince.Add(maxLag + time.Duration(arrived)*time.Second/minReadRate)
}

// passBodyTime ends a call whose body arrives too slowly.
func (f *fastRequest) passBodyTime() relay.Step {
	f.count()
	f.countKey(false)
	return f.fail(&responseError{details: details{Kind: tooSlowly, Message: "the request body came too slowly", Hint: "try again"}})
}

// handOver gives back what a body has that the slow path reads. The relay still has its memory.
func (b *fastBody) handOver(g *Gateway) {
	b.memory = nil
	b.release(g)
}

// releaseReading gives the bytes of the read budget back.
func (b *fastBody) releaseReading(g *Gateway) { g.readBudget.releaseAll(&b.reading) }

// release gives the memory back at the end of the request. Nothing sends it any more.
func (b *fastBody) release(g *Gateway) {
	b.releaseReading(g)
	g.bodyBudget.releaseAll(&b.held)
	g.buffers.putFastBody(b.memory)
	b.memory = nil
}
