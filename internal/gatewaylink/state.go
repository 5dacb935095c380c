package gatewaylink

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/decide/route"
)

// state is everything that a server told the process about its gateway. It is immutable.
type state struct {
	cursor string
	header api.StateHeader
	signed signedHeader
	parts  map[string]part

	settings api.GatewaySettings
	table    route.Table // Version and the hosts of targets are set by the Link
	hosts    map[string]api.GatewayHost
}

// signedHeader is the header as the installation signed it.
type signedHeader struct {
	Header    string `json:"header"`
	Signature []byte `json:"signature"`
	Key       []byte `json:"key"`
}

// part is one part of a state.
type part struct {
	text   json.RawMessage
	digest [sha256.Size]byte
	route  *route.Route // of PartRoutePrefix
}

// errStale says that an answer does not continue the state that the process has. It then asks for all parts.
var errStale = errors.New("the answer does not continue the present state")

// apply returns the state that follows from an answer of a server. before may be nil. It verifies that the
// installation signed exactly this state, for this process.
func (before *state) apply(answer api.GatewayState, process string) (*state, error) {
	after := &state{cursor: answer.Cursor, signed: signedHeader{answer.Header, answer.Signature, answer.Key}}
	switch {
	case answer.Complete:
		after.parts = make(map[string]part, len(answer.Parts))
	case before == nil:
		return nil, errStale
	default:
		after.parts = maps.Clone(before.parts)
	}
	for _, p := range answer.Parts {
		changed, err := readPart(p)
		if err != nil {
			return nil, err
		}
		after.parts[p.Name] = changed
	}
	for _, name := range answer.Removed {
		delete(after.parts, name)
	}
	if err := after.verifySignature(process); err != nil {
		return nil, err
	}
	return after, after.readParts(before, answer)
}

func readPart(p api.StatePart) (part, error) {
	read := part{text: p.Text, digest: api.DigestPart(p.Text)}
	if strings.HasPrefix(p.Name, api.PartRoutePrefix) {
		read.route = &route.Route{}
		if err := json.Unmarshal(p.Text, read.route); err != nil {
			return part{}, fmt.Errorf("read the part %s of the state: %w", p.Name, err)
		}
	}
	return read, nil
}

// verifySignature checks the signature, and that it is that of the parts.
func (s *state) verifySignature(process string) error {
	if len(s.signed.Key) != ed25519.PublicKeySize ||
		!ed25519.Verify(s.signed.Key, []byte(api.StateContext+s.signed.Header), s.signed.Signature) {
		return errors.New("the state is not signed by the installation")
	}
	if err := json.Unmarshal([]byte(s.signed.Header), &s.header); err != nil {
		return fmt.Errorf("read the header of the state: %w", err)
	}
	if s.header.Process != process {
		return errors.New("the state is that of another process")
	}
	digests := make(map[string][sha256.Size]byte, len(s.parts))
	for name, p := range s.parts {
		digests[name] = p.digest
	}
	if api.DigestParts(digests) != s.header.Digest {
		return errStale
	}
	return nil
}

// readParts makes the table, the settings and the hosts from the parts. Those that did not change are taken from before.
func (s *state) readParts(before *state, answer api.GatewayState) error {
	if before == nil || answer.Complete {
		before = &state{hosts: map[string]api.GatewayHost{}}
		for name := range s.parts {
			answer.Parts = append(answer.Parts, api.StatePart{Name: name})
		}
	}
	s.settings, s.table, s.hosts = before.settings, before.table, before.hosts
	areRoutesChanged, areHostsChanged := false, false
	note := func(name string) {
		areRoutesChanged = areRoutesChanged || strings.HasPrefix(name, api.PartRoutePrefix)
		areHostsChanged = areHostsChanged || strings.HasPrefix(name, api.PartHostPrefix)
	}
	for _, changed := range answer.Parts {
		note(changed.Name)
		if err := s.readFixedPart(changed.Name); err != nil {
			return err
		}
	}
	for _, name := range answer.Removed {
		note(name)
	}
	if areRoutesChanged || s.table.Routes == nil {
		var isPatched bool
		if s.table.Routes, isPatched = s.patchRoutes(before.table.Routes, answer); !isPatched {
			s.table.Routes = s.listRoutes()
		}
	}
	if areHostsChanged {
		if err := s.readHosts(); err != nil {
			return err
		}
	}
	s.table.DrainSequence = s.header.DrainSequence
	return nil
}

// readFixedPart reads a part that is neither a route nor a host. Unknown parts are those of later versions.
func (s *state) readFixedPart(name string) error {
	var target any
	switch name {
	case api.PartSettings:
		s.settings = api.GatewaySettings{}
		target = &s.settings
	case api.PartTokens:
		s.table.Tokens = nil
		target = &s.table.Tokens
	case api.PartKeys:
		s.table.Keys = nil
		target = &s.table.Keys
	case api.PartGateways:
		s.table.Gateways = nil
		target = &s.table.Gateways
	case api.PartProjects:
		s.table.Projects = nil
		target = &s.table.Projects
	default:
		return nil
	}
	if err := json.Unmarshal(s.parts[name].text, target); err != nil {
		return fmt.Errorf("read the part %s of the state: %w", name, err)
	}
	return nil
}

// listRoutes returns the routes in a fixed order, the oldest first.
func (s *state) listRoutes() []route.Route {
	routes := make([]route.Route, 0, len(s.parts))
	for _, p := range s.parts {
		if p.route != nil {
			routes = append(routes, *p.route)
		}
	}
	slices.SortFunc(routes, compareRoutes)
	return routes
}

// compareRoutes orders routes, the oldest first.
func compareRoutes(a, b route.Route) int {
	if a.Since != b.Since {
		return int(min(max(a.Since-b.Since, -1), 1))
	}
	return strings.Compare(string(a.Run), string(b.Run))
}

// patchRoutes returns the routes before an answer with those that it changes in place. It does so only if the answer adds no
// route, removes none, and moves none to another place: most answers change one of many routes.
func (s *state) patchRoutes(before []route.Route, answer api.GatewayState) (routes []route.Route, isPatched bool) {
	if len(before) == 0 || len(answer.Parts) > maxPatchedRoutes || len(answer.Removed) > 0 {
		return nil, false
	}
	routes = slices.Clone(before)
	for _, changed := range answer.Parts {
		if !strings.HasPrefix(changed.Name, api.PartRoutePrefix) {
			continue
		}
		to := s.parts[changed.Name].route
		i, isKnown := slices.BinarySearchFunc(routes, *to, compareRoutes)
		if !isKnown {
			return nil, false
		}
		routes[i] = *to
	}
	return routes, true
}

const maxPatchedRoutes = 64 // more are sorted faster with all others

func (s *state) readHosts() error {
	s.hosts = map[string]api.GatewayHost{}
	for name, p := range s.parts {
		id, isHost := strings.CutPrefix(name, api.PartHostPrefix)
		if !isHost {
			continue
		}
		var host api.GatewayHost
		if err := json.Unmarshal(p.text, &host); err != nil {
			return fmt.Errorf("read the part %s of the state: %w", name, err)
		}
		s.hosts[id] = host
	}
	return nil
}

// complete returns the whole state as an answer that apply reads.
func (s *state) complete() api.GatewayState {
	answer := api.GatewayState{Cursor: s.cursor, Complete: true, Header: s.signed.Header, Signature: s.signed.Signature, Key: s.signed.Key}
	for _, name := range slices.Sorted(maps.Keys(s.parts)) {
		answer.Parts = append(answer.Parts, api.StatePart{Name: name, Text: s.parts[name].text})
	}
	return answer
}
