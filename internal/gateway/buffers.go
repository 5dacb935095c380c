package gateway

import "sync"

const (
	bufferSize = 32 << 10
	// streamBufferSize is for streams: their pieces are small, and streams are
	// long and many.
	streamBufferSize = 4 << 10
	// minPooledBody is the size from which the memory of a body is kept.
	minPooledBody = 64 << 10
)

// buffers are pools of what responses are copied with, and of memory for bodies.
type buffers struct{ responses, streams, bodies, small, smallest sync.Pool }

// getBody returns memory for n bytes.
func (b *buffers) getBody(n int64) []byte {
	if n >= minPooledBody {
		if p, ok := b.bodies.Get().(*[]byte); ok && int64(cap(*p)) >= n && int64(cap(*p)) <= 2*n {
			return (*p)[:0:n]
		}
	}
	return make([]byte, 0, n)
}

// putBody keeps the memory of a body that was sent to no replica. Without it,
// rejected large requests would leave more garbage than waiting ones use memory.
func (b *buffers) putBody(body []byte) {
	if cap(body) >= minPooledBody {
		b.bodies.Put(&body)
	}
}

// getFastBody returns memory for n bytes of a body on the fast path.
func (b *buffers) getFastBody(n int64) []byte {
	switch {
	case n > freeRead:
		return b.getBody(n)
	case n > minFastBody:
		if p, ok := b.small.Get().(*[freeRead]byte); ok {
			return p[:0]
		}
		return new([freeRead]byte)[:0]
	default:
		if p, ok := b.smallest.Get().(*[minFastBody]byte); ok {
			return p[:0]
		}
		return new([minFastBody]byte)[:0]
	}
}

// putFastBody keeps the memory of a body that nobody uses any more.
func (b *buffers) putFastBody(body []byte) {
	switch cap(body) {
	case 0:
	case minFastBody:
		b.smallest.Put((*[minFastBody]byte)(body[:minFastBody]))
	case freeRead:
		b.small.Put((*[freeRead]byte)(body[:freeRead]))
	default:
		b.putBody(body)
	}
}

// Get implements httputil.BufferPool. The proxy calls it once it has the
// response's headers.
func (f *forwarder) Get() []byte {
	buffers := &f.request.gateway.buffers
	if f.request.response.isEventStream {
		if p, ok := buffers.streams.Get().(*[streamBufferSize]byte); ok {
			return p[:]
		}
		return make([]byte, streamBufferSize)
	}
	if p, ok := buffers.responses.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

// Put implements httputil.BufferPool.
func (f *forwarder) Put(p []byte) {
	if f.request.response.isEventStream {
		f.request.gateway.buffers.streams.Put((*[streamBufferSize]byte)(p))
		return
	}
	f.request.gateway.buffers.responses.Put((*[bufferSize]byte)(p))
}
