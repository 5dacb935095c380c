package sshclient

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// BenchmarkConnections200 measures 200 clients with one connection each to one sshd of this machine: the time until all are
// there, and the memory of this process for one. It is the worst case for an address: usually a host has one connection.
//
//	go test ./internal/sshclient -run '^$' -bench Connections200 -benchtime 1x
func BenchmarkConnections200(b *testing.B) {
	const count = 200
	s := startSSHD(b)
	echo := startEcho(b, "tcp", "127.0.0.1:0")
	for b.Loop() {
		before, goroutines := residentMemory(b), runtime.NumGoroutine()
		limits := NewLoginLimiter()
		clients := make([]*Client, count)
		begin := time.Now()
		var running sync.WaitGroup
		for i := range clients {
			clients[i] = New(Options{Login: s.login(), Limits: limits})
			running.Go(func() {
				conn, err := clients[i].Dial(b.Context(), "tcp", echo)
				if err != nil {
					b.Error(err)
					return
				}
				checkEcho(b, conn)
			})
		}
		running.Wait()
		b.ReportMetric(time.Since(begin).Seconds(), "s/200")
		b.ReportMetric(float64(residentMemory(b)-before)/count/1024, "KiB/connection")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/count, "goroutines/connection")
		connections := 0
		for _, c := range clients {
			connections += c.State().Connections
		}
		b.ReportMetric(float64(connections), "connections")
		for _, c := range clients {
			running.Go(func() { _ = c.Close() })
		}
		running.Wait()
	}
}

// residentMemory returns the resident memory of this process in bytes, after a garbage collection.
func residentMemory(b *testing.B) int {
	b.Helper()
	runtime.GC()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("needs linux: " + err.Error())
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		b.Fatal(err)
	}
	return kib << 10
}

// BenchmarkStream measures the throughput of one connection, both ways at once, beside that of x/crypto's own, which has no
// deadlines.
func BenchmarkStream(b *testing.B) {
	benchmarkConns(b, func(b *testing.B, conn net.Conn) {
		const size = 1 << 20
		piece := make([]byte, size)
		b.SetBytes(size)
		for b.Loop() {
			done := make(chan error, 1)
			go func() { _, err := conn.Write(piece); done <- err }()
			if _, err := io.CopyN(io.Discard, conn, size); err != nil {
				b.Fatal(err)
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPingPong measures one small message there and back.
func BenchmarkPingPong(b *testing.B) {
	benchmarkConns(b, func(b *testing.B, conn net.Conn) {
		buffer := make([]byte, 5)
		for b.Loop() {
			_, _ = fmt.Fprint(conn, "hello")
			if _, err := io.ReadFull(conn, buffer); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// benchmarkConns runs a benchmark with a connection of this package and with one of x/crypto, on the same SSH connection.
func benchmarkConns(b *testing.B, run func(*testing.B, net.Conn)) {
	c := startSSHD(b).client()
	echo := startEcho(b, "tcp", "127.0.0.1:0")
	conn, err := c.Dial(b.Context(), "tcp", echo)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	b.Run("dstack", func(b *testing.B) { run(b, conn) })
	_, payload, _, err := forwardRequest("tcp", echo)
	if err != nil {
		b.Fatal(err)
	}
	channel, requests, err := conn.(*channelConn).link.ssh.OpenChannel(tcpChannel, payload)
	if err != nil {
		b.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	defer func() { _ = channel.Close() }()
	b.Run("x-crypto", func(b *testing.B) { run(b, rawConn{Channel: channel, Conn: conn}) })
}

// rawConn is a channel of x/crypto; conn only completes the interface.
type rawConn struct {
	ssh.Channel
	net.Conn
}

func (c rawConn) Read(p []byte) (int, error)  { return c.Channel.Read(p) }
func (c rawConn) Write(p []byte) (int, error) { return c.Channel.Write(p) }
func (c rawConn) Close() error                { return c.Channel.Close() }
