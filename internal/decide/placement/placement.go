// Package placement decides which offers and hosts suit, in what order, and
// why the rest do not.
package placement

import "dstack/internal/dstack"

// Rank splits offers into places, best first, and misfits with the reason.
// used is what is held of owned machines.
func Rank(need dstack.Requirements, offers []dstack.Offer, used map[dstack.InstanceID]dstack.Used) ([]dstack.Place, []dstack.Misfit) {
	panic("being written")
}
