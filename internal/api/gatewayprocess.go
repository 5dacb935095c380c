package api

import (
	"context"
	"encoding/json"
	"time"

	"dstack/internal/dstack"
)

// Paths of gateway processes: `dstack gateway serve`. Only a process may call those below gateway_processes, with
// the credential that it joined with, which opens nothing else.
const (
	PathGatewayToken   = ProjectPrefix + "/gateways/create_token"
	PathGatewayJoin    = "/api/gateway_processes/join"
	PathGatewayState   = "/api/gateway_processes/state"
	PathGatewayReport  = "/api/gateway_processes/report"
	PathGatewayConnect = "/api/gateway_processes/connect" // of an UpgradeConnect: then a TCP connection to a replica
	PathGatewayStorage = "/api/gateway_processes/storage"
)

// CreateGatewayToken is the body of gateways/create_token.
type CreateGatewayToken struct {
	Name           string `json:"name"` // of the gateway
	ExpiresSeconds int    `json:"expires_seconds,omitempty" minimum:"0" maximum:"604800"`
}

// GatewayToken answers gateways/create_token. It is the only place that shows the token.
type GatewayToken struct {
	Token     string    `json:"token"` // see JoinToken
	Gateway   string    `json:"gateway"`
	Domain    string    `json:"domain"`
	ServerURL string    `json:"server_url"` // by which the caller reached the server
	ExpiresAt time.Time `json:"expires_at"`
}

// JoinGateway is the body of gateway_processes/join. The process makes its own
// credential and sends only the digest, so that it may repeat the call when the
// answer was lost. Another process with the same token is refused.
type JoinGateway struct {
	Token      string `json:"token"`
	Credential string `json:"credential" pattern:"^[0-9a-f]{64}$"` // SHA-256 of the credential, hexadecimal
	Name       string `json:"name" maxLength:"253"`                // of the machine, for people
	Version    string `json:"version" maxLength:"100"`             // of the program
	Machine    string `json:"machine" maxLength:"200"`             // its boot and network namespace; see gatewaylink.MachineID
	Address    string `json:"address" maxLength:"253"`             // at which clients reach it; empty: unknown
}

// JoinedGateway answers gateway_processes/join.
type JoinedGateway struct {
	ID      string `json:"id"` // of the process
	Gateway string `json:"gateway"`
	Project string `json:"project"`
	Domain  string `json:"domain"`
}

// GatewayStateRequest is the body of gateway_processes/state. The call returns once
// the state is another one than that of the cursor, or after WaitSeconds.
type GatewayStateRequest struct {
	Cursor      string `json:"cursor"` // of the state that the process has; empty: none
	WaitSeconds int    `json:"wait_seconds" minimum:"0" maximum:"60"`
	Version     string `json:"version" maxLength:"100"` // of the program
	Machine     string `json:"machine" maxLength:"200"`
}

// GatewayState answers gateway_processes/state: what changed since the cursor of
// the request, or everything.
type GatewayState struct {
	Cursor string `json:"cursor"`
	// Complete says that Parts are all parts. Otherwise they replace or add parts
	// of the state that the process has.
	Complete bool        `json:"complete,omitempty"`
	Parts    []StatePart `json:"parts,omitempty"`
	Removed  []string    `json:"removed,omitempty"` // names of parts
	// Header is the JSON of a StateHeader. It is text, because Signature is that of these very bytes.
	Header    string `json:"header"`
	Signature []byte `json:"signature"` // Ed25519
	Key       []byte `json:"key"`       // the public key of the installation for states
}

// StatePart is one part of a state. A part has the name that StateParts lists, or
// begins with one of its prefixes.
type StatePart struct {
	Name string          `json:"name"`
	Text json.RawMessage `json:"text"`
}

// The names of parts.
const (
	PartSettings     = "settings" // GatewaySettings
	PartTokens       = "tokens"   // route.Table.Tokens
	PartKeys         = "keys"     // route.Table.Keys
	PartGateways     = "gateways" // route.Table.Gateways
	PartProjects     = "projects" // route.Table.Projects
	PartRoutePrefix  = "route/"   // and the ID of a run: route.Route
	PartHostPrefix   = "host/"    // and the ID of a host: GatewayHost
	PartOthersPrefix = "x/"       // of later versions; this one ignores them
)

// StateHeader is what the signature of a state covers.
type StateHeader struct {
	Process string `json:"process"`
	// Host is the host of a fleet on which the process runs; empty: on none.
	Host string `json:"host,omitempty"`
	// ServerMachine is that of the server that answered; see gatewaylink.MachineID.
	ServerMachine string    `json:"server_machine,omitempty"`
	TableVersion  uint64    `json:"table_version"`
	DrainSequence int64     `json:"drain_sequence"`
	At            time.Time `json:"at"`
	// Digest is that of all parts; see DigestParts.
	Digest string `json:"digest"`
}

// GatewaySettings is how a process serves its gateway.
type GatewaySettings struct {
	Gateway     dstack.GatewayID    `json:"gateway"`
	Project     string              `json:"project"` // as users write it
	Name        string              `json:"name"`
	Domain      string              `json:"domain"`
	Certificate *GatewayCertificate `json:"certificate"` // null: plain HTTP
	// Earlier are the domains that the process goes on serving for a while.
	Earlier []EarlierDomain `json:"earlier,omitempty"`
	// TrustedProxies are those in front of the gateway, as CIDR.
	TrustedProxies []string `json:"trusted_proxies"`
	ServerURL      string   `json:"server_url"` // of the API, for messages and pages
	// SessionKey seals the cookies of browsers, and TicketKey TLS sessions, for all processes of the gateway.
	SessionKey []byte `json:"session_key"`
	TicketKey  []byte `json:"ticket_key"`
	ACME       ACME   `json:"acme"`
	// OfflineSeconds is for how long the process accepts tokens without word from a server.
	OfflineSeconds int `json:"offline_seconds"`
}

// EarlierDomain is a domain that a gateway had before a change. Its certificates are served as long as they are valid, and none
// is ordered.
type EarlierDomain struct {
	Domain      string              `json:"domain"`
	Certificate *GatewayCertificate `json:"certificate"` // null: plain HTTP
}

// GatewayCertificate is the source of the certificates of a gateway, with the values of its secrets.
type GatewayCertificate struct {
	Type  string      `json:"type"`
	Email string      `json:"email,omitempty"`
	Cert  string      `json:"cert,omitempty"`
	Key   string      `json:"key,omitempty"`
	DNS   *GatewayDNS `json:"dns,omitempty"`
}

// GatewayDNS says how DNS records of the domain are written.
type GatewayDNS struct {
	Provider string            `json:"provider"`
	Settings map[string]string `json:"settings,omitempty"`
}

// ACME is the server's configuration of the authority for certificates.
type ACME struct {
	Server  string `json:"server,omitempty"`
	KeyID   string `json:"key_id,omitempty"`
	HMACKey string `json:"hmac_key,omitempty"`
	Email   string `json:"email,omitempty"`
	Roots   string `json:"roots,omitempty"` // PEM
	Profile string `json:"profile,omitempty"`
	// HTTPPort and HTTPSPort are where it connects to for challenges; 0: 80 and 443.
	HTTPPort  int    `json:"http_port,omitempty"`
	HTTPSPort int    `json:"https_port,omitempty"`
	Resolvers string `json:"resolvers,omitempty"` // name servers, with commas
}

// GatewayHost is how a process reaches the replicas on a host of a fleet, or in a cluster.
type GatewayHost struct {
	ID    string           `json:"id"`
	Login dstack.SSHLogin  `json:"login"`
	Jump  *dstack.SSHLogin `json:"jump,omitempty"`
	// Authorities are the fingerprints of a cluster's authorities. A process in a pod of this cluster reaches its pods itself.
	Authorities []string `json:"authorities,omitempty"`
}

// GatewayReport is the body of gateway_processes/report.
type GatewayReport struct {
	Load         dstack.LoadReport          `json:"load"`
	TableVersion uint64                     `json:"table_version"`
	Version      string                     `json:"version"`
	Certificates []dstack.CertificateStatus `json:"certificates"`
	Problems     []string                   `json:"problems"`   // what keeps it from serving completely, for the user
	HTTPSPort    int                        `json:"https_port"` // on which it serves; 0: it does not
	HTTPPort     int                        `json:"http_port"`
	Leaving      bool                       `json:"leaving,omitempty"`
	// Apart tells a process that only finishes its requests, after it was replaced, from the one that serves; 0: it serves.
	Apart int `json:"apart,omitempty"`
}

// GatewayReported answers gateway_processes/report.
type GatewayReported struct {
	Load dstack.LoadAnswer `json:"load"`
}

// GatewayStorageRequest is one call of the storage for certificates, which all
// processes of a gateway share; see certificate.Storage.
type GatewayStorageRequest struct {
	Action  StorageAction `json:"action"`
	Key     string        `json:"key"` // the name of the lock with StorageLock and StorageUnlock
	Value   []byte        `json:"value,omitempty"`
	Owner   string        `json:"owner,omitempty"`   // of a lock
	Seconds int           `json:"seconds,omitempty"` // how long the lock is kept
}

// StorageAction is what a call of the storage does.
type StorageAction string

// The actions of the storage.
const (
	StorageLoad   StorageAction = "load"
	StorageStore  StorageAction = "store"
	StorageDelete StorageAction = "delete"
	StorageLock   StorageAction = "lock"
	StorageUnlock StorageAction = "unlock"
)

// GatewayStorageAnswer answers a GatewayStorageRequest.
type GatewayStorageAnswer struct {
	Value  []byte `json:"value,omitempty"`
	Exists bool   `json:"exists"` // with load: the key; with lock: the owner has the lock
}

// UpgradeConnect is the protocol that PathGatewayConnect upgrades to.
const UpgradeConnect = "dstack-connect"

// CreateGatewayToken returns a token for a process that joins a gateway.
func (c *Client) CreateGatewayToken(ctx context.Context, project string, ask CreateGatewayToken) (GatewayToken, error) {
	var token GatewayToken
	err := c.callOnce(ctx, projectPath(PathGatewayToken, project), ask, &token)
	return token, err
}

// JoinGateway joins a gateway. It may be repeated with the same credential.
func (c *Client) JoinGateway(ctx context.Context, ask JoinGateway) (JoinedGateway, error) {
	var joined JoinedGateway
	err := c.callOnce(ctx, PathGatewayJoin, ask, &joined)
	return joined, err
}

// GatewayState waits for another state than that of the cursor.
func (c *Client) GatewayState(ctx context.Context, ask GatewayStateRequest) (GatewayState, error) {
	var state GatewayState
	err := c.call(ctx, PathGatewayState, ask, &state, time.Duration(ask.WaitSeconds)*time.Second+pollGrace)
	return state, err
}

// ReportGateway reports what a process counts and how it is.
func (c *Client) ReportGateway(ctx context.Context, report GatewayReport) (GatewayReported, error) {
	var answer GatewayReported
	err := c.callOnce(ctx, PathGatewayReport, report, &answer)
	return answer, err
}

// CallGatewayStorage makes a call of the storage for certificates.
func (c *Client) CallGatewayStorage(ctx context.Context, ask GatewayStorageRequest) (GatewayStorageAnswer, error) {
	var answer GatewayStorageAnswer
	err := c.callOnce(ctx, PathGatewayStorage, ask, &answer)
	return answer, err
}
