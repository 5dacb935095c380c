package server

import (
	"context"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"

	"dstack/internal/decide/access"
	"dstack/internal/dstack"
	"dstack/internal/origin"
	"dstack/internal/server/wire"
)

// authorize authenticates the caller, finds the project of the call and
// returns an error if the caller may not call the operation. A project that
// the caller may not see gives the same error as one that does not exist.
func (s *Server) authorize(c *apiCall) error {
	if c.operation.level == access.LevelNone {
		return nil
	}
	if c.operation.level == access.LevelGatewayProcess {
		return s.authorizeProcess(c)
	}
	known, project, err := s.authenticate(c)
	if err != nil {
		return err
	}
	caller := access.Caller{Known: known, Role: c.user.GlobalRole}
	switch access.Allow(c.operation.level, caller, project) {
	case access.Allowed:
		return nil
	case access.Unknown:
		return wire.StatusError{Status: http.StatusForbidden, Detail: "Not authenticated", Err: &dstack.Error{
			Kind: dstack.Unauthorized, Message: "the request has no token",
			Hint: "send the header Authorization: Bearer <token>"}}
	case access.Hidden:
		return wire.StatusError{Status: http.StatusNotFound, Detail: wire.Message{Msg: "Not found"}, Err: &dstack.Error{
			Kind: dstack.NotFound, Message: "there is no project " + quote(c.r.PathValue("project_name")) + " that you may see",
			Hint: "check the name, or ask an admin of the project to add you"}}
	case access.Denied:
		return newAccessDeniedError()
	default:
		return newAccessDeniedError()
	}
}

// abortUnlessAuthorized breaks the connection of a long response whose caller has lost
// access since it began: its token or its membership ended. A client that connects again
// gets the reason.
func (s *Server) abortUnlessAuthorized(c *apiCall) {
	if err := s.authorize(c); err != nil && c.ctx.Err() == nil {
		s.audit(c, "a call was ended", slog.String("why", err.Error()))
		panic(http.ErrAbortHandler)
	}
}

func newAccessDeniedError() error {
	return wire.StatusError{Status: http.StatusForbidden, Detail: wire.Message{Msg: "Access denied"},
		Err: &dstack.Error{Kind: dstack.Forbidden, Message: "you may not do this", Hint: "ask an admin"}}
}

// authenticate finds the user of the token in the request and the project that the
// path names, and sets c.user, c.project and c.role. project is the caller's role in it; it is
// zero if the path names no project or the project does not exist. known is false if
// the request has no token. The error says that the token is not valid, or that the
// store fails.
func (s *Server) authenticate(c *apiCall) (known bool, project access.Project, err error) {
	scheme, token, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return false, project, nil
	}
	name := c.r.PathValue("project_name")
	if !wire.IsText(name) {
		name = "" // no project has such a name, and PostgreSQL refuses to look for it
	}
	hash := HashToken(token)
	caller, err := s.store.Caller(c.ctx, hash, name)
	if err != nil && dstack.KindOf(err) != dstack.NotFound {
		return false, project, &dstack.Error{Kind: dstack.Unavailable, Cause: err,
			Message: "the server cannot check the token", Hint: "try again in a moment"}
	}
	if err != nil && s.isCallerKey(c, token, hash) {
		return false, project, wire.StatusError{Status: http.StatusForbidden, Detail: wire.Message{Msg: "Invalid token"}, Err: &dstack.Error{
			Kind: dstack.Unauthorized, Message: "this is a key for callers: it calls services and models, and never the API",
			Hint: "use the token of a user here: dstack config --project NAME --url URL"}}
	}
	if err != nil || subtle.ConstantTimeCompare([]byte(caller.User.TokenHash), []byte(hash)) != 1 {
		return false, project, wire.StatusError{Status: http.StatusForbidden, Detail: wire.Message{Msg: "Invalid token"}, Err: &dstack.Error{
			Kind: dstack.Unauthorized, Message: "the server does not accept this token",
			Hint: "enter the current one: dstack config --project NAME --url URL; " +
				"if the admin's is lost, on the server's machine: dstack server token"}}
	}
	c.user = caller.User
	if caller.Project != nil {
		c.project = *caller.Project
		project = access.Project{Exists: true, Member: caller.IsMember, Role: caller.Role}
		c.role = project
	}
	return true, project, nil
}

// findMembership returns the role of a user in a project that exists.
func (s *Server) findMembership(ctx context.Context, project dstack.ProjectID, user dstack.User) (access.Project, error) {
	members, err := s.store.Members(ctx, project)
	if err != nil {
		return access.Project{}, err
	}
	found := access.Project{Exists: true}
	for _, m := range members {
		if m.User.ID == user.ID {
			found.Member, found.Role = true, m.Role
		}
	}
	return found, nil
}

// audit logs what a caller did or was refused, with the caller's name and
// address. There is no other audit log.
func (s *Server) audit(c *apiCall, event string, more ...slog.Attr) {
	attrs := []slog.Attr{slog.String("call", c.r.URL.Path), slog.String("user", c.user.Name),
		slog.String("from", origin.ClientOf(c.r, s.proxies).AddressText())}
	s.log.LogAttrs(c.ctx, slog.LevelInfo, event, append(attrs, more...)...)
}
