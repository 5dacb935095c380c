package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// respondError answers with an error. It logs errors of the server itself.
func (s *Server) respondError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) { // the client has disconnected, or the server is stopping
		err = &dstack.Error{Kind: dstack.Unavailable, Message: "the server is stopping", Hint: "try again in a moment"}
	}
	status, body := wire.BuildErrorResponseTo(r, err)
	if status == http.StatusInternalServerError {
		s.log.LogAttrs(r.Context(), slog.LevelError, "a call failed", slog.String("call", r.Pattern),
			slog.Any("err", err), slog.Any("cause", errors.Unwrap(err)))
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	s.respondJSON(w, status, body)
}

// respondJSON answers with a JSON body. It encodes the whole body first, so
// that an encoding error gives status 500 instead of a truncated body.
func (s *Server) respondJSON(w http.ResponseWriter, status int, body any) {
	text := responseBuffers.Get().(*bytes.Buffer)
	defer releaseBuffer(text)
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		s.log.Error("cannot encode a response as JSON", "err", err)
		status = http.StatusInternalServerError
		text.Reset()
		text.WriteString(`{"detail":"Internal Server Error","error":{"kind":"internal","message":"the response cannot be encoded"}}`)
	}
	writeEncodedJSON(w, status, text.Bytes())
}

// maxKeptBuffer is the size of a response above which its buffer is not used again.
const maxKeptBuffer = 1 << 20

// responseBuffers has buffers for the bodies of responses.
var responseBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func releaseBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxKeptBuffer {
		b.Reset()
		responseBuffers.Put(b)
	}
}

const (
	writeChunkSize = 256 << 10
	maxChunkTime   = time.Minute // time for a client to receive one chunk
)

// writeEncodedJSON writes a response whose body is encoded already. It gives up
// without an error if the client has disconnected or reads too slowly.
func writeEncodedJSON(w http.ResponseWriter, status int, text []byte) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	for chunk := range slices.Chunk(text, writeChunkSize) {
		_ = control.SetWriteDeadline(time.Now().Add(maxChunkTime)) // not every writer supports deadlines
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
	if control.Flush() == nil {
		_ = control.SetWriteDeadline(time.Time{}) // the next response on the connection sets its own
	}
}
