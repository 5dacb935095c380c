package server

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// AdminName is the name of the user that the first start creates.
const AdminName = "admin"

var userNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@-]{0,59}$`)

// quote quotes a name for an error message, and shortens a long one.
func quote(name string) string {
	if len(name) > 80 {
		name = name[:80] + "…"
	}
	return strconv.Quote(name)
}

func buildUser(u dstack.User) api.User {
	user := api.User{ID: u.ID, Username: u.Name, GlobalRole: u.GlobalRole}
	if u.Email != "" {
		user.Email = &u.Email
	}
	return user
}

func (s *Server) listUsers(c *apiCall, _ wire.Null) ([]api.User, error) {
	if !c.isGlobalAdmin() {
		return []api.User{buildUser(c.user)}, nil
	}
	users, err := s.store.Users(c.ctx)
	if err != nil {
		return nil, err
	}
	list := make([]api.User, 0, len(users))
	for _, u := range users {
		list = append(list, buildUser(u))
	}
	return list, nil
}

func (s *Server) getMyUser(c *apiCall, _ wire.Null) (api.User, error) { return buildUser(c.user), nil }

// findVisibleUser finds a user that the caller may see: the caller, or any user
// if the caller is a global admin. The error does not reveal whether other
// users exist.
func (s *Server) findVisibleUser(c *apiCall, name string) (dstack.User, error) {
	if name == c.user.Name {
		return c.user, nil
	}
	if c.isGlobalAdmin() {
		return s.store.User(c.ctx, name)
	}
	return dstack.User{}, &dstack.Error{Kind: dstack.NotFound,
		Message: "there is no user " + quote(name) + " that you may see", Hint: "ask an admin"}
}

func (s *Server) getUser(c *apiCall, in api.Username) (api.UserWithCreds, error) {
	user, err := s.findVisibleUser(c, in.Username)
	return api.UserWithCreds{User: buildUser(user)}, err
}

func (s *Server) createUser(c *apiCall, in api.PutUser) (api.User, error) {
	if !userNamePattern.MatchString(in.Username) {
		return api.User{}, newInvalidNameError("a user", in.Username,
			"use at most 60 letters, digits and the characters . _ @ -; begin with a letter or digit")
	}
	// The token is discarded: only its hash is stored. refresh_token returns a usable one.
	user := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: in.Username, GlobalRole: in.GlobalRole,
		Email: orEmpty(in.Email), TokenHash: HashToken(newToken()), CreatedAt: now()}
	err := s.store.CreateUser(c.ctx, user)
	s.auditAccountChange(c, in.Username, err)
	return buildUser(user), toNameTakenError(err)
}

// updateUser sets a user's role and e-mail address.
func (s *Server) updateUser(c *apiCall, in api.PutUser) (api.User, error) {
	user, err := s.store.User(c.ctx, in.Username)
	if err != nil {
		return api.User{}, err
	}
	if user.Name == AdminName && in.GlobalRole != dstack.RoleAdmin {
		return api.User{}, newAdminIsNeededError("without the role admin")
	}
	user.GlobalRole, user.Email = in.GlobalRole, orEmpty(in.Email)
	err = s.store.UpdateUser(c.ctx, user)
	s.auditAccountChange(c, in.Username, err)
	s.broadcast.Notify() // the user may have lost access to services
	return buildUser(user), err
}

func (s *Server) refreshToken(c *apiCall, in api.Username) (api.UserWithCreds, error) {
	user, err := s.findVisibleUser(c, in.Username)
	if err != nil {
		return api.UserWithCreds{}, err
	}
	token := newToken()
	err = s.store.SetToken(c.ctx, user.ID, HashToken(token))
	s.auditAccountChange(c, in.Username, err)
	if err != nil {
		return api.UserWithCreds{}, err
	}
	s.broadcast.Notify()
	return api.UserWithCreds{User: buildUser(user), Creds: api.UserCreds{Token: token}}, nil
}

// deleteUsers deletes users, whose tokens end at once. Their runs go on, because runs
// belong to projects.
func (s *Server) deleteUsers(c *apiCall, in api.DeleteUsers) (wire.Null, error) {
	switch {
	case slices.Contains(in.Users, AdminName):
		return wire.Null{}, newAdminIsNeededError("deleted")
	case slices.Contains(in.Users, c.user.Name):
		return wire.Null{}, &dstack.Error{Kind: dstack.Conflict, Message: "you cannot delete yourself",
			Hint: "ask another admin"}
	}
	heir, err := s.findNewOwner(c, in)
	if err != nil {
		return wire.Null{}, err
	}
	err = s.store.DeleteUsers(c.ctx, in.Users, heir)
	s.auditAccountChange(c, strings.Join(in.Users, ","), err)
	s.broadcast.Notify()
	return wire.Null{}, err
}

// findNewOwner returns the user who gets the projects of deleted users, or none.
func (s *Server) findNewOwner(c *apiCall, in api.DeleteUsers) (dstack.UserID, error) {
	if in.NewOwner == "" {
		return "", nil
	}
	if slices.Contains(in.Users, in.NewOwner) {
		return "", &dstack.Error{Kind: dstack.Invalid, Message: "the new owner " + quote(in.NewOwner) + " would be deleted, too",
			Hint: "name a user who stays"}
	}
	user, err := s.store.User(c.ctx, in.NewOwner)
	return user.ID, err
}

// newAdminIsNeededError refuses to remove the user admin or its role. The server would
// create the user again at its next start, and `dstack server token`, the way back in for
// whoever runs the server, needs it.
func newAdminIsNeededError(what string) error {
	return &dstack.Error{Kind: dstack.Conflict, Message: "the user " + AdminName + " cannot be " + what + ": the server needs it",
		Hint: "to lock out who knows its token, make a new one: dstack user rotate " + AdminName}
}

// auditAccountChange logs a change of a user or a project, unless it failed.
func (s *Server) auditAccountChange(c *apiCall, account string, err error) {
	if err == nil {
		s.audit(c, "an account changed", slog.String("whose", account))
	}
}

func newInvalidNameError(what, name, hint string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%s cannot be called %s", what, quote(name)),
		Hint: hint}
}

// toNameTakenError gives an error of kind Conflict the code of 0.18.10. It
// returns other errors as they are.
func toNameTakenError(err error) error {
	if dstack.KindOf(err) == dstack.Conflict {
		return wire.Error{Code: "resource_exists", Err: err}
	}
	return err
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// now returns the current time as the store keeps it: UTC, in whole
// microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
