#!/usr/bin/env bash
# When a token endpoint refuses a service account of Google, golang.org/x/oauth2 leaves ErrorCode and ErrorDescription of its error empty.
#
# Seen on 2026-11-29 with golang.org/x/oauth2 v0.38.0 and Go 1.26, on Linux. A token endpoint on loopback answers, with status
# 400, what Google answers for a deleted key: {"error":"invalid_grant","error_description":"Invalid JWT Signature."}. Both
# sources return *oauth2.RetrieveError:
#
#   source                                   ErrorCode        ErrorDescription          Body
#   client credentials (clientcredentials)   invalid_grant    Invalid JWT Signature.    the answer
#   service account file (google, jwt)       empty            empty                     the answer
#
# Guess before the run: both fields are set whichever source failed, as the comments of the type say.
# Seen: the package jwt, which service accounts use, fills in only Response and Body. What it means for users: a program that
# tells revoked keys (invalid_grant) from passing failures by ErrorCode takes every refusal of a service account for something
# else, and tries again or prints only "400 Bad Request". It has to read Body itself.
#
# It needs bash, Go and a Go module proxy. It listens on a port of 127.0.0.1 only. It fails if any of this is different now.
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
unset GOFLAGS
cat >go.mod <<'MOD'
module finding
go 1.26.0
require golang.org/x/oauth2 v0.38.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/google"
)

func main() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`)
	}))
	defer server.Close()
	ask := func(name string, source oauth2.TokenSource) {
		_, err := source.Token()
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) {
			panic(err)
		}
		fmt.Printf("%s: code %q, description %q, body of %d bytes\n", name, refused.ErrorCode, refused.ErrorDescription, len(refused.Body))
	}
	client := clientcredentials.Config{ClientID: "example", ClientSecret: "example", TokenURL: server.URL, AuthStyle: oauth2.AuthStyleInParams}
	ask("client credentials", client.TokenSource(context.Background()))

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	file, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "runner@example.iam.gserviceaccount.com", "private_key_id": "1", "token_uri": server.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		panic(err)
	}
	account, err := google.JWTConfigFromJSON(file, "https://www.googleapis.com/auth/compute")
	if err != nil {
		panic(err)
	}
	ask("service account", account.TokenSource(context.Background()))
}
GO
go mod tidy >tidy.log 2>&1 || { cat tidy.log; exit 1; }
CGO_ENABLED=0 go run . | tee seen
diff seen - <<'WANT'
client credentials: code "invalid_grant", description "Invalid JWT Signature.", body of 70 bytes
service account: code "", description "", body of 70 bytes
WANT
