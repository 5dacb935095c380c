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
	"time"

	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

func (s *Server) respondError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) { // the client is gone, or the server is going
		err = &dstack.Error{Kind: dstack.Unavailable, Message: "the server is stopping", Hint: "try again in a moment"}
	}
	status, body := wire.BuildRefusal(err)
	if status == http.StatusInternalServerError {
		s.log.LogAttrs(r.Context(), slog.LevelError, "a call failed", slog.String("call", r.Pattern),
			slog.Any("err", err), slog.Any("cause", errors.Unwrap(err)))
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	s.respondJSON(w, status, body)
}

// respondJSON answers with JSON, whole or not at all.
func (s *Server) respondJSON(w http.ResponseWriter, status int, body any) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		s.log.Error("an answer cannot be written as JSON", "err", err)
		status = http.StatusInternalServerError
		text.Reset()
		text.WriteString(`{"detail":"Internal Server Error","error":{"kind":"internal","message":"the answer cannot be written"}}`)
	}
	writeJSON(w, status, text.Bytes())
}

const (
	writeChunkSize = 256 << 10
	maxChunkTime   = time.Minute // that a client may take for one piece of an answer
)

// writeJSON writes a whole answer of JSON. A client that does not read it is let
// go, and so is one that is gone: there is nobody else to tell.
func writeJSON(w http.ResponseWriter, status int, text []byte) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	for piece := range slices.Chunk(text, writeChunkSize) {
		_ = control.SetWriteDeadline(time.Now().Add(maxChunkTime)) // where it can be set
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
	if control.Flush() == nil {
		_ = control.SetWriteDeadline(time.Time{}) // what comes after has its own
	}
}
