package gateway

import "dstack/internal/relay"

const (
	// unreadBody is up to which length a body stays with the client while its request waits: the buffers of the connection hold it,
	// and so the end of the connection shows behind it.
	unreadBody = 32 << 10
	firstHold  = 64 << 10
)

// beginHold lets the relay read the body of a request that waits, within the upload budget, so that a client that leaves is noticed
// at once: the end of its connection comes behind its body. A body that cannot be read to its end stays with the client.
func (f *fastRequest) beginHold() {
	length := f.x.Request.Length
	if f.x.Hold > 0 || f.model.isCall || length >= 0 && length <= unreadBody || length > f.gateway.limits.HeldBytes {
		return
	}
	f.upload.owner = string(f.acquirer.waiter.run) // waitsFor changes under the lock of the wait queue
	f.growHold(firstHold)
}

// holdMore makes room for more of the body of a request that waits.
func (f *fastRequest) holdMore() relay.Step {
	f.growHold(2 * f.x.Hold)
	return relay.Wait
}

func (f *fastRequest) growHold(to int64) {
	to = min(to, f.gateway.limits.HeldBytes)
	if length := f.x.Request.Length; length > 0 {
		to = min(to, length)
	}
	if to > f.x.Hold && f.gateway.uploadBudget.tryReserve(&f.upload, to-f.x.Hold) {
		f.x.Hold = to
	}
}

// endHold gives the bytes back when the body is sent, or nobody wants it any more.
func (f *fastRequest) endHold() { f.gateway.uploadBudget.releaseAll(&f.upload) }
