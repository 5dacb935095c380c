package dstack

import (
	"strings"
	"time"
)

// Replica is one copy of a run's service. When its container is restarted,
// the replica keeps its number and its instance, and begins a new attempt.
type Replica struct {
	ID               ReplicaID
	Run              RunID
	Num              int    // numbered from 0 within the run, over all groups
	Group            string // the group of its revision's configuration that it belongs to
	Revision         int    // the run's Revision when the replica was created
	TemplateRevision int    // the run's TemplateRevision then; the replica is outdated once the run's differs
	Status           ReplicaStatus
	Reason           Reason
	Since            time.Time // when Status last changed
	Instance         InstanceID
	Claim            Claim     // what it holds of its instance; empty before placement
	Attempt          AttemptID // the current attempt; empty before placement
	AttemptNum       int       // numbered from 0
	AttemptAt        time.Time // when the current attempt began
	Crashes          int       // consecutive attempts that ended before the replica had stayed ready for a while
	FirstCrashAt     time.Time // when the first of them ended
	RetryAt          time.Time // when the back-off ends; zero: no back-off
	Graceful         bool      // draining and terminating: send SIGTERM and wait before SIGKILL
	DrainDeadline    time.Time // draining: when it ends even if requests are still in flight
	ReadyAt          time.Time // when the current or an earlier attempt first became ready; zero: never
	Blocked          bool      // waiting: only older replicas of the same run hold the capacity that it needs
	PastAttempts     []Attempt // the most recent attempts before the current one, oldest first
	SubmittedAt      time.Time
	FinishedAt       time.Time
	Version          int64 // increases with each save; saving an older version fails
}

// Attempt is one finished run of a replica's container. Its JSON form is
// stored in the database, so the tags keep the original key names.
type Attempt struct {
	ID         AttemptID
	Num        int
	StartedAt  time.Time    `json:"From"`
	EndedAt    time.Time    `json:"To"`
	Reason     Reason       // replica 0 exited with code 1 after 14s
	EndState   AttemptState `json:"Ending"`     // how it ended
	ExitCode   int          `json:"Exit"`       // set with AttemptExited
	LastOutput []string     `json:"LastOut"`    // its last lines of output
	NoNode     bool         `json:",omitempty"` // no node of a cluster took it within the cluster's limit
}

// ReplicaStatus is the phase of a replica's life.
type ReplicaStatus string

// The statuses of a replica.
const (
	ReplicaWaiting     ReplicaStatus = "waiting"     // has no instance yet
	ReplicaStarting    ReplicaStatus = "starting"    // placed on an instance, not ready yet
	ReplicaReady       ReplicaStatus = "ready"       // its port accepts connections, and its probes or its model check succeed; in the route table
	ReplicaUnhealthy   ReplicaStatus = "unhealthy"   // was ready and still runs, but its probes fail; receives no requests
	ReplicaRestarting  ReplicaStatus = "restarting"  // crashed; waits for the back-off before the next attempt
	ReplicaDraining    ReplicaStatus = "draining"    // receives no new requests; terminates once those in flight are done
	ReplicaTerminating ReplicaStatus = "terminating" // its container is being stopped
	ReplicaTerminated  ReplicaStatus = "terminated"  // ended because it was no longer needed
	ReplicaFailed      ReplicaStatus = "failed"      // ended because it gave up: no machine was available, or its attempts kept failing
)

// IsFinished reports whether the status is final.
func (s ReplicaStatus) IsFinished() bool { return s == ReplicaTerminated || s == ReplicaFailed }

// Claim is the share of an owned machine that is reserved for a replica. CPUs,
// MemoryMiB and DiskMiB are what the configuration asks for explicitly, and
// zero where it does not.
type Claim struct {
	CPUs      int    `json:"cpus,omitempty"`
	MemoryMiB int64  `json:"memory_mib,omitempty"`
	DiskMiB   int64  `json:"disk_mib,omitempty"`
	GPUs      []GPU  `json:"gpus,omitempty"`
	Ports     []int  `json:"ports,omitempty"` // ports of the machine; set if EngineCapabilities.SharesPorts
	Offer     string `json:"offer,omitempty"` // the instance type, for the user
	Whole     bool   `json:"whole,omitempty"` // the whole machine: it is rented
}

// AttemptState is the state of an attempt as its engine reports it.
type AttemptState string

// The states of an attempt.
const (
	AttemptPulling  AttemptState = "pulling"  // its image is being pulled
	AttemptStarting AttemptState = "starting" // its container or process is being created
	AttemptRunning  AttemptState = "running"
	AttemptExited   AttemptState = "exited"  // its process ended or was killed
	AttemptRefused  AttemptState = "refused" // could not be started; Report.Error says why
	AttemptAbsent   AttemptState = "absent"  // the engine does not know the attempt, or no longer does
)

// IsOver reports whether nothing of the attempt is running any more.
func (o AttemptState) IsOver() bool {
	return o == AttemptExited || o == AttemptRefused || o == AttemptAbsent
}

// Report is an engine's latest observation of an attempt. Its JSON form is
// stored in the database, so the tags keep the original key names.
type Report struct {
	Attempt   AttemptID
	State     AttemptState `json:"Outcome"`
	Ready     bool         // the port accepts connections
	Probes    *ProbeStatus `json:"Probed"` // of the probes or the model check; nil: there are none, or none has run yet
	Endpoint               // where the port is reached
	Progress  string       // for the user: pulling image 62% of 8.1GB, about 20s left
	ExitCode  int          // set with AttemptExited
	OOM       bool         // killed because it ran out of memory
	Error     string       // with AttemptRefused: why, and what to do about it
	Permanent bool         // with AttemptRefused: another attempt would fail in the same way
	// OtherMachine says, with AttemptRefused, that this machine cannot start it for a while and
	// another may: its disk is full.
	OtherMachine bool `json:",omitempty"`
	// Ending says why the cluster is ending an attempt that is not over, against the server's will: its pod was deleted or
	// evicted. The attempt gets no new connections, and the replica is replaced before it has ended. Empty: nothing ends it.
	Ending string `json:",omitempty"`
	// Disrupted says, with AttemptExited or Ending, that the machine or its cluster ended the attempt, not the
	// replica: its node was drained or lost, or something more important needed the place. The replica
	// is placed again, and it does not count as a crash. What may still run there is stopped by the engine.
	Disrupted  bool     `json:",omitempty"`
	LastOutput []string `json:"LastOut"` // the last 10 lines of output of an attempt that is over
	StartedAt  time.Time
	EndedAt    time.Time
	At         time.Time // when the engine observed this

	Node      string     `json:",omitempty"` // the node that runs it, where the cluster chooses the node; empty: not known yet, or another engine
	Port      int        `json:",omitempty"` // the port that the engine chose for the attempt; 0: it has the configuration's
	Listening []Listener `json:",omitempty"` // sockets of a running attempt, by port; empty: none, or not known
}

// Listener is a TCP socket on which an attempt accepts connections.
type Listener struct {
	Host string // an IP address; 0.0.0.0 or ::: all addresses
	Port int
}

// IsLoopback reports whether only the machine, or the container, itself can connect.
func (l Listener) IsLoopback() bool { return strings.HasPrefix(l.Host, "127.") || l.Host == "::1" }

// ProbeFailureThreshold is the number of consecutive failures of one probe
// after which a replica is restarted, provided that another replica is ready.
const ProbeFailureThreshold = 3

// ProbeStatus is the combined result of all probes of an attempt.
type ProbeStatus struct {
	Ready               bool   // every probe had its required successes in a row, and none has failed since
	ConsecutiveFailures int    `json:"Fails"` // of the probe with the most, capped at ProbeFailureThreshold
	Message             string `json:"Why"`   // the last failure, for the user: GET /health answered 500
}
