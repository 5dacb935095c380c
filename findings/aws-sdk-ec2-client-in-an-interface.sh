#!/usr/bin/env bash
# A paginator of aws-sdk-go-v2's package for EC2 makes a program that also uses text/template 30 MB larger: all actions of EC2 stay.
#
# Seen on 2026-11-29 with github.com/aws/aws-sdk-go-v2/service/ec2 v1.347.0 and Go 1.26, on Linux, stripped (-ldflags "-s -w"),
# without cgo. Two programs list instances page by page with the same client, and print one line with text/template:
#
#   the loop over NextToken is                                  size
#   written in the program                                      9 MB
#   that of ec2.NewDescribeInstancesPaginator                   39 MB
#
# Without text/template, both have 7 MB.
#
# Guess before the run: the paginator is a loop of thirty lines, so it costs a few kilobytes.
# Seen: it takes the client as an interface. Go's linker drops the methods that nothing calls, unless the program looks methods
# up by names that are known only when it runs, as text/template does, and with it the usual libraries for command lines. Then
# it keeps every exported method of each type that reaches an interface. This client has more than 800, each with types,
# serializers and middleware of its own. The same happens without a paginator if the client is kept in a field, a map or a
# closure of a value that reaches an interface, as a mock's interface does. A client that is made in a function and used there
# costs nothing of this. The sizes depend on the Go version: the script asks for a factor of 2.
#
# It needs bash, Go and a Go module proxy, and about five minutes of a core, which compile the package. It listens nowhere. It
# fails if any of this is different now.
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
unset GOFLAGS
cat >go.mod <<'MOD'
module finding
go 1.26.0
require (
	github.com/aws/aws-sdk-go-v2 v1.48.0
	github.com/aws/aws-sdk-go-v2/service/ec2 v1.347.0
)
MOD
mkdir loop paginator
cat >loop/main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"text/template"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

func main() {
	client := ec2.New(ec2.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1:9"), RetryMaxAttempts: 1})
	input := &ec2.DescribeInstancesInput{}
	for {
		page, err := client.DescribeInstances(context.Background(), input)
		if err != nil {
			_ = template.Must(template.New("").Parse("no answer\n")).Execute(os.Stdout, nil)
			return
		}
		fmt.Println(len(page.Reservations))
		if input.NextToken = page.NextToken; input.NextToken == nil {
			return
		}
	}
}
GO
cat >paginator/main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"text/template"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

func main() {
	client := ec2.New(ec2.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1:9"), RetryMaxAttempts: 1})
	for pages := ec2.NewDescribeInstancesPaginator(client, &ec2.DescribeInstancesInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			_ = template.Must(template.New("").Parse("no answer\n")).Execute(os.Stdout, nil)
			return
		}
		fmt.Println(len(page.Reservations))
	}
}
GO
go mod tidy >tidy.log 2>&1 || { cat tidy.log; exit 1; }
for program in loop paginator; do
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$program/program" "./$program"
	size=$(($(wc -c <"$program/program") / 1000000))
	echo "$program: $size MB"
	echo "$size" >"$program/size"
	[ "$("./$program/program")" = "no answer" ]
done
[ "$(cat paginator/size)" -ge $((2 * $(cat loop/size))) ]
