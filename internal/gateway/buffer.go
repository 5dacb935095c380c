package gateway

import "sync"

const (
	bufferSize = 32 << 10
	// pieceSize is for streams: their pieces are small, and streams are long
	// and many.
	pieceSize = 4 << 10
)

// leastBody is how large the memory of a body is that is worth to be kept.
const leastBody = 64 << 10

// buffers are what answers are copied with, and the memory of bodies.
type buffers struct{ whole, pieces, bodies sync.Pool }

// body is memory for n bytes.
func (b *buffers) body(n int64) []byte {
	if n >= leastBody {
		if p, ok := b.bodies.Get().(*[]byte); ok && int64(cap(*p)) >= n && int64(cap(*p)) <= 2*n {
			return (*p)[:0:n]
		}
	}
	return make([]byte, 0, n)
}

// recycle takes back the memory of a body that no replica has seen. Without
// it, refusing large requests leaves more garbage than those have that wait.
func (b *buffers) recycle(body []byte) {
	if cap(body) >= leastBody {
		b.bodies.Put(&body)
	}
}

// Get lends the proxy one, once it is known what the answer is.
func (x *exchange) Get() []byte {
	if x.streams {
		if p, ok := x.g.buffers.pieces.Get().(*[pieceSize]byte); ok {
			return p[:]
		}
		return make([]byte, pieceSize)
	}
	if p, ok := x.g.buffers.whole.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

// Put takes it back.
func (x *exchange) Put(p []byte) {
	if x.streams {
		x.g.buffers.pieces.Put((*[pieceSize]byte)(p))
		return
	}
	x.g.buffers.whole.Put((*[bufferSize]byte)(p))
}
