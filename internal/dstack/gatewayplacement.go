package dstack

import "time"

// GatewayPlacementID identifies a gateway process on a host, over all versions of its program.
type GatewayPlacementID string

// GatewayPlacement is a process of a gateway that the server runs on a host of a fleet.
type GatewayPlacement struct {
	ID          GatewayPlacementID
	Gateway     GatewayID
	Host        InstanceID
	HostName    string
	Program     GatewayProgram // that it is to run
	Port        int            // of the host's loopback interface, where the process reaches the server
	Phase       GatewayPhase
	Reason      Reason // why it has this phase, or what is missing; for the user
	Since       time.Time
	CreatedAt   time.Time
	Failures    int       // starts that failed in a row
	NextAt      time.Time // of the next start after a failure
	SilentSince time.Time // since when its host has not answered; zero: it answers
}

// GatewayPhase is the phase of a GatewayPlacement.
type GatewayPhase string

// The phases of a placement.
const (
	GatewayStarting GatewayPhase = "starting"
	GatewayServing  GatewayPhase = "serving" // its process reports to a server
	GatewayLeaving  GatewayPhase = "leaving" // it is being removed
)

// GatewayProgram identifies the program of a gateway process. A server can install only its own.
type GatewayProgram struct {
	Digest  string // SHA-256, hexadecimal
	Version string
	// Owner is the server that chose the program, and OwnerSeenAt when it last did anything for the gateway. The programs of
	// several servers may differ, and only one of them decides.
	Owner       string
	OwnerSeenAt time.Time
}

// GatewayContainer is a gateway process as the engine of its host reports it.
type GatewayContainer struct {
	Placement GatewayPlacementID
	Program   string // its digest
	State     GatewayContainerState
	Message   string // what it is doing, or why it ended; for the user
	StartedAt time.Time
}

// GatewayContainerState is the state of a GatewayContainer.
type GatewayContainerState string

// The states of a container.
const (
	GatewayContainerStarting GatewayContainerState = "starting" // its program is being copied, or it is being created
	GatewayContainerRunning  GatewayContainerState = "running"
	GatewayContainerEnded    GatewayContainerState = "ended"  // and its engine does not start it again
	GatewayContainerFailed   GatewayContainerState = "failed" // it was not started, or ends again and again
)
