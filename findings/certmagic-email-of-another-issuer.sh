#!/usr/bin/env bash
# An ACME issuer of certmagic without an email address registers its account with the address of another issuer.
#
# Seen on 2026-11-29 with github.com/caddyserver/certmagic v0.25.6, pebble v2.10.3 and Go 1.26, on Linux. One program has two
# issuers, each with its own cache, storage and account; the first has an email address, the second has none:
#
#   order of the certificates     accounts in the storage of the first   accounts in the storage of the second
#   first, second                 first@example.com                      first@example.com
#   second, first                 first@example.com                      default (no address)
#
# Guess before the run: settings of an issuer concern that issuer alone, so that the second account has no contact in both
# orders. Seen: the first address that any issuer of the process uses becomes the default of all that have none, whatever
# their storage is, and so the result depends on who came first. What it means for users: a program that keeps certificates
# for several tenants gives the certificate authority one tenant's address as the contact of another's account, and that
# account's folder has that address in its name. Such a program has to give every issuer an address, or to register
# accounts itself.
#
# It needs bash, openssl, curl, Go and a Go module proxy. It listens on ports of 127.0.0.1 only. It fails if any of this is
# different now.
set -euo pipefail
folder=$(mktemp -d)
pebble=
trap '[ -z "$pebble" ] || kill "$pebble" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
unset GOFLAGS
GOBIN=$folder CGO_ENABLED=0 go install github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.3 >install.log 2>&1 || { cat install.log; exit 1; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -days 2 \
	-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null
port=$((20000 + RANDOM % 8000))
cat >pebble.json <<JSON
{"pebble": {"listenAddress": "127.0.0.1:$port", "managementListenAddress": "127.0.0.1:$((port + 1))", "certificate": "cert.pem",
 "privateKey": "key.pem", "httpPort": $((port + 2)), "tlsPort": $((port + 3)), "retryAfter": {"authz": 1, "order": 1},
 "profiles": {"default": {"description": "90 days", "validityPeriod": 7776000}}}}
JSON
PEBBLE_VA_NOSLEEP=1 PEBBLE_VA_ALWAYS_VALID=1 PEBBLE_WFE_NONCEREJECT=0 ./pebble -config pebble.json >pebble.log 2>&1 &
pebble=$!
for _ in $(seq 100); do
	curl -sf --cacert cert.pem "https://127.0.0.1:$port/dir" >/dev/null && break
	sleep 0.1
done
cat >go.mod <<'MOD'
module finding
go 1.26
require github.com/caddyserver/certmagic v0.25.6
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"crypto/x509"
	"os"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// obtain orders a certificate with an issuer of its own.
func obtain(ca string, roots *x509.CertPool, folder, name, email string) {
	storage := &certmagic.FileStorage{Path: folder}
	var config *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{Logger: zap.NewNop(),
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil }})
	config = certmagic.New(cache, certmagic.Config{Storage: storage, Logger: zap.NewNop()})
	config.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(config, certmagic.ACMEIssuer{CA: ca, TrustedRoots: roots, Email: email,
		Agreed: true, DisableTLSALPNChallenge: true, ListenHost: "127.0.0.1", AltHTTPPort: 0, Logger: zap.NewNop(), Profile: "default"})}
	if err := config.ObtainCertSync(context.Background(), name); err != nil {
		panic(err)
	}
}

func main() {
	ca, order := os.Args[1], os.Args[2:]
	pem, err := os.ReadFile("cert.pem")
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	certmagic.HTTPPort = 0 // the challenge is not asked for: pebble takes every answer as right
	for _, who := range order {
		email := ""
		if who == "first" {
			email = "first@example.com"
		}
		obtain(ca, roots, "storage/"+order[0]+"-"+order[1]+"/"+who, who+".example.com", email)
	}
}
GO
go mod tidy >/dev/null 2>&1
go build -o order .
: >output
for order in "first second" "second first"; do
	# shellcheck disable=SC2086
	./order "https://127.0.0.1:$port/dir" $order </dev/null >/dev/null 2>&1 # it asks for an address on a terminal
	for who in first second; do
		echo "$order: $who has the account $(ls storage/"${order/ /-}/$who"/acme/*/users | paste -sd' ' -)" | tee -a output
	done
done
cat >expected <<'TEXT'
first second: first has the account first@example.com
first second: second has the account first@example.com
second first: first has the account first@example.com
second first: second has the account default
TEXT
diff expected output && echo "as seen before"
