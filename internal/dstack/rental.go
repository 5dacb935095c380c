package dstack

import "time"

// Rental is the record of the money for one rented machine, from when it was requested until its end was confirmed. It
// outlives the instance, its project and its runs.
type Rental struct {
	Instance    InstanceID
	Project     ProjectID
	ProjectName string
	Fleet       string // name of the cloud fleet that it belongs to; empty: none
	Backend     string // key in backend.Set
	Region      string
	Zone        string
	Type        string
	Spot        bool
	Price       float64 // dollars per hour
	RequestedAt time.Time
	SeenAt      time.Time // when the backend listed its machine first; zero: not yet, so it may not exist
	EndedAt     time.Time // when the backend did not list its machine any more; zero: it may still cost money
	Uses        []RentalUse
}

// RentalUse is an interval in which a run had a rented machine.
type RentalUse struct {
	Run     RunID
	RunName string
	User    string
	Since   time.Time
	Until   time.Time // zero: it still has it
}
