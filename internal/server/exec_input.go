package server

import (
	"io"
	"sync"

	"dstack/internal/api"
)

// consumedStep is how much input is consumed before the client is told.
const consumedStep = 32 << 10

// execInput is the input of a command that has not been read yet, at most api.ExecWindow
// bytes.
type execInput struct {
	mu       sync.Mutex
	changed  *sync.Cond
	data     []byte
	unacked  int // bytes that were read since the client was told
	isClosed bool
}

func newExecInput() *execInput {
	in := &execInput{}
	in.changed = sync.NewCond(&in.mu)
	return in
}

// add adds received input. It returns false if the client sent more than it may.
func (in *execInput) add(data []byte) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.data)+in.unacked+len(data) > api.ExecWindow {
		return false
	}
	in.data = append(in.data, data...)
	in.changed.Broadcast()
	return true
}

// close marks the end of the input.
func (in *execInput) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.isClosed = true
	in.changed.Broadcast()
}

// read waits for input. consumed is what the client is to be told, 0: nothing yet.
func (in *execInput) read(p []byte) (n, consumed int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.data) == 0 && !in.isClosed {
		in.changed.Wait()
	}
	if len(in.data) == 0 {
		return 0, 0, io.EOF
	}
	n = copy(p, in.data)
	in.data = in.data[n:]
	if in.unacked += n; in.unacked >= consumedStep {
		consumed, in.unacked = in.unacked, 0
	}
	return n, consumed, nil
}
