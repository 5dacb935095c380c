// Package cloud has the interface between the backend of rented machines and the clouds that rent them out. Package
// cloud/cloudtest tests that a cloud follows the interface's contract.
package cloud

import (
	"context"
	"time"

	"dstack/internal/catalogue"
	"dstack/internal/dstack"
)

// Provider rents machines of one account of a cloud. It touches only machines and other objects that are marked with
// its installation, which it is opened with: two installations in one account never see each other's.
//
// Every method may be called by several goroutines at once, and again with the same arguments after an error or a
// restart of the server. Each returns within the time limit of ctx, and has a limit of its own for each request. None
// waits for a machine to boot or to go away. The code that opens a provider closes it, if it has a Close method.
//
// Errors are of the kinds that backend.Backend names: NoCapacity (with Failure saying whether capacity or a quota is
// missing), Unauthorized, Forbidden (its message names the action that is not allowed), Unavailable (the cloud could not
// be reached, or limits the rate of requests; RetryAfter says how long to wait), Conflict (a launch with this token had
// other parameters, or its machine has ended: look for the machine, and give the launch up if there is none).
type Provider interface {
	// CheckAccess reports what is wrong with the credentials, the rights and the network that the configuration
	// names; nil: nothing. If some regions can be used, RegionErrors is a cause of the error. It changes nothing in the
	// account.
	CheckAccess(ctx context.Context) error

	// Launch requests one machine in one zone. Repeated with the same Token, it makes one machine, even if an
	// earlier call timed out. The machine may be absent from ListMachines for minutes.
	Launch(ctx context.Context, l Launch) (Machine, error)

	// ListMachines returns every machine of the installation in all configured regions that costs money or may do
	// so again, including machines that nothing else is known of, and those that ended within the last hour, if
	// the cloud still shows why. A region that does not answer makes the listing incomplete, which is an error.
	ListMachines(ctx context.Context) ([]Machine, error)

	// Terminate requests the end of machines, in any state. It is no error if one does not exist. A machine has
	// ended when ListMachines does not return it any more, or in the state MachineEnded.
	Terminate(ctx context.Context, machines []Machine) error
}

// Launch is a machine to rent.
type Launch struct {
	Instance dstack.InstanceID
	Token    string       // at most 64 ASCII characters; made by NewToken
	Offer    dstack.Offer // Type, Region, Zone (empty: the cloud chooses one), Spot, Hardware with DiskMiB of the disk to boot from
	UserData string       // a shell script that the machine runs as root at its first boot; at most 16 KiB
	Name     string       // shown by the cloud's own tools: at most 60 lowercase letters, digits and dashes
	Labels   map[string]string
	Group    string // machines with the same group are placed close to each other; empty: none
}

// Machine is a rented machine as its cloud reports it.
type Machine struct {
	Instance   dstack.InstanceID // from the marks of the machine; empty: not readable, so it is a leftover
	Ref        string            // the cloud's identifier: i-0123…, or the name of the machine in its project
	Region     string
	Zone       string
	Type       string
	Spot       bool
	State      MachineState
	Address    string // where SSH is reached, without a port; empty: not known yet
	Private    string // its address in the cloud's network; may be empty
	LaunchedAt time.Time
	Failure    *dstack.MachineFailure // with MachineEnded and MachineEnding: why, if the user did not ask for it
}

// MachineState is the phase of a rented machine's life.
type MachineState string

// The states of a rented machine.
const (
	MachinePending MachineState = "pending" // requested or booting
	MachineRunning MachineState = "running" // booted; SSH may not answer yet
	MachineEnding  MachineState = "ending"  // is being terminated, by dstack or otherwise, or stopped: it may still cost money
	MachineEnded   MachineState = "ended"   // costs nothing any more
)

// Disks is implemented by providers whose disks can be volumes; ask with a type assertion on a Provider. The rules of
// Provider apply. A disk that the user created is identified by Disk.Ref, with IsExternal set; it is never deleted.
type Disks interface {
	// CreateDisk requests an empty disk, in Zone if it is set. Repeated with the same Volume, it makes one disk.
	// For an external disk it only looks for it: NotFound if there is none.
	CreateDisk(ctx context.Context, d Disk) (Disk, error)

	// DeleteDisk requests the deletion of a disk. Conflict: it is attached. It is no error if it does not exist.
	DeleteDisk(ctx context.Context, d Disk) error

	// ListDisks returns every disk of the installation, and the external ones that are asked for.
	ListDisks(ctx context.Context, external []Disk) ([]Disk, error)

	// AttachDisk attaches a disk to a machine of its zone, and DetachDisk takes it off. Both return when the
	// request is accepted, and do nothing if it is so already; ListDisks reports the progress. Conflict: it is
	// attached to another machine.
	AttachDisk(ctx context.Context, d Disk, m Machine) error
	DetachDisk(ctx context.Context, d Disk, m Machine) error
}

// DiskTypes is implemented by providers of which some types of machines cannot use disks.
type DiskTypes interface {
	// ExplainNoDisks returns why the machines of a type cannot use disks, for the user; empty: they can.
	ExplainNoDisks(instanceType string) string
}

// Disk is a network disk of a cloud.
type Disk struct {
	Volume     dstack.VolumeID // from its marks; empty for external disks
	Ref        string          // the cloud's identifier: vol-0123…, or the name of the disk in its project
	IsExternal bool
	Region     string
	Zone       string
	SizeMiB    int64
	Price      float64 // dollars per month; 0: not known
	State      DiskState
	Reason     string         // with DiskFailed: why, for the user
	Attached   []DiskMachine  // machines that it is attached to, or is being attached to
	Device     DeviceSelector // how a machine finds it
}

// DiskState is the phase of a disk's life.
type DiskState string

// The states of a disk.
const (
	DiskCreating DiskState = "creating"
	DiskReady    DiskState = "ready" // can be attached
	DiskInUse    DiskState = "in use"
	DiskDeleting DiskState = "deleting"
	DiskFailed   DiskState = "failed"
)

// DiskMachine is a machine that a disk is attached to.
type DiskMachine struct {
	Ref     string // Machine.Ref
	IsReady bool   // the attachment is complete
}

// DeviceSelector identifies a disk among the block devices of a Linux machine.
type DeviceSelector struct {
	Serial string // as lsblk prints it: vol0123… on AWS Nitro
	ByID   string // below /dev/disk/by-id: google-NAME on GCP
}

// PriceList is implemented by providers that can be asked for their types of machines and prices; ask with a type
// assertion on a Provider. It may take minutes, so the answer is kept. The rules of Provider apply.
type PriceList interface {
	// ListTypes returns the types of machines of a region, for each zone where they differ, both on demand and spot.
	ListTypes(ctx context.Context, region string) ([]catalogue.Row, error)
}

// Availability is implemented by providers that know where a type can be had; ask with a type assertion on a Provider.
// The rules of Provider apply.
type Availability interface {
	// ListZones returns, for each type of a region, the zones that offer it and that the configured network
	// reaches. A type that is absent is not offered.
	ListZones(ctx context.Context, region string) (map[string][]string, error)

	// ListQuotas returns what the account's quotas allow in a region.
	ListQuotas(ctx context.Context, region string) ([]Quota, error)
}

// Quota is a limit of an account in one region for a family of types.
type Quota struct {
	Name  string   // as the cloud's own pages call it
	Types []string // patterns with *: g6.*
	Spot  bool
	CPUs  int // virtual CPUs, or GPUs if IsGPU; negative: not known
	IsGPU bool
	GPU   string // with IsGPU: only machines with this GPU count, by dstack.GPU.Name; empty: with any
}

// Leftovers is implemented by providers that make further objects beside machines and disks: keys, addresses, groups of
// rules, placement groups; ask with a type assertion on a Provider. The rules of Provider apply.
type Leftovers interface {
	// ListLeftovers returns the objects of the installation that no machine uses now.
	ListLeftovers(ctx context.Context) ([]Leftover, error)

	// DeleteLeftover deletes one. It is no error if it does not exist. Conflict: it is used again.
	DeleteLeftover(ctx context.Context, l Leftover) error
}

// Leftover is an object of the installation in a cloud that nothing uses.
type Leftover struct {
	Kind      string // machine, disk, address, key, security group, placement group
	Ref       string
	Region    string
	Zone      string
	CreatedAt time.Time // zero: not known
	IsShared  bool      // it costs nothing and is kept for the next machine
}
