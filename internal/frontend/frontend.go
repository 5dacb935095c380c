// Package frontend serves the names of gateways on the published ports of a machine: https, and http for
// redirects, for the challenges of certificate authorities, and for gateways without a certificate. It also
// lets one port serve both plain HTTP and TLS: see Splitter.
package frontend

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/loop"
)

// The names of the listeners, for Options.Listen.
const (
	HTTPSListener = "https"
	HTTPListener  = "http"
)

// Name says what a frontend serves at the host of a request.
type Name int

// The kinds of names.
const (
	UnknownName Name = iota // nothing here
	SecureName              // a name that is served over https alone
	PlainName               // a name of a gateway without a certificate, served over http
)

// Options configure a frontend. Handler, TLS and Find are required.
type Options struct {
	Handler http.Handler // serves requests for the names that Find knows
	TLS     *tls.Config  // with the certificates of the names
	// Find says what a Host header names. It is called for each request, and must not wait.
	Find func(host string) Name
	// Covers says that there is a valid certificate for a name; nil: for all secure names.
	Covers func(name string) bool
	// WhatIsMissing says for users why there is no certificate for a name yet; nil or empty: it is not known.
	WhatIsMissing func(name string) string
	// Challenges wraps the handler of the http port, so that it answers certificate authorities; nil: none asks.
	Challenges func(http.Handler) http.Handler

	Host                string // the address to listen on; empty: all
	HTTPSPort, HTTPPort int    // 0: 443 and 80
	PortFlag            string // how a user chooses other ports, for messages; default: --https-port or --http-port
	// Listen opens the listener with a name, again after it was closed; nil: a new one by package net.
	Listen func(ctx context.Context, name, address string) (net.Listener, error)
	// FastPath puts something in front of the http port that serves connections itself, and delivers the others; nil: nothing.
	FastPath func(net.Listener) (FastListener, error)
	// ConnContext is that of an http.Server.
	ConnContext func(context.Context, net.Conn) context.Context
	// BaseContext is that of an http.Server: the end of its context ends the requests.
	BaseContext func(net.Listener) context.Context
	Log         *slog.Logger // nil: slog.Default
}

// FastListener serves connections of a listener itself, and accepts the others. Close ends all that it serves.
type FastListener interface {
	net.Listener
	// Drain stops accepting new connections, and returns once it serves no request any more, or ctx ended. What it does not serve
	// can be accepted until Close.
	Drain(ctx context.Context)
}

// Frontend listens on the published ports while they are wanted. The methods may be called at once.
type Frontend struct {
	options     Options
	https, http *port
	wake        loop.Wake
	changes     loop.Broadcast // a port was opened or closed, or could not be opened
}

// New returns a frontend, which listens once its Tasks run and a port is wanted.
func New(o Options) *Frontend {
	o.Log = cmp.Or(o.Log, slog.Default())
	if o.Listen == nil {
		o.Listen = func(ctx context.Context, _, address string) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		}
	}
	if o.Covers == nil {
		o.Covers = func(string) bool { return true }
	}
	if o.WhatIsMissing == nil {
		o.WhatIsMissing = func(string) string { return "" }
	}
	f := &Frontend{options: o, wake: loop.NewWake()}
	o.HTTPSPort, o.HTTPPort = cmp.Or(o.HTTPSPort, 443), cmp.Or(o.HTTPPort, 80)
	var plain http.Handler = http.HandlerFunc(f.servePlain)
	if o.Challenges != nil {
		plain = o.Challenges(plain)
	}
	f.options.HTTPSPort, f.options.HTTPPort = o.HTTPSPort, o.HTTPPort
	withoutFast := f.options
	withoutFast.FastPath = nil
	f.https = &port{name: HTTPSListener, number: o.HTTPSPort, options: withoutFast, handler: AcceptWebSockets(http.HandlerFunc(f.serveSecure)), tls: o.TLS,
		changed: f.changes.Notify}
	f.http = &port{name: HTTPListener, number: o.HTTPPort, options: f.options, handler: plain, changed: f.changes.Notify}
	return f
}

// SetWanted says which ports are to be open. One that is not any more is closed once its requests are served.
func (f *Frontend) SetWanted(https, http bool) {
	changed := f.https.setWanted(https)
	if f.http.setWanted(http) || changed {
		f.wake.Signal()
	}
}

// Problems says, for users, why wanted ports are not open. They are tried again every few seconds.
func (f *Frontend) Problems() []string {
	return slices.DeleteFunc([]string{f.https.currentProblem(), f.http.currentProblem()}, func(p string) bool { return p == "" })
}

// WaitForPorts returns once each wanted port was opened, or could not be.
func (f *Frontend) WaitForPorts(ctx context.Context) error {
	for {
		changed := f.changes.Changed()
		if f.https.isDecided() && f.http.isDecided() {
			return nil
		}
		if err := loop.SleepUntil(ctx, time.Hour, changed); err != nil {
			return err
		}
	}
}

// HTTPSPort is the port that URLs with https need.
func (f *Frontend) HTTPSPort() int { return f.options.HTTPSPort }

// HTTPPort is the port that URLs with http need.
func (f *Frontend) HTTPPort() int { return f.options.HTTPPort }

// IsOpen says that the https and the http port accept connections.
func (f *Frontend) IsOpen() (https, http bool) { return f.https.isOpen(), f.http.isOpen() }

// retryTime is after how long a port is tried again that could not be opened.
const retryTime = 2 * time.Second

// Tasks are to run while the frontend serves. When they end, its connections are closed: see Drain.
func (f *Frontend) Tasks() []loop.Task {
	return []loop.Task{{Name: "published ports", Run: f.keepPorts}}
}

func (f *Frontend) keepPorts(ctx context.Context) error {
	var serving errgroup.Group
	defer func() {
		f.https.close()
		f.http.close()
		_ = serving.Wait() // each logs its own error
	}()
	for {
		wait := time.Hour
		for _, p := range []*port{f.https, f.http} {
			if isDone := p.adjust(ctx, &serving); !isDone {
				wait = retryTime
			}
		}
		if err := loop.SleepUntil(ctx, wait, f.wake); err != nil {
			return err
		}
	}
}

// StopAccepting closes the ports for good. Connections that are open are served on.
func (f *Frontend) StopAccepting() {
	f.https.stopAccepting()
	f.http.stopAccepting()
}

// Drain stops accepting connections, and returns once all requests are served, or ctx ended.
func (f *Frontend) Drain(ctx context.Context) {
	var group errgroup.Group
	for _, p := range []*port{f.https, f.http} {
		group.Go(func() error { p.drain(ctx); return nil })
	}
	_ = group.Wait()
}

// Close closes all connections.
func (f *Frontend) Close() {
	f.https.close()
	f.http.close()
}

func portText(number int) string { return strconv.Itoa(number) }
