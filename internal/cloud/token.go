package cloud

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"dstack/internal/dstack"
)

// NewToken returns the token of a launch: the same for the same instance, region, zone, type and market, and another
// one as soon as one of them differs. An instance is one attempt to rent a machine, so its ID stands for replica and
// attempt. Clouds answer a repeated token with the machine of the first request.
func NewToken(installation dstack.Installation, id dstack.InstanceID, o dstack.Offer) string {
	market := "on-demand"
	if o.Spot {
		market = "spot"
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{string(installation), string(id), o.Region, o.Zone, o.Type, market}, "\x00")))
	return hex.EncodeToString(sum[:])
}
