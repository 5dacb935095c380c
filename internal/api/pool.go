package api

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// DefaultPool is the name of the only pool of a project. It contains all machines of the
// project's backends that replicas share.
const DefaultPool = "default-pool"

// Pool is an item of the answer of pool/list.
type Pool struct {
	Name               string    `json:"name"`
	Default            bool      `json:"default"`
	CreatedAt          Timestamp `json:"created_at"`
	TotalInstances     int       `json:"total_instances"`
	AvailableInstances int       `json:"available_instances"`
}

// PoolInstances answers pool/show.
type PoolInstances struct {
	Name      string     `json:"name"`
	Instances []Instance `json:"instances"`
}

// Instance is a machine in PoolInstances.
type Instance struct {
	ID           string        `json:"id"` // a UUID
	ProjectName  string        `json:"project_name"`
	Backend      spec.Text     `json:"backend"`       // null before a machine was chosen
	InstanceType *InstanceType `json:"instance_type"` // null likewise
	Name         string        `json:"name"`
	InstanceNum  int           `json:"instance_num"`
	PoolName     string        `json:"pool_name"`
	JobName      *string       `json:"job_name"`
	Hostname     *string       `json:"hostname"`
	Status       string        `json:"status"`
	Unreachable  bool          `json:"unreachable"`
	Created      Timestamp     `json:"created"`
	Region       spec.Text     `json:"region"`
	Price        float64       `json:"price"`
}

// PoolOffers answers runs/get_offers.
type PoolOffers struct {
	PoolName  string  `json:"pool_name"`
	Instances []Offer `json:"instances"`
}

// Requests about pools.
type (
	// ShowPool is the body of pool/show.
	ShowPool struct {
		Name *string `json:"name,omitempty"` // nil: DefaultPool
	}
	// ListPoolInstances is the body of pools/list_instances.
	ListPoolInstances struct {
		ProjectName   *string    `json:"project_name"`
		PoolName      *string    `json:"pool_name"`
		OnlyActive    bool       `json:"only_active,omitempty"`
		PrevCreatedAt *time.Time `json:"prev_created_at"`
		PrevID        *string    `json:"prev_id"`
		Limit         *int       `json:"limit" minimum:"0" maximum:"1000"`
		Ascending     bool       `json:"ascending,omitempty"`
	}
	// GetOffers is the body of runs/get_offers.
	GetOffers struct {
		Profile      spec.Profile      `json:"profile"`
		Requirements OfferRequirements `json:"requirements"`
	}
	// OfferRequirements is what the machines of GetOffers must have. Resources is as in a
	// configuration.
	OfferRequirements struct {
		Resources dstack.JSON `json:"resources"`
		MaxPrice  *float64    `json:"max_price,omitempty"`
		Spot      *bool       `json:"spot,omitempty"`
	}
)

// IsOptionalBody implements wire.OptionalBody.
func (ListPoolInstances) IsOptionalBody() {}
