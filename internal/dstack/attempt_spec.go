package dstack

import (
	"encoding/json"
	"path"
	"strings"
	"time"

	"dstack/internal/spec"
)

// BaseImage is the format of the image for services that name none. The verb
// takes the Python version; services with nvcc add the suffix "-devel".
const BaseImage = "dstackai/base:py%s-0.5-cuda-12.1"

// PythonImage is the format of the image for Python versions that BaseImage does not have.
const PythonImage = "python:%s"

// DefaultPython is the Python version of the base image when the service
// names none.
const DefaultPython = "3.10"

// PortVariable is the environment variable that tells a replica its port.
const PortVariable = spec.PortVariable

// AttemptSpec is everything that an engine needs to run one attempt.
type AttemptSpec struct {
	Attempt         AttemptID
	AttemptNum      int
	Replica         ReplicaID
	ReplicaNum      int
	Run             string            // name of the run
	Project         string            // name of the project
	Image           string            // always set; the process engine ignores it
	Auth            *RegistryAuth     // login for the image; nil: none
	Argv            []string          // command line in the container; empty: the image's own command
	Script          string            // the same commands joined into one shell script, for the process engine
	WorkingDir      string            // relative to the uploaded code, or absolute in a container; empty: the image's own, and no code is copied
	Env             map[string]string // the complete environment, DSTACK_* variables included
	Port            int
	ChoosePort      bool         // an engine whose attempts share ports chooses the port, and sets PORT in Env to it
	ShmBytes        int64        // size of /dev/shm; 0: the engine's default
	CPUs            int          // limit; 0: none
	MemoryMiB       int64        // limit; 0: none
	GPUs            []GPU        // the only GPUs that the attempt can see
	Claim           Claim        // what its replica holds of the machine: its CPUs, memory and disk are reserved for the attempt
	Nodes           NodeSelector // on any node of a cluster: where it may run; empty: anywhere
	Mounts          []Mount      // files from outside that the attempt can see
	CodeHash        string
	CodeRepo        string
	CodeProject     ProjectID
	CodePath        string        // of the code, relative to the working directory, absolute, or below ~; empty: the code folder itself
	KeepsCodePath   bool          // the code is left out if CodePath exists and is not empty; otherwise that is an error
	Files           []FileArchive // are put at their paths, in this order, after the code
	Checkout        *Checkout     // the code is a commit of a git repository, and CodeHash the changes to it; nil: it is an archive
	StopGracePeriod time.Duration // time between SIGTERM and SIGKILL
	ReadyProbe      *spec.Probe   // what a cluster shows as the readiness, for others to see: the server sends the probes and decides; nil: the port is open
	DrainTimeout    time.Duration // how long what is in flight may go on when someone else ends the attempt
}

// HasCode reports whether the attempt needs a folder of code.
func (s AttemptSpec) HasCode() bool { return s.CodeHash != "" || s.Checkout != nil }

// FileArchive is an uploaded file or folder, and its path in replicas.
type FileArchive struct {
	ID   string `json:"id,omitempty"`   // empty: not uploaded yet
	Hash string `json:"hash,omitempty"` // SHA-256 of the archive
	Path string `json:"path"`           // relative to the working directory, absolute, or below ~
}

// CodeFolder is the folder of uploaded code in a container.
const CodeFolder = "/workflow"

// FindPathInFolder returns a path of FileArchive or of the code relative to the code folder.
// A relative path is relative to workingDir. ok is false if the path is outside of the code
// folder.
func FindPathInFolder(workingDir, name string) (relative string, ok bool) {
	if IsInHome(name) {
		return "", false
	}
	if relative = path.Clean(name); !path.IsAbs(relative) {
		relative = path.Join(workingDir, name)
	}
	if path.IsAbs(relative) {
		rest, isBelow := strings.CutPrefix(relative, CodeFolder)
		return path.Clean("." + rest), isBelow && (rest == "" || rest[0] == '/')
	}
	return relative, relative != ".." && !strings.HasPrefix(relative, "../")
}

// IsInHome reports whether a path begins with the home directory, ~.
func IsInHome(name string) bool { return name == "~" || strings.HasPrefix(name, "~/") }

// Checkout is a commit of a git repository.
type Checkout struct {
	Branch      string
	Hash        string
	AuthorName  string // git's user.name in the working folder; empty: none
	AuthorEmail string
	User        UserID // whose access reads the repository
}

// Mount makes files from outside of an attempt visible in it. They outlive the attempt.
// Engines mount every host path that they are asked to; the server decides which host
// paths a user may have.
type Mount struct {
	Source   string // of MountVolume: the volume's name; of MountHostPath: an absolute path of the machine
	Target   string // an absolute path in the container
	ReadOnly bool
	Kind     MountKind
	IsKept   bool // of MountVolume: engine.Volumes created it, and an attempt must not start without its data
	OneNode  bool // of MountClaim: only the pods of one node can mount it at the same time
	Optional bool // of MountHostPath: the attempt starts without it if the path does not exist
}

// MountKind says what the source of a mount is.
type MountKind string

// Every kind of mount.
const (
	MountVolume   MountKind = "volume"    // a named volume, which the engine creates if it does not exist
	MountHostPath MountKind = "host_path" // a file or folder of the machine, which must exist
	MountClaim    MountKind = "claim"     // a PersistentVolumeClaim of the cluster's namespace, which must exist; Source is its name
)

// RegistryAuth is a login to an image registry.
type RegistryAuth struct{ Username, Password string }

// Installation identifies the data directory of one dstack server. Engines
// label everything they create with it, so that two servers on one machine do
// not touch each other's containers and processes.
type Installation string

// JSON is a value that is stored and returned exactly as it was received.
type JSON = json.RawMessage
