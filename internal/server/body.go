package server

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"errors"
)

// decodeBody reads the body of a call; see wire.Decode.
func decodeBody[In any](c *request) (In, error) {
	text, err := io.ReadAll(c.r.Body)
	if err != nil {
		var in In
		return in, newBodyError(err, c.route.limit)
	}
	c.setReadDeadline(0)
	return wire.Decode[In](text)
}

// maxBodyTime is how long a client may take to send a body.
const maxBodyTime = 30 * time.Second

// setReadDeadline gives the client so long to send the rest; zero: as long as it likes.
// It must be lifted before anything waits, for its end cuts the call, and only
// once the body was read: what a refused call leaves of it is read before the
// next one.
func (c *request) setReadDeadline(limit time.Duration) { setReadDeadline(c.w, limit) }

func setReadDeadline(w http.ResponseWriter, limit time.Duration) {
	var until time.Time
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	_ = http.NewResponseController(w).SetReadDeadline(until) // where it can be set
}

func newBodyError(err error, limit int64) error {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return &dstack.Error{Kind: dstack.TooLarge,
			Message: fmt.Sprintf("the request is larger than %s", formatSize(limit)),
			Hint:    "send less at once"}
	}
	return &dstack.Error{Kind: dstack.Invalid, Cause: err,
		Message: "the request ended before it was complete", Hint: "send it again"}
}

func formatSize(bytes int64) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%dMB", bytes>>20)
	}
	return fmt.Sprintf("%dKB", bytes>>10)
}
