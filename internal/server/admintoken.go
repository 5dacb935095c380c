package server

import (
	"context"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

// FindAdmin returns the user that the first start creates. It fails with kind NotFound
// in a database that no server has been started with.
func FindAdmin(ctx context.Context, s *store.Store) (dstack.User, error) {
	return s.User(ctx, AdminName)
}

// RotateAdminToken replaces the admin's token and returns the new one, which nothing
// else shows. It needs no running server, and may be called while servers run.
func RotateAdminToken(ctx context.Context, s *store.Store) (token string, err error) {
	admin, err := FindAdmin(ctx, s)
	if err != nil {
		return "", err
	}
	token = newToken()
	return token, s.SetToken(ctx, admin.ID, HashToken(token))
}

// IsValidToken reports whether a token belongs to a user. A database that does not
// answer accepts none.
func IsValidToken(ctx context.Context, s *store.Store, token string) bool {
	_, err := s.UserByToken(ctx, HashToken(token))
	return token != "" && err == nil
}
