package server

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// listSecrets lists the secrets of a project by name.
func (s *Server) listSecrets(c *apiCall, _ wire.Null) ([]api.Secret, error) {
	found, err := s.store.Secrets(c.ctx, c.project.ID)
	list := make([]api.Secret, 0, len(found))
	for _, secret := range found {
		list = append(list, buildSecret(secret))
	}
	return list, err
}

func (s *Server) getSecret(c *apiCall, in api.GetSecret) (api.Secret, error) {
	found, err := s.store.Secrets(c.ctx, c.project.ID)
	if err != nil {
		return api.Secret{}, err
	}
	for _, secret := range found {
		if secret.Name == in.Name {
			return buildSecret(secret), nil
		}
	}
	return api.Secret{}, &dstack.Error{Kind: dstack.NotFound, Message: "this project has no secret " + quote(in.Name),
		Hint: "list them: dstack secret list"}
}

func buildSecret(secret dstack.Secret) api.Secret {
	runs := secret.Runs
	if runs == nil {
		runs = []string{}
	}
	return api.Secret{ID: secret.ID, Name: secret.Name, ChangedAt: secret.At.UTC(), ChangedBy: secret.User, UsedBy: runs}
}

// setSecret sets the value of a secret.
func (s *Server) setSecret(c *apiCall, in api.SetSecret) (api.SetSecretResult, error) {
	if err := checkSecret(in); err != nil {
		return api.SetSecretResult{}, err
	}
	change, err := s.store.SetSecret(c.ctx, c.project.ID, in.Name, in.Value, c.user.Name, now())
	s.auditSecretChange(c, "secret set", in.Name, err)
	if err != nil {
		return api.SetSecretResult{}, err
	}
	if change.Changed {
		s.notifyChange()
	}
	secret, err := s.getSecret(c, api.GetSecret{Name: in.Name}) // with the runs that use it
	if err != nil {
		secret = buildSecret(change.Secret)
	}
	rolled := append([]string{}, change.Rolled...)
	return api.SetSecretResult{Secret: secret, Created: change.Created, Changed: change.Changed, Rolled: rolled}, nil
}

// checkSecret checks the name and the value of a secret. Its errors do not show
// the value.
func checkSecret(in api.SetSecret) error {
	if err := spec.CheckSecretName(in.Name); err != nil {
		return toInvalidError(err)
	}
	refuse := func(kind dstack.Kind, why, hint string) error {
		return &dstack.Error{Kind: kind, Message: fmt.Sprintf("cannot set the secret %s: %s", in.Name, why), Hint: hint}
	}
	switch {
	case in.Value == "":
		return refuse(dstack.Invalid, "the value is empty", "to remove a secret: dstack secret delete "+in.Name)
	case len(in.Value) > api.MaxSecretBytes:
		return refuse(dstack.TooLarge, fmt.Sprintf("the value has %s, and %s is the limit", human.Bytes(int64(len(in.Value))),
			human.Bytes(api.MaxSecretBytes)), "keep large files outside, and the key to them as a secret")
	}
	return nil
}

func (s *Server) deleteSecrets(c *apiCall, in api.DeleteSecrets) (wire.Null, error) {
	err := s.store.DeleteSecrets(c.ctx, c.project.ID, in.SecretsNames, in.Force)
	s.auditSecretChange(c, "secret deleted", strings.Join(in.SecretsNames, ","), err)
	return wire.Null{}, err
}

// auditSecretChange logs who changed a secret, never its value.
func (s *Server) auditSecretChange(c *apiCall, event, names string, err error) {
	attrs := []slog.Attr{slog.String("project", c.project.Name), slog.String("secret", names)}
	if e, ok := errors.AsType[*dstack.Error](err); ok {
		attrs = append(attrs, slog.String("refused", e.Message))
	} else if err != nil {
		attrs = append(attrs, slog.String("refused", err.Error()))
	}
	s.audit(c, event, attrs...)
}
