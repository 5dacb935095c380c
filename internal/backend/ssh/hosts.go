package ssh

import (
	"context"

	"dstack/internal/dstack"
)

// Hosts is where the hosts of all fleets are kept. Every server reads them about once a
// second. All methods may be called again with the same arguments.
type Hosts interface {
	// ListHosts returns every host of every fleet, with its private keys. A host that is
	// absent does not belong to any fleet any more.
	ListHosts(ctx context.Context) ([]dstack.Host, error)

	// PinHostKey records the first key that a host, or its jump host, showed, in the form of
	// authorized_keys. It returns the pinned key: another one if another server was faster.
	PinHostKey(ctx context.Context, id dstack.InstanceID, isJump bool, hostKey string) (pinned string, err error)

	// SaveHostCheck records a check of a host. It does nothing if the host does not exist any
	// more, or was applied again after the check began.
	SaveHostCheck(ctx context.Context, id dstack.InstanceID, check dstack.HostCheck) error
}
