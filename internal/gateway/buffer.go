package gateway

import "sync"

const (
	bufferSize = 32 << 10
	// pieceSize is for streams: their pieces are small, and streams are long
	// and many.
	pieceSize = 4 << 10
)

// buffers are what answers are copied with.
type buffers struct{ whole, pieces sync.Pool }

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
