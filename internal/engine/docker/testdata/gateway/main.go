// Command gateway stands in for the program of a gateway: it prints what it was given, and ends on SIGTERM.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// mark makes programs differ.
var mark string

func main() {
	_ = mark
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	token, err := os.ReadFile("/state/join-token")
	fmt.Println(os.Args[1:], os.Getenv("MODE"), string(token), err)
	if os.Getenv("MODE") == "fail" {
		fmt.Println("cannot serve")
		os.Exit(3)
	}
	<-stop
}
