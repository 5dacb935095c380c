package gatewaylink

import (
	"context"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// JoinOptions configure Join. Dir is required.
type JoinOptions struct {
	Dir     string   // the folder of the process
	Servers []string // URLs; empty: those that the folder knows
	Token   string   // of `dstack gateway token`; empty: the process joined before
	Name    string   // of the machine, for people
	Address string   // at which clients reach it; empty: unknown
	Version string   // of the program
	Log     *slog.Logger
}

// How long Join waits between two tries while no server answers.
const (
	minJoinRetry = 500 * time.Millisecond
	maxJoinRetry = 10 * time.Second
)

// Join returns the identity of the process in a folder. With a token that the folder does not know it joins a
// gateway, and tries until a server answers or ctx ends. A token that the process joined with before is ignored, so
// that a unit may keep it.
func Join(ctx context.Context, o JoinOptions) (Identity, error) {
	identity, err := readIdentity(o.Dir)
	if err != nil {
		return Identity{}, err
	}
	if len(o.Servers) > 0 {
		identity.Servers = o.Servers
	}
	if o.Token == "" {
		if identity.ID == "" {
			return Identity{}, &dstack.Error{Kind: dstack.Invalid, Message: "this machine has joined no gateway yet",
				Hint: "make a token on your machine: dstack gateway token NAME; it prints the command for this one"}
		}
		return identity, identity.save(o.Dir)
	}
	token, err := api.ParseJoinToken(o.Token)
	if err != nil {
		return Identity{}, err
	}
	if identity.ID != "" && identity.TokenHash == token.Hash() {
		return identity, identity.save(o.Dir)
	}
	return joinWith(ctx, o, identity, token)
}

// joinWith joins with a token. What the folder has of another gateway is removed.
func joinWith(ctx context.Context, o JoinOptions, identity Identity, token api.JoinToken) (Identity, error) {
	if identity.ID != "" {
		servers := identity.Servers
		identity = newIdentity()
		identity.Servers = servers
		for _, name := range []string{stateName, loadsName} {
			if err := os.Remove(filepath.Join(o.Dir, name)); err != nil && !os.IsNotExist(err) {
				return Identity{}, err
			}
		}
	}
	identity.TokenHash, identity.Fingerprint = token.Hash(), ""
	if token.Fingerprint != [32]byte{} {
		identity.Fingerprint = hex.EncodeToString(token.Fingerprint[:])
	}
	if err := identity.save(o.Dir); err != nil { // before the first call: it may be repeated with the same credential
		return Identity{}, err
	}
	all, err := newServers(identity.Servers, "", identity.Fingerprint)
	if err != nil {
		return Identity{}, err
	}
	joined, err := callUntilAnswered(ctx, all, o.Log, func(ctx context.Context, client *api.Client) (api.JoinedGateway, error) {
		return client.JoinGateway(ctx, api.JoinGateway{Token: o.Token, Credential: identity.credentialHash(), Name: o.Name,
			Version: o.Version, Machine: MachineID(), Address: o.Address})
	})
	if err != nil {
		return Identity{}, err
	}
	identity.ID, identity.Gateway, identity.Project, identity.Domain = joined.ID, joined.Gateway, joined.Project, joined.Domain
	return identity, identity.save(o.Dir)
}

// callUntilAnswered calls one server after the other until one of them answers.
func callUntilAnswered[T any](ctx context.Context, all *servers, log *slog.Logger, call func(context.Context, *api.Client) (T, error)) (T, error) {
	wait := minJoinRetry
	for {
		used := all.currentServer()
		answer, err := call(ctx, used.client)
		if err == nil || !isAway(err) {
			return answer, err
		}
		all.leaveServer(used)
		log.Warn("no server answers; trying again", "server", used.url, "err", err, "again_in", wait)
		if err := loop.Sleep(ctx, wait); err != nil {
			return answer, err
		}
		wait = min(2*wait, maxJoinRetry)
	}
}

// isAway reports whether an error says nothing but that the server cannot answer now.
func isAway(err error) bool {
	return slices.Contains([]dstack.Kind{dstack.Unavailable, dstack.Timeout, dstack.Internal}, dstack.KindOf(err))
}
