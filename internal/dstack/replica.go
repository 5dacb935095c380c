package dstack

import "time"

// Replica is one copy of a run's container. Restarted, it keeps its number
// and place and gets a new attempt.
type Replica struct {
	ID               ReplicaID
	Run              RunID
	Num              int // 0 is the first
	Revision         int // the run's when it was asked for
	TemplateRevision int // the run's Shape then: as long as that is the run's, it is up to date
	Status           ReplicaStatus
	Reason           Reason
	Since            time.Time // when Status last changed
	Instance         InstanceID
	Claim            Claim     // what it holds of its instance; empty before placement
	Attempt          AttemptID // the present try; empty before placement
	AttemptNum       int       // 0 is the first
	AttemptAt        time.Time // when the present attempt began
	Crashes          int       // attempts in a row that ended before they were ready for long
	FirstCrashAt     time.Time // when the first of them ended
	RetryAt          time.Time // when a back-off is over; zero: none
	Graceful         bool      // draining and terminating: SIGTERM and time first
	DrainDeadline    time.Time // draining: when what is in flight is waited for no longer
	ReadyAt          time.Time // when an attempt of it, the present or an earlier one, first became ready; zero: never
	Blocked          bool      // waiting: only older replicas of its own run hold the room that it needs
	PastAttempts     []Attempt // earlier attempts, oldest first, the latest lifecycle.MaxPastAttempts of them
	SubmittedAt      time.Time
	FinishedAt       time.Time
	Version          int64
}

// Attempt is an earlier try of a replica. Its JSON form is stored, and keeps
// the names that it was first stored with.
type Attempt struct {
	ID         AttemptID
	Num        int
	StartedAt  time.Time    `json:"From"`
	EndedAt    time.Time    `json:"To"`
	Reason     Reason       // replica 0 exited with code 1 after 14s
	EndState   AttemptState `json:"Ending"`  // for machines
	ExitCode   int          `json:"Exit"`    // exit code; meaningful with AttemptExited
	LastOutput []string     `json:"LastOut"` // its last lines of output
}

// ReplicaStatus is where a replica is in its life.
type ReplicaStatus string

// Every status of a replica.
const (
	ReplicaWaiting     ReplicaStatus = "waiting"    // for a place
	ReplicaStarting    ReplicaStatus = "starting"   // placed; not ready yet
	ReplicaReady       ReplicaStatus = "ready"      // its port accepts, and its probes are answered; in the route table
	ReplicaUnhealthy   ReplicaStatus = "unhealthy"  // was ready and runs, but does not answer; gets no requests
	ReplicaRestarting  ReplicaStatus = "restarting" // crashed; a back-off passes before the next attempt
	ReplicaDraining    ReplicaStatus = "draining"   // gets no new requests; ends once those in flight have
	ReplicaTerminating ReplicaStatus = "terminating"
	ReplicaTerminated  ReplicaStatus = "terminated"
	ReplicaFailed      ReplicaStatus = "failed" // gave up
)

// IsFinished says that nothing will ever change again.
func (s ReplicaStatus) IsFinished() bool { return s == ReplicaTerminated || s == ReplicaFailed }

// Claim is what a replica holds of an owned machine. CPUs, MemoryMiB and
// DiskMiB are what the configuration asks for explicitly, else zero.
type Claim struct {
	CPUs      int    `json:"cpus,omitempty"`
	MemoryMiB int64  `json:"memory_mib,omitempty"`
	DiskMiB   int64  `json:"disk_mib,omitempty"`
	GPUs      []GPU  `json:"gpus,omitempty"`
	Ports     []int  `json:"ports,omitempty"` // of the machine itself; only where replicas share them
	Offer     string `json:"offer,omitempty"` // the instance type, for people
}

// AttemptState is how an attempt stands or ended, as its engine saw it.
type AttemptState string

// Every state of an attempt.
const (
	AttemptPulling  AttemptState = "pulling"  // its image is being fetched
	AttemptStarting AttemptState = "starting" // being created
	AttemptRunning  AttemptState = "running"
	AttemptExited   AttemptState = "exited"  // its process ended by itself or was killed
	AttemptRefused  AttemptState = "refused" // could not be started; Error says why
	AttemptAbsent   AttemptState = "absent"  // the engine has nothing of it (left)
)

// IsOver says that nothing of the attempt runs any more.
func (o AttemptState) IsOver() bool {
	return o == AttemptExited || o == AttemptRefused || o == AttemptAbsent
}

// Report is an attempt as its engine last saw it. Its JSON form is stored, and
// keeps the names that it was first stored with.
type Report struct {
	Attempt    AttemptID
	State      AttemptState `json:"Outcome"`
	Ready      bool         // its port accepts connections
	Probes     *ProbeStatus `json:"Probed"` // what its probes say; nil: it has none, or none was asked yet
	Endpoint                // where its port is reached; without an address: not known yet
	Progress   string       // pulling image 62% of 8.1GB, about 20s left
	ExitCode   int          // meaningful with AttemptExited
	OOM        bool         // killed for memory
	Error      string       // why it was refused, with what to do
	Permanent  bool         // refused, and trying again will not help
	LastOutput []string     `json:"LastOut"` // the last lines of output of an ended attempt, at most 10
	StartedAt  time.Time
	EndedAt    time.Time
	At         time.Time // when this was seen
}

// ProbeFailureThreshold is how many failed answers in a row of one probe restart a
// replica, if others serve meanwhile.
const ProbeFailureThreshold = 3

// ProbeStatus is what the probes of an attempt say together.
type ProbeStatus struct {
	Ready               bool   // every probe has had its good answers in a row, and none has failed since
	ConsecutiveFailures int    `json:"Fails"` // failed answers in a row, of the probe that has most; ProbeFailureThreshold at most
	Message             string `json:"Why"`   // of the last failed one, for people: GET /health answered 500
}
