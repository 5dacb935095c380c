package relay

import (
	"math/bits"

	"dstack/internal/httpwire"
)

// Sizes of buffers are powers of two.
const (
	minBufferBits = 9  // 512 bytes
	maxBufferBits = 17 // 128 KiB
	// maxFree is how many bytes of buffers of one size are kept for use.
	maxFree = 512 << 10
)

// memory keeps buffers and lists of fields for use again.
type memory struct {
	free   [maxBufferBits - minBufferBits + 1][][]byte
	fields [][]httpwire.Field
}

// take returns an empty buffer with room for n bytes.
func (m *memory) take(n int) []byte {
	class := max(0, bits.Len(uint(max(n, 1)-1))-minBufferBits)
	if class >= len(m.free) {
		return make([]byte, 0, n)
	}
	list := m.free[class]
	if len(list) == 0 {
		return make([]byte, 0, 1<<(class+minBufferBits))
	}
	b := list[len(list)-1]
	m.free[class] = list[:len(list)-1]
	return b[:0]
}

// give takes a buffer back, which may be nil.
func (m *memory) give(b []byte) {
	size := cap(b)
	class := bits.Len(uint(size)) - 1 - minBufferBits
	if class < 0 || class >= len(m.free) || size != 1<<(class+minBufferBits) || len(m.free[class]) >= maxFree/size {
		return
	}
	m.free[class] = append(m.free[class], b)
}

// grow appends p to a buffer, which may be nil. The buffer must not be used after that.
func (m *memory) grow(b, p []byte) []byte {
	if len(b)+len(p) <= cap(b) {
		return append(b, p...)
	}
	n := len(b) + len(p)
	if n > 1<<maxBufferBits {
		n = max(n, 2*cap(b)) // or each small piece would copy all
	}
	larger := append(m.take(n), b...)
	m.give(b)
	return append(larger, p...)
}

// maxFreeFields is how many lists of fields are kept.
const maxFreeFields = 1024

func (m *memory) takeFields() []httpwire.Field {
	if len(m.fields) == 0 {
		return make([]httpwire.Field, 0, 16)
	}
	last := len(m.fields) - 1
	fields := m.fields[last]
	m.fields = m.fields[:last]
	return fields[:0]
}

func (m *memory) giveFields(fields []httpwire.Field) {
	if len(m.fields) < maxFreeFields && cap(fields) > 0 {
		m.fields = append(m.fields, fields)
	}
}

// output is what waits to be sent: a buffer of the worker, and after it memory of a director.
type output struct {
	buffer []byte
	sent   int    // of buffer
	body   []byte // what is left of it
}

func (o *output) isPending() bool { return o.buffer != nil || len(o.body) > 0 }

// release gives the memory back.
func (o *output) release(m *memory) {
	m.give(o.buffer)
	*o = output{}
}
