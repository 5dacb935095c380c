package main

import (
	"crypto/ed25519"
	"os"
	"time"

	"dstack/internal/gatewaylink"
	"dstack/internal/server"
)

// linkOptions returns what gateway processes on other machines get of this server.
func (d *daemon) linkOptions() (server.LinkOptions, error) {
	seed, err := d.sealer.DeriveKey("gateway states")
	if err != nil {
		return server.LinkOptions{}, err
	}
	offline, err := readOfflineAccess()
	if err != nil {
		return server.LinkOptions{}, err
	}
	return server.LinkOptions{StateKey: ed25519.NewKeyFromSeed(seed), DeriveKey: d.sealer.DeriveKey, Machine: gatewaylink.MachineID(),
		Fingerprint: d.authority.Fingerprint(), Offline: offline, Dial: d.dialer.Dial, Clusters: d.listClusters}, nil
}

// Bounds of DSTACK_GATEWAY_OFFLINE_ACCESS.
const (
	defaultOfflineAccess = 24 * time.Hour
	minOfflineAccess     = time.Second
	maxOfflineAccess     = 30 * 24 * time.Hour
)

// readOfflineAccess returns for how long gateways on other machines accept tokens while no server answers them.
func readOfflineAccess() (time.Duration, error) {
	text := os.Getenv("DSTACK_GATEWAY_OFFLINE_ACCESS")
	if text == "" {
		return defaultOfflineAccess, nil
	}
	offline, err := time.ParseDuration(text)
	if err != nil || offline < minOfflineAccess || offline > maxOfflineAccess {
		return 0, newInvalidError("DSTACK_GATEWAY_OFFLINE_ACCESS is not a duration from 1s to 720h: "+text, "write it as 30m or 24h")
	}
	return offline, nil
}
