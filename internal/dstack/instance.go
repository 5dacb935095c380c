package dstack

import (
	"time"

	"dstack/internal/spec"
)

// Instance is a rented or owned place to run replicas.
type Instance struct {
	ID                  InstanceID
	Backend             string // key in backend.Set
	Offer               Offer
	Status              InstanceStatus
	Reason              Reason
	Since               time.Time     // when Status last changed
	Host                string        // the installation that alone can reach it; empty: any server can
	LastResponseAt      time.Time     // when its engine last answered; saved at most every half minute
	LastError           string        // what last went wrong with it, for people
	ConsecutiveFailures int           // in a row
	IdleTime            time.Duration // how long it may hold no replica before it is deleted, if it is rented; negative: for ever
	EmptySince          time.Time     // when it was first seen without replicas; zero: it has some
	UnlistedSince       time.Time     // when its backend first did not list it; zero: it was in the last list
	SilentSince         time.Time     // when its engine first did not answer; zero: it answered when it was last asked
	CheckedAt           time.Time     // when its backend last listed its machines
	Version             int64
}

// InstanceStatus is where an instance is in its life.
type InstanceStatus string

// Every status of an instance.
const (
	InstanceCreating InstanceStatus = "creating"
	InstanceUp       InstanceStatus = "up"
	InstanceDeleting InstanceStatus = "deleting"
	InstanceDeleted  InstanceStatus = "deleted"
)

// Machine is an instance as its backend describes it.
type Machine struct {
	Ref   string // the backend's own name for it
	Alive bool
}

// Offer is a place that could be had, and its price.
type Offer struct {
	Backend       string             `json:"backend"` // its type: local
	Key           string             `json:"key"`     // which of the configured backends: key in backend.Set
	Region        string             `json:"region"`
	Type          string             `json:"type"` // the instance type; for owned machines their name
	Hardware      Hardware           `json:"hardware"`
	Spot          bool               `json:"spot"`
	Price         float64            `json:"price"`           // dollars an hour
	OwnedInstance InstanceID         `json:"owned,omitempty"` // this very machine, shared; empty: rented for one replica
	Host          string             `json:"host,omitempty"`  // see Instance.Host
	Engine        EngineCapabilities `json:"engine"`
}

// EngineCapabilities is what the engine of a machine can and cannot do.
type EngineCapabilities struct {
	Name        string `json:"name"`         // docker, process
	Containers  bool   `json:"containers"`   // understands images
	SharesPorts bool   `json:"shares_ports"` // a replica's port is the machine's own
}

// Hardware is what a machine has in all.
type Hardware struct {
	CPUs      int   `json:"cpus"`
	MemoryMiB int64 `json:"memory_mib"`
	DiskMiB   int64 `json:"disk_mib"`
	GPUs      []GPU `json:"gpus,omitempty"`
}

// GPU is one graphics processor of a machine.
type GPU struct {
	ID         string `json:"id"`              // as the engine names it, such as GPU-1b2c…
	Maker      string `json:"maker,omitempty"` // nvidia, amd; empty: unknown
	Name       string `json:"name"`            // as configurations name it: A100, H200, RTX4090
	MemoryMiB  int64  `json:"memory_mib"`
	Capability [2]int `json:"capability"` // compute capability, major and minor; zero: unknown
}

// Requirements is what a replica needs of a place. Nil pointers in
// Resources do not bind; see spec.Resources.Asked for what binds on owned
// machines.
type Requirements struct {
	Resources     spec.Resources
	Port          int
	NeedsImage    bool // an image is named, so plain processes do not do
	Backends      []string
	Regions       []string
	InstanceTypes []string
	Spot          *bool // nil: either
	MaxPrice      *float64
}

// Placement is where a replica could go.
type Placement struct {
	Offer Offer
	Claim Claim
	Free  string // what is free of it, for people: 1 of 2 GPUs free
}

// Rejection is a machine that does not suit, and why.
type Rejection struct {
	Offer  Offer
	Reason string // has no GPU; 24GB of memory, 64GB asked for
}

// Allocation is what unfinished replicas hold of an instance.
type Allocation struct {
	CPUs      int
	MemoryMiB int64
	DiskMiB   int64
	GPUs      map[string]string // GPU id → who holds it: "llama31 replica 0"
	Ports     map[int]string    // port of the machine → who holds it
}
