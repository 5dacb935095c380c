package server

import (
	"context"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"

	"dstack/internal/decide/access"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// apiCall is one thing that can be called.
type apiCall struct {
	method, path string
	level        access.Level
	limit        int64 // of the body, in bytes
	about        string
	in, out      reflect.Type
	form         bodyForm
	serve        func(*Server, *request) error
}

// bodyForm is how a route takes or gives what it does.
type bodyForm string

const (
	formJSON   bodyForm = ""
	formLines  bodyForm = "one JSON document a line" // its answer
	formUpload bodyForm = "multipart"                // its request
)

// request is one request on its way.
type request struct {
	ctx     context.Context
	w       http.ResponseWriter
	r       *http.Request
	route   *apiCall
	user    dstack.User    // zero where nobody was asked
	project dstack.Project // zero where the route is of none
}

// isGlobalAdmin says that the caller may see everything.
func (c *request) isGlobalAdmin() bool { return c.user.GlobalRole == dstack.RoleAdmin }

// Bodies are limited: most are small, configurations may be larger.
const (
	bodyLimit = 1 << 20
	runLimit  = 4 << 20
)

// newCall is an endpoint that takes In and answers Out.
func newCall[In, Out any](path string, level access.Level, do func(*Server, *request, In) (Out, error), about string) apiCall {
	return apiCall{method: http.MethodPost, path: path, level: level, limit: bodyLimit, about: about,
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		serve: func(s *Server, c *request) error {
			in, err := decodeBody[In](c)
			if err != nil {
				return err
			}
			out, err := do(s, c, in)
			if err != nil {
				return err
			}
			s.respondJSON(c.w, http.StatusOK, out)
			return nil
		}}
}

// allowConfiguration lets a route take a configuration.
func allowConfiguration(r apiCall) apiCall { r.limit = runLimit; return r }

// serveAPI is the stack of every request, in the order of execution.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	defer s.recoverPanic(w, r)
	setReadDeadline(w, maxBodyTime)
	if strings.HasPrefix(r.URL.Path, "/api/") && r.URL.Path != docsPath {
		if err := wire.CheckVersion(r); err != nil {
			s.respondError(w, r, err)
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

// recoverPanic answers for a call that panicked. Half an answer is cut instead.
func (s *Server) recoverPanic(w http.ResponseWriter, r *http.Request) {
	switch p := recover(); p {
	case nil:
	case http.ErrAbortHandler:
		panic(p)
	default:
		s.log.LogAttrs(r.Context(), slog.LevelError, "a call panicked", slog.String("call", r.Pattern),
			slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		if w.Header().Get("Content-Type") != "" { // the answer has begun
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Connection", "close")
		status, body := wire.BuildRefusal(&dstack.Error{Kind: dstack.Internal, Message: "the server failed to do this",
			Hint: "the reason is in the server's own output"})
		s.respondJSON(w, status, body)
	}
}

// handleCall lets a caller in who may call a route, and no other.
func (s *Server) handleCall(rt *apiCall) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := &request{ctx: r.Context(), w: w, r: r, route: rt}
		r.Body = http.MaxBytesReader(w, r.Body, rt.limit)
		err := s.authorize(c)
		if err == nil {
			err = rt.serve(s, c)
		} else {
			s.audit(c, "a call was refused", slog.String("why", err.Error()))
		}
		if err != nil {
			c.setReadDeadline(maxBodyTime)
			s.respondError(w, r, err)
		}
	}
}

// audit writes into the log who did what. It is all the audit there is.
func (s *Server) audit(c *request, what string, more ...slog.Attr) {
	attrs := append([]slog.Attr{slog.String("call", c.r.URL.Path), slog.String("user", c.user.Name), slog.String("from", c.r.RemoteAddr)}, more...)
	s.log.LogAttrs(c.ctx, slog.LevelInfo, what, attrs...)
}

// authorize finds out who calls and where, and asks whether they may.
func (s *Server) authorize(c *request) error {
	if c.route.level == access.LevelNone {
		return nil
	}
	known, err := s.authenticate(c)
	if err != nil {
		return err
	}
	place, err := s.findProject(c, known)
	if err != nil {
		return err
	}
	who := access.Caller{Known: known, Role: c.user.GlobalRole}
	switch access.Allow(c.route.level, who, place) {
	case access.Allowed:
		return nil
	case access.Unknown:
		return wire.StatusError{Status: http.StatusForbidden, Detail: "Not authenticated", Err: &dstack.Error{Kind: dstack.Unauthorized,
			Message: "nobody is logged in with this request", Hint: "send the header Authorization: Bearer <token>"}}
	case access.Hidden:
		return wire.StatusError{Status: http.StatusNotFound, Detail: wire.Message{Msg: "Not found"}, Err: &dstack.Error{Kind: dstack.NotFound,
			Message: "there is no project " + quote(c.r.PathValue("project_name")) + " that you may see",
			Hint:    "ask an admin of the project to add you, or check its name"}}
	case access.Denied:
		return newAccessDeniedError("you may not do this", "ask an admin")
	default:
		return newAccessDeniedError("you may not do this", "ask an admin")
	}
}

func newAccessDeniedError(why, hint string) error {
	return wire.StatusError{Status: http.StatusForbidden, Detail: wire.Message{Msg: "Access denied"}, Err: &dstack.Error{Kind: dstack.Forbidden, Message: why, Hint: hint}}
}

// authenticate looks the caller up by the hash of the token. A store that fails
// lets nobody in.
func (s *Server) authenticate(c *request) (known bool, err error) {
	scheme, token, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return false, nil
	}
	hash := HashToken(token)
	user, err := s.store.UserByToken(c.ctx, hash)
	if err != nil && dstack.KindOf(err) != dstack.NotFound {
		return false, &dstack.Error{Kind: dstack.Unavailable, Cause: err,
			Message: "the server cannot look up who you are", Hint: "try again in a moment"}
	}
	if err != nil || subtle.ConstantTimeCompare([]byte(user.TokenHash), []byte(hash)) != 1 {
		return false, wire.StatusError{Status: http.StatusForbidden, Detail: wire.Message{Msg: "Invalid token"}, Err: &dstack.Error{Kind: dstack.Unauthorized,
			Message: "the token is not valid", Hint: "give the present one: dstack config --url URL, which asks for it"}}
	}
	c.user = user
	return true, nil
}

// formatLocation finds the project of a call and how its caller stands to it.
func (s *Server) findProject(c *request, known bool) (access.Project, error) {
	name := c.r.PathValue("project_name")
	if !known || name == "" {
		return access.Project{}, nil
	}
	project, err := s.store.Project(c.ctx, name)
	if dstack.KindOf(err) == dstack.NotFound {
		return access.Project{}, nil
	}
	if err != nil {
		return access.Project{}, err
	}
	c.project = project
	members, err := s.store.Members(c.ctx, project.ID)
	if err != nil {
		return access.Project{}, err
	}
	place := access.Project{Exists: true}
	for _, m := range members {
		if m.User.ID == c.user.ID {
			place.Member, place.Role = true, m.Role
		}
	}
	return place, nil
}
