package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"strings"
	"time"

	"dstack/internal/httpwire"
)

// replicaBody is the body of a replica's response. One goroutine reads it. Its end, or Close, gives the connection back.
type replicaBody struct {
	ctx       context.Context
	conn      *keptConn // nil: given back
	stop      func() bool
	left      int64 // what is not read yet, or httpwire.Chunked or httpwire.UntilClose
	chunks    httpwire.ChunkScanner
	data      []byte // of the present chunk, in the connection's buffer
	mustClose bool
	response  *http.Response // gets the trailer
	err       error          // of all reads from now on
}

// Read implements io.Reader. It returns io.EOF with the last bytes where it knows that they are.
func (b *replicaBody) Read(p []byte) (n int, err error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.left == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	case b.left == httpwire.Chunked:
		n, err = b.readChunks(p)
	default:
		n, err = b.readPlain(p)
	}
	if err != nil {
		b.fail(err)
	}
	return n, b.err
}

// readPlain reads a body of a known length, or one that ends with the connection.
func (b *replicaBody) readPlain(p []byte) (n int, err error) {
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	if unread := b.conn.unread(); len(unread) > 0 {
		n = copy(p, unread)
		b.conn.begin += n
	} else if n, err = b.wait(func() (int, error) { return b.conn.Read(p) }); n > 0 {
		err = nil // it comes again
	}
	if b.left > 0 {
		b.left -= int64(n)
		if b.left == 0 {
			b.finish()
			return n, io.EOF
		}
		err = eofIsUnexpected(err)
	} else if errors.Is(err, io.EOF) {
		b.finish()
	}
	return n, err
}

// readChunks reads a body in chunks.
func (b *replicaBody) readChunks(p []byte) (n int, err error) {
	for {
		c := copy(p[n:], b.data)
		n, b.data = n+c, b.data[c:]
		unread := b.conn.unread()
		switch {
		case len(b.data) > 0:
			return n, nil // p is full
		case len(unread) == 0 && n > 0:
			return n, nil
		case len(unread) == 0:
			_, err := b.wait(func() (int, error) { return 0, b.conn.fill() })
			if err != nil {
				return 0, eofIsUnexpected(err)
			}
			continue
		}
		data, used, done, err := b.chunks.Next(unread)
		if err != nil {
			return n, err
		}
		b.data = data
		if b.conn.begin += used; done {
			b.setTrailer()
			b.finish()
			return n, io.EOF
		}
	}
}

// wait reads. It waits without a limit, as long as the context of the request does not end.
func (b *replicaBody) wait(read func() (int, error)) (int, error) {
	n, err := read()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	// The deadline of the head has passed, or the context has ended.
	if err := errors.Join(b.conn.SetDeadline(time.Time{}), b.ctx.Err()); err != nil {
		return n, err
	}
	return read()
}

// fail ends the body with an error, io.EOF after its end.
func (b *replicaBody) fail(err error) {
	if b.ctx.Err() != nil && !errors.Is(err, io.EOF) {
		err = context.Cause(b.ctx)
	}
	b.err = err
	if b.conn != nil {
		b.stop()
		b.conn.close()
		b.conn = nil
	}
}

// finish gives the connection back after the response.
func (b *replicaBody) finish() {
	conn := b.conn
	b.conn, b.data = nil, nil
	isWatched := b.stop()
	isQuiet := len(conn.unread()) == 0
	conn.releaseBuffer()
	if !isWatched || !isQuiet || b.mustClose {
		conn.close()
		return
	}
	conn.pool.put(conn)
}

// Close implements io.Closer. Before the end of the body it closes the connection.
func (b *replicaBody) Close() error {
	if b.conn != nil {
		b.fail(http.ErrBodyReadAfterClose)
	}
	return nil
}

// hasMore reports whether a Read returns at once.
func (b *replicaBody) hasMore() bool {
	return b.conn == nil || len(b.data) > 0 || len(b.conn.unread()) > 0
}

// announcedTrailer returns the names of the fields that the response announces behind its body.
func (x *replicaExchange) announcedTrailer() (trailer http.Header) {
	for i := range x.head.Fields {
		if x.head.Fields[i].Kind != httpwire.Trailer {
			continue
		}
		for name := range strings.SplitSeq(string(x.head.Fields[i].Value), ",") {
			if name = http.CanonicalHeaderKey(textproto.TrimString(name)); name != "" {
				if trailer == nil {
					trailer = http.Header{}
				}
				trailer[name] = nil
			}
		}
	}
	return trailer
}

// setTrailer sets what came behind the chunks.
func (b *replicaBody) setTrailer() {
	for line := range strings.Lines(string(b.chunks.Trailers)) {
		name, value, _ := strings.Cut(line, ":")
		if b.response.Trailer == nil {
			b.response.Trailer = http.Header{}
		}
		b.response.Trailer.Add(textproto.TrimString(name), textproto.TrimString(value))
	}
}
