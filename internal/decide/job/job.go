// Package job decides what a replica of a service runs, and what it needs of
// a machine (spec §8.1–8.3).
package job

import "dstack/internal/dstack"

// Image is the image that a service runs in.
func Image(s dstack.RunSpec) string { panic("being written") }

// Argv is a container's command line; empty: the image's own.
func Argv(s dstack.RunSpec) []string { panic("being written") }

// Script is the commands joined for one shell: a && b.
func Script(s dstack.RunSpec) string { panic("being written") }

// Need is what a replica needs of a machine. Profile fields fill what the
// configuration leaves open.
func Need(s dstack.RunSpec) dstack.Requirements { panic("being written") }

// Order is all that an engine needs to run the present attempt of a replica.
func Order(run dstack.Run, r dstack.Replica) dstack.Order { panic("being written") }
