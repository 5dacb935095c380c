package relay

import "dstack/internal/eventloop"

// send writes p to a socket, after what waits already, and keeps what the kernel does not take.
func (o *output) send(s *eventloop.Socket, m *memory, p []byte) error {
	n := 0
	if !o.isPending() && s.IsWritable {
		var err error
		if n, err = s.Write(p); err != nil {
			return err
		}
	}
	if n < len(p) {
		o.buffer = m.grow(o.buffer, p[n:])
	}
	return nil
}

// sendTwo writes head, and body, whose memory stays as it is until it is sent. Nothing waits before them.
func (o *output) sendTwo(s *eventloop.Socket, m *memory, head, body []byte) error {
	n := 0
	if s.IsWritable {
		var err error
		if n, err = s.WriteTwo(head, body); err != nil {
			return err
		}
	}
	if n < len(head) {
		o.buffer = m.grow(o.buffer, head[n:])
		o.body = body
		return nil
	}
	if o.body = body[n-len(head):]; len(o.body) == 0 {
		o.body = nil
	}
	return nil
}

// flush sends what waits, as far as the kernel takes it, and returns how much that was.
func (o *output) flush(s *eventloop.Socket, m *memory) (sent int, err error) {
	for s.IsWritable && o.isPending() {
		p := o.body
		if o.buffer != nil {
			p = o.buffer[o.sent:]
		}
		n, err := s.Write(p)
		if err != nil {
			return sent, err
		}
		sent += n
		switch {
		case o.buffer == nil:
			o.body = o.body[n:]
		case o.sent+n < len(o.buffer):
			o.sent += n
		default:
			m.give(o.buffer)
			o.buffer, o.sent = nil, 0
		}
	}
	if len(o.body) == 0 {
		o.body = nil
	}
	return sent, nil
}
