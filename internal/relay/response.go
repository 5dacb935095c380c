package relay

import (
	"dstack/internal/httpwire"
)

// maxInformational is how many informational responses (103 and the like) of a replica are passed on.
const maxInformational = 16

// maxSkipped is how many of them come before a final one at most.
const maxSkipped = 1000

// readResponse reads what the replica has sent, as long as the client takes it.
func (r *replicaConn) readResponse() {
	w := r.worker
	for range maxReads {
		c := r.client
		if c == nil || !r.IsReadable || c.out.isPending() {
			return
		}
		have := copy(w.input[frameRoom:], r.partial)
		n, err := r.Read(w.input[frameRoom+have : frameRoom+readSize])
		if err != nil {
			r.readFailed(err)
			return
		}
		if n == 0 {
			return
		}
		if r.isHeadDone {
			r.passBody(nil, frameRoom, frameRoom+n)
			continue
		}
		r.hasBegun = true
		if have > 0 && !httpwire.HasHeadEnd(w.input[frameRoom:frameRoom+have+n], have) {
			r.partial = w.memory.grow(r.partial, w.input[frameRoom+have:frameRoom+have+n])
			continue
		}
		r.readHead(frameRoom, frameRoom+have+n)
	}
	if r.client != nil && r.IsReadable {
		r.Again()
	}
}

// readHead reads the head of a response from a part of the worker's input.
func (r *replicaConn) readHead(from, to int) {
	w, c := r.worker, r.client
	x := &c.x
	for {
		x.Response.Fields = w.fields
		n, err := x.Response.Parse(w.input[from:to], x.Request.Method)
		w.fields = x.Response.Fields[:0]
		switch {
		case err != nil:
			r.failBefore(BadResponse, err)
			return
		case n == 0:
			r.partial = w.memory.grow(r.partial[:0], w.input[from:to])
			return
		case x.Response.Status == 101:
			r.failBefore(BadResponse, errSwitched)
			return
		case x.Response.Status >= 200:
			w.memory.give(r.partial)
			r.partial = nil
			c.respond(r, from+n, to)
			return
		}
		if c.response.skipped++; c.response.skipped > maxSkipped {
			r.failBefore(BadResponse, errSkipped)
			return
		}
		if !c.passInformational() {
			return
		}
		from += n
	}
}

// passInformational passes a response on that comes before the final one.
func (c *clientConn) passInformational() bool {
	w, x := c.worker, &c.x
	isPassed := x.Response.Status != 100 && c.response.informational < maxInformational && !c.response.hasBegun &&
		!x.NoInformational && x.Request.Oddities&httpwire.OddVersion == 0
	if !isPassed {
		return true
	}
	c.response.informational++
	w.head = x.Response.Append(w.head[:0], nil, 0)
	return c.write(w.head)
}

// respond begins the response of a replica, whose body begins in a part of the worker's input.
func (c *clientConn) respond(r *replicaConn, from, to int) {
	w, x := c.worker, &c.x
	res := &x.Response
	if r.isProving {
		r.setProved()
	}
	r.isHeadDone, r.closeAfter, r.left = true, res.CloseAfter, res.Length
	r.isChunked, r.isToClose = res.Length == httpwire.Chunked, res.Length == httpwire.UntilClose
	if r.isChunked {
		r.scanner.Reset()
	}
	w.loop.Clear(&c.wakeTimer)
	c.state = responding
	if !r.out.isPending() { // it is not sent again
		c.body.release()
	}
	c.limitClient()
	r.limitResponse()
	w.asks = c
	w.relay.options.Director.Respond(x)
	w.asks = nil
	if res.Length == 0 {
		x.FirstByteAt = w.loop.Now()
	}
	w.head = w.head[:0]
	if !c.response.hasBegun {
		x.Withhold = false
		c.beginResponse()
	}
	if x.Withhold && x.Watcher == nil {
		r.endWithheld(nil)
		return
	}
	c.response.isRecoded = x.Withhold
	r.passBody(w.head, from, to)
	x.Response.Fields = nil
}

// beginResponse makes the head for the client.
func (c *clientConn) beginResponse() {
	w, x := c.worker, &c.x
	res, isOld, length := &x.Response, x.Request.Oddities&httpwire.OddVersion != 0, x.Response.Length
	c.response.hasBegun = true
	if length < 0 {
		c.response.inChunks, c.response.isUntilClose = !isOld, isOld
		if length = httpwire.Chunked; isOld {
			length = httpwire.UntilClose
		}
	}
	x.Status = res.Status
	c.willClose = c.willClose || x.CloseClient || w.isDraining || !c.body.isDone || c.response.isUntilClose
	w.extra = append(w.extra[:0], x.ResponseExtra...)
	hasDate := false
	for i := range res.Fields {
		f := &res.Fields[i]
		hasDate = hasDate || f.Kind == httpwire.Date
		if f.Kind == httpwire.Trailer {
			f.Drop = length != httpwire.Chunked
		}
	}
	if !hasDate {
		w.extra = w.date.append(w.extra, w.loop.Now())
	}
	if c.willClose {
		w.extra = append(w.extra, closeField...)
	} else if isOld {
		w.extra = append(w.extra, "Connection: keep-alive\r\n"...)
	}
	w.head = res.Append(w.head[:0], w.extra, length)
}

// passBody sends head, which may be empty, and the part of a body that is in the worker's input.
func (r *replicaConn) passBody(head []byte, from, to int) {
	c := r.client
	end := r.worker.tail[:0] // behind the part
	var isDone, isJunk bool
	begin := from
	b := r.worker.input[from:to]
	switch {
	case r.isChunked && c.response.inChunks && !c.response.isRecoded:
		pass, n, done, err := r.scanner.Scan(b, c)
		if err != nil {
			c.cut(ReplicaBroke)
			return
		}
		if isDone, isJunk = done, n < len(b); done && len(r.scanner.Trailers) > 0 {
			end = appendTrailers(end, r.scanner.Trailers, false)
		}
		to = from + pass
	case r.isChunked:
		n, done, err := r.decodeChunks(from, to)
		if err != nil {
			r.breakOff(err)
			return
		}
		isDone, to = done, from+n
		if c.response.inChunks {
			head, end = appendFrame(head, end, n, done)
		}
	default:
		if !r.isToClose {
			if int64(len(b)) > r.left {
				b, isJunk = b[:r.left], true
			}
			r.left -= int64(len(b))
			isDone = r.left == 0
		}
		to = from + len(b)
		c.Watch(b)
		if c.response.inChunks {
			head, end = appendFrame(head, end, len(b), isDone)
		}
	}
	if c.x.Withhold {
		if isDone {
			r.endWithheld(nil)
		}
		return
	}
	r.worker.tail = end
	if !c.writePart(head, begin, to, end) {
		return
	}
	if isDone {
		r.endResponse(isJunk)
	}
}

// appendFrame appends what is before and behind a chunk of a size, which may be 0.
func appendFrame(head, end []byte, size int, isLast bool) (before, behind []byte) {
	if size > 0 {
		head = httpwire.AppendChunkSize(head, size)
		end = append(end, httpwire.ChunkEnd...)
	}
	if isLast {
		end = append(end, httpwire.LastChunk...)
	}
	return head, end
}

// breakOff ends a response that is not whole.
func (r *replicaConn) breakOff(err error) {
	if r.client.x.Withhold {
		r.endWithheld(err)
		return
	}
	r.client.cut(ReplicaBroke)
}

// endWithheld asks the director what becomes of a response that was not passed on.
func (r *replicaConn) endWithheld(err error) {
	c := r.client
	c.leaveReplica()
	c.x.Failure, c.x.Withhold, c.state = err, false, waiting
	c.proceed(Withheld)
}

// decodeChunks removes the framing of chunks from a part of the worker's input.
func (r *replicaConn) decodeChunks(from, to int) (length int, isDone bool, err error) {
	b := r.worker.input[from:to]
	for len(b) > 0 && !isDone {
		data, n, done, err := r.scanner.Next(b)
		if err != nil {
			return 0, false, err
		}
		r.client.Watch(data)
		if !r.client.x.Withhold {
			length += copy(r.worker.input[from+length:], data)
		}
		b, isDone = b[n:], done
	}
	return length, isDone, nil
}

// writePart sends head, a part of the worker's input, and end: in one write if they fit around it.
func (c *clientConn) writePart(head []byte, from, to int, end []byte) bool {
	input := c.worker.input
	if len(head) > from {
		if !c.write(head) {
			return false
		}
		head = nil
	}
	from -= copy(input[from-len(head):], head)
	if len(end) > len(input)-to {
		return c.write(input[from:to]) && c.write(end)
	}
	to += copy(input[to:], end)
	return from == to || c.write(input[from:to])
}

// Watch counts a piece of the response's body, and shows it to the director.
func (c *clientConn) Watch(piece []byte) {
	x := &c.x
	if len(piece) == 0 {
		return
	}
	if x.Sent == 0 && x.FirstByteAt.IsZero() {
		x.FirstByteAt = c.worker.loop.Now()
	}
	if x.Watcher != nil {
		c.worker.asks = c
		x.Watcher.Watch(piece)
		c.worker.asks = nil
	}
	if !x.Withhold {
		x.Sent += int64(len(piece))
	}
}

// endResponse is called when all of the response was passed on. The connection is kept, unless one side ends it.
func (r *replicaConn) endResponse(isJunk bool) {
	c, p := r.client, r.pool
	c.replica, r.client = nil, nil
	isKept := !isJunk && !r.closeAfter && !r.isToClose && !r.HasEnded && !r.IsReadable && !r.out.isPending() &&
		r.writeError == nil && c.body.isDone
	p.succeededAt = r.worker.loop.Now()
	if isKept {
		p.put(r)
	} else {
		r.close()
		p.openMore()
	}
	c.finishResponse()
}
