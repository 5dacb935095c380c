// Package eventloop waits for many sockets at once in one goroutine, by epoll (Linux).
package eventloop
