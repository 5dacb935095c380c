package dstack

import "time"

// Secret is a value of a project that configurations refer to by its name. Its
// value is not part of it: only an attempt that needs the value gets it.
type Secret struct {
	ID   string
	Name string
	User string    // who set it last
	At   time.Time // when that was
	Runs []string  // the names of the unfinished runs that refer to it, sorted
}

// SecretVersion numbers the values of a secret. A higher number is newer, also
// after the secret was deleted and set again.
type SecretVersion int64
