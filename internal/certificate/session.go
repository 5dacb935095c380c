package certificate

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"time"
)

// sessionDay is how long a key seals new tickets of TLS sessions. A ticket is
// accepted for another one.
const sessionDay = 24 * time.Hour

// SetSessionKey changes the secret that Options.SessionKey describes.
func (k *Keeper) SetSessionKey(secret []byte) {
	if !bytes.Equal(*k.ticketKey.Load(), secret) {
		k.ticketKey.Store(&secret)
		k.keyWake.Signal()
	}
}

// rotateSessionKeys sets the keys of TLS sessions that all processes of a gateway
// derive from its secret. Without a secret, crypto/tls rotates keys of its own.
func (k *Keeper) rotateSessionKeys(context.Context) (time.Duration, error) {
	secret := *k.ticketKey.Load()
	if len(secret) == 0 {
		return sessionDay, nil
	}
	now := time.Now()
	today := now.Unix() / int64(sessionDay/time.Second)
	var keys [][32]byte
	for _, day := range []int64{today, today - 1, today + 1} { // clocks differ
		key, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("dstack TLS session tickets %d", day), 32)
		if err != nil {
			return 0, err
		}
		keys = append(keys, [32]byte(key))
	}
	k.tls.SetSessionTicketKeys(keys)
	return time.Unix((today+1)*int64(sessionDay/time.Second), 0).Sub(now) + time.Second, nil
}
