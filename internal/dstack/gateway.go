package dstack

import (
	"time"

	"dstack/internal/spec"
)

// GatewayID identifies a gateway of a project.
type GatewayID string

// Gateway publishes the services of a project below a domain. The requests are
// served by its processes: the server itself (backend local), processes on hosts
// of fleets (backend ssh), or processes that joined with a token (any backend).
type Gateway struct {
	ID            GatewayID
	Project       ProjectID
	ProjectName   string
	Name          string          // unique in the project
	Domain        string          // lower case, without *. before it; empty: none
	Earlier       []EarlierDomain // what it goes on serving for a while after a change, the newest first
	Configuration spec.Gateway    // as it was applied last; values of secrets are sealed in the store
	IsDefault     bool            // of its project: services that name no gateway have their URL there
	Author        string          // name of the user who applied it last
	CreatedAt     time.Time
	AppliedAt     time.Time // when it was applied last
	IsDeleting    bool      // its deletion was requested; it exists until its processes are gone
	Problem       Reason    // why the server cannot start its processes; empty: it can
	Status        GatewayStatus
	Reason        Reason // why it has this status, or what is missing; for the user
	Processes     []GatewayProcess
}

// EarlierDomain is a domain that a gateway had, or how it served the one that it has: what clients use goes on being served
// until then.
type EarlierDomain struct {
	Domain string
	Until  time.Time
	// Certificate is where its certificates were from, without the settings that obtaining one needs: none is obtained any
	// more. nil: plain HTTP.
	Certificate *spec.Certificate
}

// EarlierDomainTime is how long a gateway goes on serving what a change ended.
const EarlierDomainTime = time.Hour

// HasStartedProcesses reports whether the server starts the processes of the gateway on other machines, and has to end them.
func (g Gateway) HasStartedProcesses() bool {
	return g.Configuration.Backend == spec.BackendSSH || g.Configuration.Backend == spec.BackendKubernetes
}

// GatewayStatus is the status of a gateway; the values are those of the wire format.
type GatewayStatus string

// The statuses of a gateway.
const (
	GatewaySubmitted    GatewayStatus = "submitted"    // nothing was done for it yet
	GatewayProvisioning GatewayStatus = "provisioning" // its processes are being started, or none has joined yet
	GatewayRunning      GatewayStatus = "running"      // at least one process serves
	GatewayFailed       GatewayStatus = "failed"       // it cannot serve until somebody mends what Reason says
)

// GatewayProcess is one process that serves a gateway.
type GatewayProcess struct {
	ID           string // generated when it joined; its name in load reports
	Gateway      GatewayID
	Host         InstanceID // the host of a fleet on which the server started it; empty: it is elsewhere
	Name         string     // of its machine, for people
	Version      string     // of its program
	IsRemoved    bool       // it may not serve any more
	Address      string     // at which clients reach it, if that is known
	HTTPSPort    int        // on which it serves TLS; 0: it does not
	HTTPPort     int        // on which it serves plain HTTP; 0: it does not
	JoinedAt     time.Time
	SeenAt       time.Time // when it reported last
	TableVersion uint64    // of the route table that it serves by
	Certificates []CertificateStatus
	Problems     []string // what keeps it from serving completely, for the user: a port that is taken
}

// GatewaySilence is after how long without a report a process counts as gone.
const GatewaySilence = 10 * time.Second

// CertificateState is the state of one certificate of a gateway.
type CertificateState string

// The states of a certificate.
const (
	CertificatePending CertificateState = "pending" // it is being issued, or waits for its turn
	CertificateValid   CertificateState = "valid"
	CertificateFailing CertificateState = "failing" // the present one is valid, and cannot be renewed
	CertificateMissing CertificateState = "missing" // there is none, and the last try failed
)

// CertificateStatus says what is known of one certificate. Its JSON form is in the reports of gateways.
type CertificateStatus struct {
	Name      string           `json:"name"` // the name that it is for: example.com or *.example.com
	State     CertificateState `json:"state"`
	Issuer    string           `json:"issuer,omitempty"`
	NotAfter  time.Time        `json:"not_after,omitzero"`
	Reason    string           `json:"reason,omitempty"`     // what is missing or failed, for the user
	Hint      string           `json:"hint,omitempty"`       // what the user can do
	NextAt    time.Time        `json:"next_at,omitzero"`     // of the next try
	Queue     int              `json:"queue,omitempty"`      // its place among those that wait, from 1
	Queued    int              `json:"queued,omitempty"`     // how many wait
	IsEarlier bool             `json:"is_earlier,omitempty"` // it is of the earlier configuration, until there is one of the present one
}

// HasCertificate reports whether there is a certificate, which may have expired. While another one is being issued in its
// place, that is the present one.
func (c CertificateStatus) HasCertificate() bool {
	return c.State == CertificateValid || c.State == CertificateFailing || c.State == CertificatePending && !c.NotAfter.IsZero()
}
