package certificate

import (
	"context"
	"crypto/tls"
	"time"
)

// RetryNow makes every certificate due, whatever failed before.
func (k *Keeper) RetryNow() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.issuer = issuerState{}
	for _, e := range k.entries {
		e.due, e.isForced = time.Time{}, true
	}
	k.wakeAll()
}

// IssueWithIntermediate issues a certificate for a name with the intermediate authority of a domain, as somebody who
// has its key can.
func IssueWithIntermediate(ctx context.Context, storage Storage, domain, name string) (*tls.Certificate, error) {
	authority, err := openIntermediate(ctx, storage, domain)
	if err != nil {
		return nil, err
	}
	return authority.issue([]string{name}, leafLifetime)
}
