package v018

import (
	"strings"
	"time"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// BuildInstance returns the machine of an offer as one of the only pool. since is when the
// machine was first known.
func BuildInstance(project string, o dstack.Offer, num int, isBusy bool, since time.Time) api.Instance {
	status := "idle"
	if isBusy {
		status = "busy"
	}
	return api.Instance{ID: buildUUID(string(o.OwnedInstance)), ProjectName: project, Backend: spec.Text(encodeBackend(o.Backend)),
		InstanceType: new(buildInstanceType(o)), Name: o.Type, InstanceNum: num, PoolName: api.DefaultPool, Status: status,
		Created: api.NewTimestamp(since), Region: spec.Text(o.Region), Price: o.Price}
}

// NamePool returns the name of a profile's pool.
func NamePool(p spec.Profile) string {
	if name := strings.TrimSpace(string(p.PoolName)); name != "" {
		return name
	}
	return api.DefaultPool
}

// buildUUID returns an ID itself if it is a UUID, and otherwise always the same one for it:
// 0.18.10 accepts nothing else.
func buildUUID(id string) string {
	if _, err := uuid.Parse(id); err == nil {
		return id
	}
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("dstack:instance:"+id)).String()
}
