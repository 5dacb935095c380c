package api

import "time"

// RentedPlan is what applying a fleet of rented machines would do.
type RentedPlan struct {
	Add        int         `json:"add"`    // machines that would be rented
	Remove     int         `json:"remove"` // machines that would be given back as soon as nothing runs on them
	Placements []Placement `json:"placements"`
	Rejections []Rejection `json:"rejections"`
	Total      int         `json:"total"` // offers that suit
	Notes      []string    `json:"notes"`
}

// MachineView is a rented machine of a fleet as the command line shows it.
type MachineView struct {
	ID         string        `json:"id"`
	Num        int           `json:"num"`
	Name       string        `json:"name"`
	Backend    string        `json:"backend"`
	Region     string        `json:"region"`
	Zone       string        `json:"zone,omitempty"`
	Type       string        `json:"type"`
	Spot       bool          `json:"spot"`
	Price      float64       `json:"price"` // dollars per hour
	CPUs       int           `json:"cpus"`
	MemoryMiB  int64         `json:"memory_mib"`
	DiskMiB    int64         `json:"disk_mib"`
	GPUs       []HostGPU     `json:"gpus,omitempty"`
	Status     MachineStatus `json:"status"`
	Message    string        `json:"message,omitempty"` // what is wrong, or why it goes away
	IsDraining bool          `json:"is_draining"`
	CreatedAt  time.Time     `json:"created_at"`
	Since      time.Time     `json:"since"`
	Replicas   []string      `json:"replicas"` // on the machine: web replica 0
}

// MachineStatus is the status of a rented machine in a view.
type MachineStatus string

// The statuses of a rented machine.
const (
	MachineStatusProvisioning MachineStatus = "provisioning" // requested, not usable yet
	MachineStatusIdle         MachineStatus = "idle"
	MachineStatusBusy         MachineStatus = "busy"
	MachineStatusUnreachable  MachineStatus = "unreachable" // does not answer now
	MachineStatusDraining     MachineStatus = "draining"    // gets no new replicas, and has some
	MachineStatusDrained      MachineStatus = "drained"     // gets no new replicas, and has none
	MachineStatusTerminating  MachineStatus = "terminating" // is being given back
)

// Shortage is why a fleet has fewer machines than it should.
type Shortage struct {
	Missing int    `json:"missing"`
	Reason  string `json:"reason,omitempty"`
	IsFinal bool   `json:"is_final"` // there is nothing to wait for; it is tried again nevertheless
}
