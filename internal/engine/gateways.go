package engine

import (
	"context"
	"io"

	"dstack/internal/dstack"
)

// Gateways is implemented by engines that run gateway processes on their machine, from the server's own program; ask with a
// type assertion on an Engine. The rules of Engine for goroutines, repeated calls and time apply. A container is identified by
// its placement and the digest of its program. It outlives the server, and a restart of its machine.
type Gateways interface {
	// StartGateway starts a container and returns at once; ListGateways tells the progress and the failure. It does nothing if
	// the container runs, or is being started. Containers of other programs go on, and are not started again when they end:
	// the new process takes their sockets over. It fails with Unsupported on a machine that cannot run it.
	StartGateway(ctx context.Context, launch GatewayLaunch) error

	// ListGateways returns every container of the installation, and those that are being started or have failed to. Absence
	// means that there is no container.
	ListGateways(ctx context.Context) ([]dstack.GatewayContainer, error)

	// RemoveGateway ends a container, which finishes its requests first, and removes it. It returns at once; ListGateways
	// lists the container until it is gone.
	RemoveGateway(ctx context.Context, id dstack.GatewayPlacementID, program string) error

	// DeleteGatewayState deletes what the processes of a placement keep on the machine. It fails with Conflict while there
	// is a container. It is no error if there is nothing.
	DeleteGatewayState(ctx context.Context, id dstack.GatewayPlacementID) error
}

// GatewayLaunch is how to start a gateway process.
type GatewayLaunch struct {
	Placement dstack.GatewayPlacementID
	Gateway   string  // its name, for people
	Program   Program // Open is not called if the machine has the program already
	Env       map[string]string
	// Token returns a new token with which the process joins, if it has not joined before. It is called once the program is
	// on the machine, because tokens expire.
	Token func(ctx context.Context) (string, error)
}

// Program is a program for other machines.
type Program struct {
	Digest string // SHA-256, hexadecimal
	OS     string // as Go names it
	Arch   string // as Go names it
	Bytes  int64
	Open   func() (io.ReadCloser, error)
}

// Names of the variables and folders of a gateway process that both an engine and the process know.
const (
	GatewayStateFolder = "/state"
	GatewayTokenFile   = GatewayStateFolder + "/join-token"
)
