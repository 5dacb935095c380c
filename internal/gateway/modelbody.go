package gateway

import (
	"io"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/openai"
)

const (
	freeRead    = 16 << 10 // bytes of each body outside the read budget: most prompts are not longer
	readStep    = 1 << 20  // bytes that are reserved at once for a body that announces as many
	maxReadWait = 10 * time.Second
	minReadRate = 64 << 10 // bytes a second of a body for which others may have to wait
)

// newBodyBudget returns the budget for the memory of all bodies of model
// requests. One project has half of it at the most, and a sixteenth is for
// small bodies alone. A project's share covers at least one request's body and
// its converted copy.
func newBodyBudget(total, maxBody int64) *budget {
	return newBudget(budgetLimits{
		total: total, perOwner: max(total/2, min(total, 2*maxBody)), small: freeRead, extra: total / 16,
	})
}

// newReadBudget returns the budget for bodies that are still being read, so
// that slow clients do not use up the memory for others.
func newReadBudget(total, perProject int64) *budget {
	return newBudget(budgetLimits{total: total, perOwner: perProject, soleMayExceed: true, maxWait: maxReadWait})
}

// modelBody reads the body of a model request into memory, within the
// gateway's budgets.
type modelBody struct {
	request   *proxyRequest
	data      []byte // what is read so far
	scanner   openai.BodyScanner
	held      reservation // of the body budget, until the request ends
	reading   reservation // of the read budget, until the request waits or has a replica
	granted   int64       // bytes beyond freeRead that may be read
	paceSince time.Time   // since when the body must keep minReadRate; zero: it need not
}

// readAll reads the body to its end, because the model may be named there. The
// memory of a body that was sent is not used again: a replica that responds
// early may still be reading it.
func (b *modelBody) readAll() error {
	p := b.request
	size, maxBody := p.r.ContentLength, p.gateway.limits.MaxBody
	if size > maxBody {
		return bodyTooLarge(maxBody)
	}
	if size < 0 {
		size = maxBody
	}
	b.scanner.Begin(p.r.Header.Get("Content-Type"))
	for {
		if len(b.data) == cap(b.data) {
			if err := b.growMemory(size); err != nil {
				return err
			}
		}
		b.setPaceDeadline()
		n, err := p.r.Body.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		b.scanner.Scan(b.data)
		switch {
		case int64(len(b.data)) > maxBody:
			return bodyTooLarge(maxBody)
		case err == io.EOF:
			return nil
		case err != nil && p.body.isLate():
			return &responseError{details: details{Kind: tooSlowly,
				Message: "the request body came too slowly", Hint: "try again"}}
		case err != nil:
			return bodyError()
		}
	}
}

// growMemory doubles the memory, up to one byte more than the size, so that a read
// sees the end.
func (b *modelBody) growMemory(size int64) error {
	n, err := b.reserveReading(min(max(4<<10, 2*int64(cap(b.data))), size+1))
	if err != nil {
		return err
	}
	if err := b.reserveBytes(n - int64(cap(b.data))); err != nil {
		return err
	}
	b.data = append(b.request.gateway.buffers.getBody(n), b.data...)
	return nil
}

// reserveReading makes sure that n bytes of the body may be read, and returns
// how many may: more where the body announces that it is longer.
func (b *modelBody) reserveReading(n int64) (int64, error) {
	if n <= freeRead+b.granted {
		return n, nil
	}
	p := b.request
	n = max(n, min(p.r.ContentLength+1, readStep))
	b.reading.owner = p.destination.Project
	asked := time.Now()
	if err := p.gateway.readBudget.reserve(p.ctx(), &b.reading, n-freeRead-b.granted); err != nil {
		if p.ctx().Err() != nil {
			return 0, p.ctx().Err()
		}
		return 0, &responseError{retryAfter: 1, details: details{Kind: dstack.Unavailable,
			Message: "the gateway reads too many large requests at the moment", Hint: "try again"}}
	}
	if b.paceSince.IsZero() {
		b.paceSince = asked
	}
	b.paceSince = b.paceSince.Add(time.Since(asked)) // the client is not to blame for the wait
	b.granted = n - freeRead
	return n, nil
}

// setPaceDeadline makes a body for which others may have to wait arrive at
// minReadRate.
func (b *modelBody) setPaceDeadline() {
	if !b.paceSince.IsZero() {
		pace := time.Duration(len(b.data)) * time.Second / minReadRate
		b.request.body.setPaceDeadline(b.paceSince.Add(b.request.gateway.limits.MaxLag + pace))
	}
}

// reserveBytes takes n bytes of the body budget until the request ends.
func (b *modelBody) reserveBytes(n int64) error {
	b.held.owner = b.request.destination.Project
	if !b.request.gateway.bodyBudget.tryReserve(&b.held, n) {
		return newNoRoomError()
	}
	return nil
}

func newNoRoomError() *responseError {
	return &responseError{retryAfter: 1, details: details{Kind: dstack.Unavailable,
		Message: "the gateway holds too many large requests", Hint: "try again"}}
}

// releaseBytes gives n reserved bytes back before the request ends.
func (b *modelBody) releaseBytes(n int64) { b.request.gateway.bodyBudget.release(&b.held, n) }

// releaseReading gives the bytes of the read budget back.
func (b *modelBody) releaseReading() { b.request.gateway.readBudget.releaseAll(&b.reading) }

// release gives all back when the request ends.
func (b *modelBody) release(wasSent bool) {
	b.releaseReading()
	b.request.gateway.bodyBudget.releaseAll(&b.held)
	if !wasSent {
		b.request.gateway.buffers.putBody(b.data)
	}
}

func bodyTooLarge(maxBytes int64) *responseError {
	return &responseError{details: details{Kind: dstack.TooLarge,
		Message: "the request body is larger than " + human.Bytes(maxBytes)}}
}

func bodyError() *responseError {
	return &responseError{details: details{Kind: dstack.Invalid,
		Message: "the request body is not valid HTTP, ended early or came too slowly"}}
}
