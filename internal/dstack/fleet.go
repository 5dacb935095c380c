package dstack

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"dstack/internal/spec"
)

// FleetID identifies a fleet.
type FleetID string

// Fleet is a set of machines that the runs of a project share: the user's own, reached by SSH, or rented ones.
type Fleet struct {
	ID            FleetID
	Project       ProjectID
	ProjectName   string
	Name          string     // unique in the project
	Configuration spec.Fleet // as it was applied last; it contains no keys
	Author        string     // name of the user who applied it last
	CreatedAt     time.Time
	AppliedAt     time.Time // when it was applied last
	IsDeleting    bool      // its deletion was requested; it exists until nothing runs on its hosts
	Hosts         []Host

	// The fields below are those of a cloud fleet, whose machines are rented.
	Profile   spec.Profile    // applies where Configuration sets nothing
	Instances []FleetInstance // without those that are gone, by number
	Rounds    FleetRounds
}

// IsRented reports whether the fleet's machines are rented.
func (f Fleet) IsRented() bool { return f.Configuration.SSH == nil }

// FleetInstance is a rented machine of a fleet.
type FleetInstance struct {
	Instance    Instance
	Num         int       // within the fleet; the lowest that was free
	CreatedAt   time.Time // when it was requested
	IsClustered bool      // it is close to the fleet's other machines, with a fast network between them
	IsDraining  bool      // by the user: it gets no new replicas, and its replicas are placed elsewhere
	IsLeaving   bool      // it gets no new replicas, and is deleted as soon as it has none
	Reason      Reason    // with IsLeaving: why, for the user
	Replicas    int       // unfinished ones on it
}

// FleetRounds is how far the rental of a fleet's missing machines is.
type FleetRounds struct {
	ReachedTarget bool      // the fleet had nodes.target machines since it was applied last; from then on the minimum counts
	MissingSince  time.Time // since when machines are missing that could not be rented; zero: none are
	Reason        Reason    // with MissingSince: why, for the user
	IsExhausted   bool      // the latest round found no machine to rent
	Failures      int       // rounds in a row that ended alike
	NextAt        time.Time // when the next round begins at the earliest
}

// Host is one machine of a fleet.
type Host struct {
	ID          InstanceID // also the ID of its instance, and of the host in endpoints
	Fleet       FleetID
	FleetName   string
	Project     ProjectID
	ProjectName string
	Num         int    // numbered from 0 within the fleet; never used again
	Name        string // the host name or address that the configuration has; the type of its offer
	Login       SSHLogin
	Jump        *SSHLogin         // the SSH server through which the host is reached; nil: directly
	Env         map[string]string // of every run on the host
	Resources   spec.Resources    // what its fleet asks every host for; only what is explicit counts
	IsDraining  bool              // gets no new replicas, and its replicas are placed elsewhere
	IsLeaving   bool              // not in the configuration any more: drained, and then removed
	CreatedAt   time.Time         // when it was added to the fleet
	AppliedAt   time.Time         // when its fleet was applied last; checks that began before do not count
	Check       HostCheck
}

// SSHLogin is how to log in to an SSH server.
type SSHLogin struct {
	Address      string // host:port
	User         string
	PrivateKey   string   // a PEM block or an OpenSSH key, without a passphrase; secret
	HostKey      string   // the pinned key, as in authorized_keys; empty: none was seen yet
	Fingerprints []string // SHA256:… of the host keys that the configuration allows; empty: the first key that is seen is pinned
}

// HostKeyFingerprint returns the fingerprint of a key in the form of
// authorized_keys, as ssh-keygen prints it; empty: it is not a key.
func HostKeyFingerprint(key string) string {
	_, data, _ := strings.Cut(strings.TrimSpace(key), " ")
	data, _, _ = strings.Cut(data, " ")
	raw, err := base64.StdEncoding.DecodeString(data)
	if err != nil || len(raw) == 0 {
		return ""
	}
	sum := sha256.Sum256(raw)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// IsChecked reports whether the host was checked since its fleet was applied last.
func (h Host) IsChecked() bool {
	return h.Check.Status != HostPending && !h.Check.CheckedAt.IsZero() && !h.Check.CheckedAt.Before(h.AppliedAt)
}

// HostStatus is the result of the latest check of a host.
type HostStatus string

// The statuses of a host.
const (
	HostPending     HostStatus = "pending"     // not checked yet
	HostReady       HostStatus = "ready"       // can run replicas
	HostFailed      HostStatus = "failed"      // a check failed: the user has to mend something
	HostUnreachable HostStatus = "unreachable" // was ready, and does not answer now
)

// HostStep is one step of the check of a host. The steps are made in this order.
type HostStep string

// The steps of a check.
const (
	HostStepConnect   HostStep = "connect"   // the address answers
	HostStepHostKey   HostStep = "host key"  // its key is the pinned one
	HostStepLogin     HostStep = "login"     // the user's key is accepted
	HostStepShell     HostStep = "shell"     // commands run, and print only their own output
	HostStepDocker    HostStep = "docker"    // the Docker Engine answers, and is new enough
	HostStepHardware  HostStep = "hardware"  // CPUs, memory, disk and GPUs are known
	HostStepIdentity  HostStep = "identity"  // no other host is the same machine
	HostStepResources HostStep = "resources" // it has what the fleet's resources ask for
)

// HostCheck is what the latest check of a host found. Its JSON form is stored in the database.
type HostCheck struct {
	Status    HostStatus
	Step      HostStep  // with HostFailed and HostUnreachable: the step that failed
	Message   string    // with HostFailed and HostUnreachable: why, for the user
	Hint      string    // what the user can do; may be empty
	AppliedAt time.Time // Host.AppliedAt of the host that was checked
	CheckedAt time.Time // when the check ended
	Since     time.Time // since when the status has been the same
	NextAt    time.Time // when the host is checked again
	Failures  int       // failed checks in a row
	Found     HostFacts // what the latest successful steps found, also of earlier checks
}

// HostFacts is what a check found on a host. A zero field is not known.
type HostFacts struct {
	System        string // such as Debian GNU/Linux 13
	MachineID     string // identifies the machine, such as /etc/machine-id with its boot ID
	EngineID      string // the Docker Engine's own ID
	DockerVersion string // such as 28.2.2
	DockerAPI     string // such as 1.41
	DockerAccess  DockerAccess
	DriverVersion string // of its GPUs
	Hardware      Hardware
	Warnings      []string // for the user: what does not stop the host from being used
}

// DockerAccess is how the Docker Engine of a host is reached.
type DockerAccess string

// The ways to a Docker Engine.
const (
	DockerSocket    DockerAccess = "socket"     // its socket is forwarded by SSH
	DockerStdio     DockerAccess = "stdio"      // docker system dial-stdio
	DockerSudoStdio DockerAccess = "sudo stdio" // sudo -n docker system dial-stdio
)
