package api

// GPUGroup is what the offers with one kind of GPU have in common. Backends and Regions list those of its offers, unless
// the groups are by Backend or Region.
type GPUGroup struct {
	Name         string       `json:"name"`
	MemoryMiB    int64        `json:"memory_mib"`
	Vendor       string       `json:"vendor"` // nvidia, amd, …; empty: not known
	Availability []string     `json:"availability"`
	Spot         []string     `json:"spot"`        // spot, on-demand
	Count        CountRange   `json:"count"`       // of GPUs in an offer
	Price        DollarsRange `json:"price"`       // for each GPU, in dollars per hour
	OfferPrice   DollarsRange `json:"offer_price"` // for whole offers
	Backends     []string     `json:"backends,omitempty"`
	Backend      string       `json:"backend,omitempty"`
	Regions      []string     `json:"regions,omitempty"`
	Region       string       `json:"region,omitempty"`
}

// CountRange is the fewest and the most of something.
type CountRange struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// DollarsRange is the lowest and the highest price.
type DollarsRange struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

// The fields by which offers with the same GPUs are grouped.
const (
	GroupByGPU     = "gpu"
	GroupByBackend = "backend"
	GroupByRegion  = "region"
	GroupByCount   = "count"
)
