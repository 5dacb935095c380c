// Command dstack is the command line, the server and the gateway.
package main

func main() {}
