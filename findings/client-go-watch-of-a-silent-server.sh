#!/usr/bin/env bash
# A watch of client-go succeeds although no server ever answered: no error, and a channel that is closed already.
#
# Seen on 2026-11-29 with k8s.io/client-go v0.37.2 and Go 1.26, on Linux. A server reads each request and closes the
# connection without an answer, as a balancer does whose API server is gone; another one answers 503:
#
#   call of the dynamic client     requests that arrived   after    result
#   List,  connection closed       11                      10 s     error: EOF
#   Watch, connection closed       11                      10 s     no error; the channel of events is closed, without an event
#   Watch, 503                     1                       0 s      error: the server is currently unable to handle the request
#
# Guess before the run: Watch returns the error of the connection at once, as its caller has to decide when to try again.
# Seen: it tries eleven times by itself, a second apart, and then reports success. What it means for users: a program that
# takes a watch without an error as proof that the API server answers is wrong, one that resets its pause after each
# successful Watch never waits longer, and "the watch was refused" takes ten seconds to be known when nothing answers. A
# caller has to give Watch a context with a limit of its own, and to count a watch without any event as a failed one.
#
# It needs bash, Go and a Go module proxy. It listens on ports of 127.0.0.1 only. It fails if any of this is different now.
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
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

const unavailable = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

// serve reads each request, writes the answer, and closes the connection. It returns its address, and counts requests.
func serve(answer string) (address string, requests chan struct{}) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	requests = make(chan struct{}, 1000)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					requests <- struct{}{}
					io.WriteString(conn, answer)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String(), requests
}

func try(title, answer string, call func(context.Context, dynamic.ResourceInterface) string) {
	address, requests := serve(answer)
	client, err := dynamic.NewForConfig(&rest.Config{Host: address})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	result := call(ctx, client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace("default"))
	fmt.Printf("%s: %d requests, %.0f s, %s\n", title, len(requests), time.Since(began).Seconds(), result)
}

func watch(ctx context.Context, pods dynamic.ResourceInterface) string {
	w, err := pods.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return "error"
	}
	defer w.Stop()
	select {
	case _, isOpen := <-w.ResultChan():
		return fmt.Sprintf("no error, open: %t", isOpen)
	case <-ctx.Done():
		return "no error, waits"
	}
}

func main() {
	try("list, closed", "", func(ctx context.Context, pods dynamic.ResourceInterface) string {
		if _, err := pods.List(ctx, metav1.ListOptions{}); err != nil {
			return "error"
		}
		return "no error"
	})
	try("watch, closed", "", watch)
	try("watch, 503", unavailable, watch)
}
GO
go mod tidy >tidy.log 2>&1 || { cat tidy.log; exit 1; }
CGO_ENABLED=0 go run . | tee seen
diff seen - <<'WANT'
list, closed: 11 requests, 10 s, error
watch, closed: 11 requests, 10 s, no error, open: false
watch, 503: 1 requests, 0 s, error
WANT
