package dstack

import "time"

// RentedHost is how the server reaches the machine that it rents for an instance. It is recorded before the machine is
// requested, with the keys that the machine gets.
type RentedHost struct {
	Instance   InstanceID
	Backend    string         // key in backend.Set
	Offer      Offer          // of the instance
	Status     InstanceStatus // of the instance
	Ref        string         // the cloud's identifier of the machine; empty: not known yet
	Region     string
	Zone       string
	Login      SSHLogin // Address is empty until it is known; HostKey is pinned from the start
	HostSecret string   // the private host key that the machine gets; secret
	CreatedAt  time.Time
	ReadyAt    time.Time // when it could run replicas for the first time; zero: not yet
	Check      HostCheck
}

// Leftover is an object that dstack made in a cloud and that nothing needs any more, so that it would cost money for ever.
type Leftover struct {
	Backend     string // key in backend.Set
	Kind        string // machine, disk, address, key, security group, placement group
	Ref         string // the cloud's identifier
	Region      string
	Detail      string // for the user: the type of a machine, the instance that it was made for
	FirstSeenAt time.Time
	LastSeenAt  time.Time
	RemovedAt   time.Time // when its removal was requested last; zero: not yet
	LastError   string    // why its removal failed, for the user; empty: it did not
}
