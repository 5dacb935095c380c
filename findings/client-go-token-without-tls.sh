#!/usr/bin/env bash
# client-go drops the token and the password of a kubeconfig whose server is http, keeps its impersonation, and says nothing.
#
# Seen on 2026-11-29 with k8s.io/client-go v0.37.2 and Go 1.26, on Linux. One server prints the Authorization header that it
# gets; one kubeconfig has a user for it. The same values given in a rest.Config of Go code are sent:
#
#   credentials from                  token         user and password    token and "as: jo"
#   kubeconfig, server: http://…      nothing       nothing              only Impersonate-User: jo
#   rest.Config, Host: http://…       Bearer …      Basic …              Bearer …, Impersonate-User: jo
#
# Guess before the run: credentials are sent as the kubeconfig says, or the load fails with a message that they need TLS.
# Seen: no error, no warning; the requests are anonymous, and one that is to act as another user asks so without saying who asks. What it means for users: behind a proxy or tunnel of their own on
# loopback that speaks plain HTTP (the API server's certificate is checked further on), a valid token answers as
# system:anonymous, and the message of the API server (403, or 401) points at rights and not at the scheme. A program that
# reads kubeconfigs has to refuse credentials for http, or to say that they are not used.
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
require (
	k8s.io/apimachinery v0.37.2
	k8s.io/client-go v0.37.2
)
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {%s}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

func main() {
	var seen http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}`)
	}))
	defer server.Close()
	ask := func(title string, config *rest.Config, err error) {
		if err != nil {
			fmt.Printf("%s: refused\n", title)
			return
		}
		client, err := dynamic.NewForConfig(config)
		if err != nil {
			panic(err)
		}
		pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
		if _, err := client.Resource(pods).List(context.Background(), metav1.ListOptions{}); err != nil {
			panic(err)
		}
		scheme, _, _ := strings.Cut(seen.Get("Authorization"), " ")
		fmt.Printf("%s: authorization %q, user %q\n", title, scheme, seen.Get("Impersonate-User"))
	}
	for _, user := range []string{"token: example-token", "username: jo, password: example-password", "token: example-token, as: jo"} {
		config, err := clientcmd.RESTConfigFromKubeConfig(fmt.Appendf(nil, kubeconfig, server.URL, user))
		name, _, _ := strings.Cut(user, ":")
		if strings.Contains(user, "as:") {
			name = "as"
		}
		ask("kubeconfig "+name, config, err)
	}
	ask("code token", &rest.Config{Host: server.URL, BearerToken: "example-token"}, nil)
	ask("code username", &rest.Config{Host: server.URL, Username: "jo", Password: "example-password"}, nil)
	ask("code as", &rest.Config{Host: server.URL, BearerToken: "example-token", Impersonate: rest.ImpersonationConfig{UserName: "jo"}}, nil)
}
GO
go mod tidy >tidy.log 2>&1 || { cat tidy.log; exit 1; }
CGO_ENABLED=0 go run . | tee seen
diff seen - <<'WANT'
kubeconfig token: authorization "", user ""
kubeconfig username: authorization "", user ""
kubeconfig as: authorization "", user "jo"
code token: authorization "Bearer", user ""
code username: authorization "Basic", user ""
code as: authorization "Bearer", user "jo"
WANT
