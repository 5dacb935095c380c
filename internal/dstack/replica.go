package dstack

import "time"

// Replica is one copy of a run's container. Restarted, it keeps its number
// and place and gets a new attempt.
type Replica struct {
	ID          ReplicaID
	Run         RunID
	Num         int // 0 is the first
	Revision    int // the run's when it was asked for
	Shape       int // the run's Shape then: as long as that is the run's, it is up to date
	Status      ReplicaStatus
	Reason      Reason
	Since       time.Time // when Status last changed
	Instance    InstanceID
	Claim       Claim     // what it holds of its instance; empty before placement
	Attempt     AttemptID // the present try; empty before placement
	AttemptNum  int       // 0 is the first
	AttemptAt   time.Time // when the present attempt began
	Crashes     int       // attempts in a row that ended before they were ready for long
	CrashedAt   time.Time // when the first of them ended
	DueAt       time.Time // when a back-off is over; zero: none
	Grace       bool      // draining and terminating: SIGTERM and time first
	DrainBy     time.Time // draining: when what is in flight is waited for no longer
	ReadyAt     time.Time // when an attempt of it, the present or an earlier one, first became ready; zero: never
	Blocked     bool      // waiting: only older replicas of its own run hold the room that it needs
	Past        []Attempt // earlier attempts, oldest first, the latest pastKept of them
	SubmittedAt time.Time
	FinishedAt  time.Time
	Version     int64
}

// Attempt is an earlier try of a replica.
type Attempt struct {
	ID      AttemptID
	Num     int
	From    time.Time
	To      time.Time
	Reason  Reason   // replica 0 exited with code 1 after 14s
	Ending  Outcome  // for machines
	Exit    int      // exit code; meaningful with OutcomeExited
	LastOut []string // its last lines of output
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

// Finished says that nothing will ever change again.
func (s ReplicaStatus) Finished() bool { return s == ReplicaTerminated || s == ReplicaFailed }

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

// Outcome is how an attempt stands or ended, as its engine saw it.
type Outcome string

// Every outcome there is.
const (
	OutcomePulling  Outcome = "pulling"  // its image is being fetched
	OutcomeStarting Outcome = "starting" // being created
	OutcomeRunning  Outcome = "running"
	OutcomeExited   Outcome = "exited"  // its process ended by itself or was killed
	OutcomeRefused  Outcome = "refused" // could not be started; Error says why
	OutcomeAbsent   Outcome = "absent"  // the engine has nothing of it (left)
)

// Over says that nothing of the attempt runs any more.
func (o Outcome) Over() bool {
	return o == OutcomeExited || o == OutcomeRefused || o == OutcomeAbsent
}

// Report is an attempt as its engine last saw it.
type Report struct {
	Attempt   AttemptID
	Outcome   Outcome
	Ready     bool     // its port accepts connections
	Probed    *Probed  // what its probes say; nil: it has none, or none was asked yet
	Address   string   // host:port where the server reaches it; empty: not yet known
	Progress  string   // pulling image 62% of 8.1GB, about 20s left
	ExitCode  int      // meaningful with OutcomeExited
	OOM       bool     // killed for memory
	Error     string   // why it was refused, with what to do
	Permanent bool     // refused, and trying again will not help
	LastOut   []string // the last lines of output of an ended attempt, at most 10
	StartedAt time.Time
	EndedAt   time.Time
	At        time.Time // when this was seen
}

// ProbeFails is how many failed answers in a row of one probe restart a
// replica, if others serve meanwhile.
const ProbeFails = 3

// Probed is what the probes of an attempt say together.
type Probed struct {
	Ready bool   // every probe has had its good answers in a row, and none has failed since
	Fails int    // failed answers in a row, of the probe that has most; ProbeFails at most
	Why   string // of the last failed one, for people: GET /health answered 500
}
