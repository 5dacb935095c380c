package dstack

import (
	"encoding/json"
	"time"
)

// BaseImage is what a service runs in when it names no image: the variant is
// the Python version, with "-devel" behind it when nvcc is asked for.
const BaseImage = "dstackai/base:py%s-0.5-cuda-12.1"

// DefaultPython is the Python of the base image when none is named.
const DefaultPython = "3.10"

// AttemptSpec is all that an engine needs to know to run one attempt.
type AttemptSpec struct {
	Attempt         AttemptID
	AttemptNum      int
	Replica         ReplicaID
	ReplicaNum      int
	Run             string // its name
	Project         string
	Image           string            // always set; process engines do not look at it
	Auth            *RegistryAuth     // nil: none
	Argv            []string          // in a container; empty: the image's own command
	Script          string            // the commands joined, for a shell on the machine itself
	WorkingDir      string            // below the code's folder; empty: the image's own, and no code
	Env             map[string]string // complete, DSTACK_* included
	Port            int
	ShmBytes        int64 // 0: the engine's default
	CPUs            int   // 0: no limit
	MemoryMiB       int64 // 0: no limit
	GPUs            []GPU // to be given to it, and no others
	Mounts          []Mount
	CodeHash        string
	CodeRepo        string
	CodeProject     ProjectID
	StopGracePeriod time.Duration // from SIGTERM to SIGKILL
}

// Mount makes files from outside of an attempt visible in it. They outlive the attempt.
// Engines mount every host path that they are asked to; the server decides which host
// paths a user may have.
type Mount struct {
	Source   string // of MountVolume: the volume's name; of MountHostPath: an absolute path of the machine
	Target   string // an absolute path in the container
	ReadOnly bool
	Kind     MountKind
}

// MountKind says what the source of a mount is.
type MountKind string

// Every kind of mount.
const (
	MountVolume   MountKind = "volume"    // a named volume, which the engine creates if it does not exist
	MountHostPath MountKind = "host_path" // a file or folder of the machine, which must exist
)

// RegistryAuth is a login to an image registry.
type RegistryAuth struct{ Username, Password string }

// Installation names one dstack server's data: engines label what they make
// with it, so that two servers on one machine leave each other's alone.
type Installation string

// JSON is a value kept as it came.
type JSON = json.RawMessage
