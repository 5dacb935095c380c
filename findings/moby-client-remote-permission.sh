#!/usr/bin/env bash
# Docker's client for Go says that the daemon does not run when a remote host refuses the permission to use it.
#
# Seen on 2026-11-29 with github.com/moby/moby/client v0.6.2 and Go 1.26, on Linux:
#
#   the dialer of WithDialContext fails with             the error of Info                       errors.Is finds the cause
#   relay: no such user on gpu-1                         error during connect: Get …: relay: …   yes
#   relay: dial unix /run/docker.sock: permission denied Cannot connect to the Docker daemon     no
#                                                        at tcp://gpu-1:2375. Is the docker
#                                                        daemon running?
#
# The same happens if the connection opens, and reading from it fails with such an error: programs that reach an engine
# through a command on its host (docker system dial-stdio over SSH) get the command's words that way, and they are the
# ones of the second row where the user is not in the group docker.
#
# Guess before the run: an error of a dialer that the caller gave stays in the chain of the returned error, as net/http
# keeps it. What it means for users: they are sent to start a daemon that runs, and the program cannot tell a refused
# permission from a stopped daemon. A caller has to remember the error of its own dialer or connection, or to avoid the
# words "dial unix" and "connection refused" in it.
#
# It needs bash, Go and a Go module proxy. It fails if any of this is different now.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset GOFLAGS
cat >go.mod <<'MOD'
module finding
go 1.26
require github.com/moby/moby/client v0.6.2
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/moby/moby/client"
)

// brokenConn accepts a request and fails to read the response.
type brokenConn struct {
	net.Conn
	err error
}

func (c brokenConn) Read([]byte) (int, error) { return 0, c.err }

func main() {
	for _, text := range []string{"relay: no such user on gpu-1", "relay: dial unix /run/docker.sock: permission denied"} {
		cause := errors.New(text)
		for _, phase := range []string{"dial", "read"} {
			dial := func(context.Context, string, string) (net.Conn, error) {
				if phase == "dial" {
					return nil, cause
				}
				near, far := net.Pipe()
				go io.Copy(io.Discard, far)
				return brokenConn{near, cause}, nil
			}
			c, err := client.New(client.WithHost("tcp://gpu-1:2375"), client.WithDialContext(dial), client.WithAPIVersion("1.41"))
			if err != nil {
				panic(err)
			}
			_, err = c.Info(context.Background(), client.InfoOptions{})
			fmt.Printf("%s: %v | cause: %t\n", phase, err, errors.Is(err, cause))
		}
	}
}
GO
go mod tidy >/dev/null 2>&1
go run . | sed 's/readLoopPeekFailLocked: //' | tee output # a note of net/http that is not always there
cat >expected <<'TEXT'
dial: error during connect: Get "http://gpu-1:2375/v1.41/info": relay: no such user on gpu-1 | cause: true
read: error during connect: Get "http://gpu-1:2375/v1.41/info": relay: no such user on gpu-1 | cause: true
dial: Cannot connect to the Docker daemon at tcp://gpu-1:2375. Is the docker daemon running? | cause: false
read: Cannot connect to the Docker daemon at tcp://gpu-1:2375. Is the docker daemon running? | cause: false
TEXT
diff expected output && echo "as seen before"
