package server

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/origin"
	"dstack/internal/server/store"
)

// defaultGatewayTokenLife is how long a token of a gateway may be used if the caller does not say.
const defaultGatewayTokenLife = time.Hour

// maxHostName is the maximum length of the name of a host.
const maxHostName = 253

// createGatewayToken makes a token with which one process joins a gateway.
func (s *Server) createGatewayToken(c *apiCall, in api.CreateGatewayToken) (api.GatewayToken, error) {
	g, err := s.store.FindGateway(c.ctx, c.project.ID, in.Name)
	if err != nil {
		return api.GatewayToken{}, err
	}
	life := defaultGatewayTokenLife
	if in.ExpiresSeconds > 0 {
		life = time.Duration(in.ExpiresSeconds) * time.Second
	}
	text, expiresAt, err := s.newGatewayToken(c, g, life)
	if err != nil {
		return api.GatewayToken{}, err
	}
	s.audit(c, "a token for a gateway was made", slog.String("gateway", g.Name), slog.Time("until", expiresAt))
	url := origin.ClientOf(c.r, s.proxies).Origin.String()
	return api.GatewayToken{Token: text, Gateway: g.Name, Domain: g.Domain, ServerURL: url, ExpiresAt: expiresAt}, nil
}

func (s *Server) newGatewayToken(c *apiCall, g dstack.Gateway, life time.Duration) (text string, expiresAt time.Time, err error) {
	if g.IsDeleting {
		return "", expiresAt, &dstack.Error{Kind: dstack.Conflict, Message: "the gateway " + g.Name + " is being deleted"}
	}
	if s.hasServerName(g.Domain) && !c.isGlobalAdmin() {
		return "", expiresAt, &dstack.Error{Kind: dstack.Forbidden, Message: "only global admins may let other machines serve the domain " + g.Domain + ": the server's own name is in it",
			Hint: "ask one of them for the token"}
	}
	token := api.NewJoinToken(s.authorityFingerprint())
	expiresAt = now().Add(life)
	err = s.store.CreateGatewayToken(c.ctx, store.GatewayToken{Hash: token.Hash(), Gateway: g.ID, User: c.user.Name, ExpiresAt: expiresAt}, now())
	return token.String(), expiresAt, err
}

// authorityFingerprint returns the fingerprint of the installation authority; zero: there is none.
func (s *Server) authorityFingerprint() (fingerprint [32]byte) {
	if raw, err := hex.DecodeString(s.links.Fingerprint); err == nil && len(raw) == len(fingerprint) {
		fingerprint = [32]byte(raw)
	}
	return fingerprint
}

// joinGateway lets a process that has a token serve a gateway. The token is its only right to call this.
func (s *Server) joinGateway(c *apiCall, in api.JoinGateway) (api.JoinedGateway, error) {
	var none api.JoinedGateway
	token, err := api.ParseJoinToken(in.Token)
	if err != nil {
		return none, err
	}
	if err := gateway.CheckVersions(in.Version, s.version); err != nil {
		return none, err
	}
	if hash, err := hex.DecodeString(in.Credential); err != nil || len(hash) != sha256.Size || max(len(in.Name), len(in.Address)) > maxHostName {
		return none, &dstack.Error{Kind: dstack.Invalid, Message: "the request of the gateway process is malformed: credential is a SHA-256, and name and address are those of a host"}
	}
	p, err := s.store.JoinGateway(c.ctx, token.Hash(), in.Credential, dstack.GatewayProcess{ID: uuid.NewString(), Name: in.Name, Address: in.Address}, now())
	if err != nil {
		s.audit(c, "a process may not join a gateway", slog.String("why", err.Error()))
		return none, err
	}
	g, err := s.store.Gateway(c.ctx, p.Gateway)
	if err != nil {
		return none, err
	}
	p.Version = in.Version
	if err := s.store.SaveGatewayProcess(c.ctx, p, now()); err != nil {
		return none, err
	}
	s.audit(c, "a process joined a gateway", slog.String("gateway", g.Name), slog.String("project", g.ProjectName), slog.String("name", in.Name))
	s.notifyChange()
	return api.JoinedGateway{ID: p.ID, Gateway: g.Name, Project: g.ProjectName, Domain: g.Domain}, nil
}
