package backend

import (
	"context"

	"dstack/internal/dstack"
)

// Searcher is implemented by backends with more offers than are worth listing, such as those of clouds; ask with a type
// assertion on a Backend. The rules of Backend for goroutines, repeated calls, time and kinds of errors apply.
type Searcher interface {
	// SearchOffers returns the best offers that meet need, the cheapest first, at most limit; some others, those that
	// nearly meet it first; and how many more there are. Offers returns the same for a limit of its own.
	SearchOffers(ctx context.Context, need dstack.Requirements, limit int) (OfferSearch, error)
}

// OfferSearch is the answer of a Searcher.
type OfferSearch struct {
	Offers  []dstack.Offer
	More    MoreOffers
	Missing []error  // why regions have no offers; the others have some
	Notes   []string // what the user should know about the offers: their prices are old
}

// MoreOffers counts the offers that a search left out. A type in a region and a market counts once, in however many
// zones it is.
type MoreOffers struct {
	Suitable     int     // meet the requirements
	Unsuited     int     // do not
	HighestPrice float64 // of those that meet them
}

func (m *MoreOffers) add(more MoreOffers) {
	m.Suitable += more.Suitable
	m.Unsuited += more.Unsuited
	m.HighestPrice = max(m.HighestPrice, more.HighestPrice)
}
