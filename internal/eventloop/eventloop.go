// Package eventloop waits for many sockets at once in one goroutine, by epoll (Linux). It reads and writes without the
// poller of Go's runtime: without a goroutine for each connection, and without reads that find nothing.
package eventloop

import (
	"errors"
	"time"
)

// ErrUnsupported says that the operating system has no epoll.
var ErrUnsupported = errors.New("event loops need Linux")

// Handler gets the events of a socket. Its method is called in the goroutine of the loop.
type Handler interface {
	// Ready is called when a socket has become readable or writable, or has failed: see the methods of Socket.
	Ready()
}

// Receiver gets messages that other goroutines send with Loop.Send. Its method is called in the goroutine of the loop.
type Receiver interface {
	Receive(message uint64)
}

// Func is a Receiver that ignores the message.
type Func func()

// Receive calls f.
func (f Func) Receive(uint64) { f() }

// Options configure a loop.
type Options struct {
	// Stop is called in the goroutine of the loop when its context has ended; it closes the sockets. Nil: the loop
	// closes them.
	Stop func()
	// Panicked is called in the goroutine of the loop after a panic of a Handler, a Receiver or an Expirer, with it and the value of
	// the panic; the loop goes on. nil: the panic ends the program.
	Panicked func(of, value any)
}

const (
	// shortWait is how long a loop waits for events without giving its processor to other goroutines: most waits under load
	// are shorter, and passing a processor on costs more than such a wait.
	shortWait = 100 * time.Microsecond
	// maxFruitless is the number of short waits in vain after which the loop makes no more of them. It makes them again
	// once a longer wait turns out to be short.
	maxFruitless = 3
	// maxHold is how long a busy loop keeps its processor before it lets other goroutines run.
	maxHold = time.Millisecond
	// maxEvents is how many events are taken at once.
	maxEvents = 128
)
