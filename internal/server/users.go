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

// AdminName is the user that the first start makes.
const AdminName = "admin"

var accountName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@-]{0,59}$`)

func quote(name string) string {
	if len(name) > 80 {
		name = name[:80] + "…"
	}
	return strconv.Quote(name)
}

func lowerTime(s string) string  { return strings.ToLower(s) }
func equalFold(a, b string) bool { return strings.EqualFold(a, b) }
func wireUser(u dstack.User) api.User {
	wire := api.User{ID: u.ID, Username: u.Name, GlobalRole: u.GlobalRole}
	if u.Email != "" {
		wire.Email = &u.Email
	}
	return wire
}

func (s *Server) listUsers(c *request, _ wire.Null) ([]api.User, error) {
	if !c.isGlobalAdmin() {
		return []api.User{wireUser(c.user)}, nil
	}
	users, err := s.store.Users(c.ctx)
	if err != nil {
		return nil, err
	}
	wire := make([]api.User, 0, len(users))
	for _, u := range users {
		wire = append(wire, wireUser(u))
	}
	return wire, nil
}

func (s *Server) getMyUser(c *request, _ wire.Null) (api.User, error) { return wireUser(c.user), nil }

// visibleUser finds a user that the caller may see: itself, or anybody.
func (s *Server) visibleUser(c *request, name string) (dstack.User, error) {
	if name == c.user.Name {
		return c.user, nil
	}
	if c.isGlobalAdmin() {
		return s.store.User(c.ctx, name)
	}
	return dstack.User{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no user " + quote(name) + " that you may see",
		Hint: "ask an admin"}
}

func (s *Server) getUser(c *request, in api.Username) (api.UserWithCreds, error) {
	user, err := s.visibleUser(c, in.Username)
	return api.UserWithCreds{User: wireUser(user)}, err
}

func (s *Server) createUser(c *request, in api.PutUser) (api.User, error) {
	if !accountName.MatchString(in.Username) {
		return api.User{}, invalidAccount("a user", in.Username)
	}
	// Its token is nobody's until somebody refreshes it: none is kept that
	// could be shown.
	user := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: in.Username, GlobalRole: in.GlobalRole,
		Email: orEmpty(in.Email), TokenHash: HashToken(newToken()), CreatedAt: now()}
	err := s.store.CreateUser(c.ctx, user)
	s.tellAccount(c, in.Username, err)
	return wireUser(user), newNameTakenError(err)
}

func (s *Server) updateUser(c *request, in api.PutUser) (api.User, error) {
	user, err := s.store.User(c.ctx, in.Username)
	if err != nil {
		return api.User{}, err
	}
	user.GlobalRole, user.Email = in.GlobalRole, orEmpty(in.Email)
	err = s.store.UpdateUser(c.ctx, user)
	s.tellAccount(c, in.Username, err)
	s.broadcast.Notify() // what their token opens may have changed
	return wireUser(user), err
}

func (s *Server) refreshToken(c *request, in api.Username) (api.UserWithCreds, error) {
	user, err := s.visibleUser(c, in.Username)
	if err != nil {
		return api.UserWithCreds{}, err
	}
	token := newToken()
	err = s.store.SetToken(c.ctx, user.ID, HashToken(token))
	s.tellAccount(c, in.Username, err)
	if err != nil {
		return api.UserWithCreds{}, err
	}
	s.broadcast.Notify()
	return api.UserWithCreds{User: wireUser(user), Creds: api.UserCreds{Token: token}}, nil
}

func (s *Server) deleteUsers(c *request, in api.DeleteUsers) (wire.Null, error) {
	if slices.Contains(in.Users, c.user.Name) {
		return wire.Null{}, &dstack.Error{Kind: dstack.Conflict, Message: "you cannot delete yourself",
			Hint: "let another admin do it"}
	}
	err := s.store.DeleteUsers(c.ctx, in.Users)
	s.tellAccount(c, strings.Join(in.Users, ","), err)
	s.broadcast.Notify()
	return wire.Null{}, err
}

// tellAccount logs a change of who may do what.
func (s *Server) tellAccount(c *request, whose string, err error) {
	if err == nil {
		s.audit(c, "an account changed", slog.String("whose", whose))
	}
}

func invalidAccount(what, name string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%s cannot be called %s", what, quote(name)),
		Hint: "use at most 60 letters, digits, dots, dashes and underscores, a letter or digit first"}
}

// newNameTakenError gives a conflict over a name the code of the reference.
func newNameTakenError(err error) error {
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

// now is the time as it is kept: UTC, to the microsecond.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
