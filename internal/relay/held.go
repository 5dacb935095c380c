package relay

// holdBody reads what has arrived of a body while the exchange waits, within x.Hold: a client that leaves is noticed then, since
// the end of its connection comes behind the body. It may result in an event.
func (c *clientConn) holdBody() (Event, bool) {
	b, x := &c.body, &c.x
	if x.Hold == 0 || b.isDone || b.isCollected {
		return 0, false
	}
	for range maxReads {
		have := int64(len(c.rest))
		if !c.IsReadable || !b.isChunked && have >= b.left {
			return 0, false
		}
		room := x.Hold - have
		if room <= 0 {
			if b.askedAt == x.Hold {
				return 0, false
			}
			b.askedAt = x.Hold
			return BodyHeld, true
		}
		if !b.isChunked {
			room = min(room, b.left-have)
		}
		p := c.worker.input[:min(room, readSize)]
		n, err := c.Read(p)
		if err != nil {
			c.cut(ClientLeft)
			return 0, false
		}
		c.rest = b.hold(c.rest, p[:n])
	}
	c.Again()
	return 0, false
}

// hold appends p to rest, the part of a body that was not used yet, in memory of its own: replicas get it from there.
func (b *requestBody) hold(rest, p []byte) []byte {
	if len(p) == 0 {
		return rest
	}
	if len(b.held) != len(rest) {
		b.held = append([]byte(nil), rest...)
	}
	b.held = append(b.held, p...)
	return b.held
}
