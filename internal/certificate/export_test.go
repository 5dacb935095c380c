package certificate

import "time"

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
