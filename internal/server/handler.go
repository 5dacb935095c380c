package server

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// newMuxes returns a mux for each dialect.
func (s *Server) newMuxes() map[wire.Dialect]*http.ServeMux {
	muxes := map[wire.Dialect]*http.ServeMux{}
	for dialect, operations := range dialectOperations {
		muxes[dialect] = s.newMux(dialect, operations)
	}
	return muxes
}

// newMux returns a mux with the operations of a dialect.
func (s *Server) newMux(dialect wire.Dialect, operations []apiOperation) *http.ServeMux {
	mux := http.NewServeMux()
	for i := range operations {
		mux.HandleFunc(operations[i].method+" "+operations[i].path, s.newHandler(&operations[i]))
	}
	mux.HandleFunc("GET "+openapiPath, func(w http.ResponseWriter, r *http.Request) { s.serveOpenAPI(w, r, dialect) })
	mux.HandleFunc("GET /{$}", s.serveHome)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.respondUnknownPath(mux, w, r) })
	return mux
}

// newHandler returns the HTTP handler of an operation. It calls the operation
// only if the caller is authorized.
func (s *Server) newHandler(op *apiOperation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := &apiCall{ctx: r.Context(), w: w, r: r, operation: op}
		r.Body = http.MaxBytesReader(w, r.Body, op.maxBody)
		err := s.authorize(c)
		if err == nil {
			err = op.handle(s, c)
		} else {
			s.audit(c, "a call was refused", slog.String("why", err.Error()))
		}
		if err != nil {
			c.setReadDeadline(maxBodyTime)
			s.respondError(w, r, err)
		}
	}
}

// serveAPI handles every request: it sets the security headers, limits the
// time for the body, checks the client's version and calls the mux of its dialect.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	defer s.recoverPanic(w, r)
	setReadDeadline(w, maxBodyTime)
	dialect, err := wire.ChooseDialect(r)
	if err != nil && strings.HasPrefix(r.URL.Path, "/api/") && r.URL.Path != docsPath {
		s.respondError(w, r, err)
		return
	}
	if err != nil {
		dialect = wire.Dialect018
	}
	s.muxes[dialect].ServeHTTP(w, r)
}

// errPanic is the error of a call that panicked. Clients see only that the
// server failed.
var errPanic = errors.New("the handler panicked")

// recoverPanic logs a panic and answers with status 500. If the response has
// already begun, it aborts the connection instead.
func (s *Server) recoverPanic(w http.ResponseWriter, r *http.Request) {
	switch p := recover(); p {
	case nil:
	case http.ErrAbortHandler:
		panic(p)
	default:
		s.log.LogAttrs(r.Context(), slog.LevelError, "a call panicked", slog.String("call", r.Pattern),
			slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		if w.Header().Get("Content-Type") != "" { // the response has begun
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Connection", "close")
		status, body := wire.BuildErrorResponse(errPanic)
		s.respondJSON(w, status, body)
	}
}

// respondUnknownPath answers with status 405 if the path exists with another
// method, otherwise with 404.
func (s *Server) respondUnknownPath(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := mux.Handler(probe); pattern != "/" && method != r.Method {
			w.Header().Set("Allow", strings.Replace(method, http.MethodGet, "GET, HEAD", 1))
			s.respondError(w, r, wire.StatusError{Status: http.StatusMethodNotAllowed, Detail: "Method Not Allowed",
				Err: &dstack.Error{Kind: dstack.Invalid, Message: r.URL.Path + " does not accept " + r.Method,
					Hint: "use " + method}})
			return
		}
	}
	s.respondError(w, r, wire.StatusError{Status: http.StatusNotFound, Detail: "Not Found",
		Err: &dstack.Error{Kind: dstack.NotFound, Message: "the API has no path " + quote(r.URL.Path),
			Hint: "see the list of paths at " + openapiPath}})
}
