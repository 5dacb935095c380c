package server

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server/wire"
)

// maxBodyTime is the time for a client to send a request's body.
const maxBodyTime = 30 * time.Second

// decodeBody reads and decodes the body of a call; see wire.Decode. It lifts
// the read deadline, so that the handler may wait afterwards.
func decodeBody[In any](c *apiCall) (In, error) {
	var in In
	if err := checkContentType(c.r); err != nil {
		return in, err
	}
	text, err := io.ReadAll(c.r.Body)
	if err != nil {
		return in, toBodyError(err, c.operation.maxBody)
	}
	c.setReadDeadline(0)
	return wire.Decode[In](text)
}

// checkContentType refuses a body that is not JSON by its own account. The published client
// sends no Content-Type.
func checkContentType(r *http.Request) error {
	given := r.Header.Get("Content-Type")
	if given == "" || r.ContentLength == 0 {
		return nil
	}
	media, _, err := mime.ParseMediaType(given)
	if err == nil && (media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")) {
		return nil
	}
	return newMediaTypeError(given, "application/json")
}

// newMediaTypeError returns the error for a body of another type than wanted.
func newMediaTypeError(given, wanted string) error {
	message := "the body must be " + wanted + ", and its Content-Type is " + quote(given)
	return wire.StatusError{Status: http.StatusUnsupportedMediaType, Detail: wire.NewDetail(message),
		Err: &dstack.Error{Kind: dstack.Invalid, Message: message, Hint: "send the header Content-Type: " + wanted}}
}

// setReadDeadline limits the time for the client to send the rest of the body;
// 0 lifts the limit. Lift it only after the body was read: net/http reads the
// rest of a refused body before the next request. But lift it before waiting
// for anything else: when the deadline passes, net/http cancels the call.
func (c *apiCall) setReadDeadline(limit time.Duration) { setReadDeadline(c.w, limit) }

func setReadDeadline(w http.ResponseWriter, limit time.Duration) {
	var deadline time.Time
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	_ = http.NewResponseController(w).SetReadDeadline(deadline) // not every writer supports deadlines
}

// toBodyError returns the error for a body that cannot be read. limit is the
// body limit in bytes.
func toBodyError(err error, limit int64) error {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return &dstack.Error{Kind: dstack.TooLarge,
			Message: fmt.Sprintf("the request is larger than %s", human.Bytes(limit)),
			Hint:    "send a smaller request"}
	}
	return &dstack.Error{Kind: dstack.Invalid, Cause: err,
		Message: "the request ended before it was complete", Hint: "send it again"}
}
