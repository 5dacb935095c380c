package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/installationca"
	"dstack/internal/loop"
	"dstack/internal/server"
	"dstack/internal/server/logs"
	"dstack/internal/server/peers"
)

// openPeers prepares what a server needs that shares its database with others. On SQLite it is alone.
func (d *daemon) openPeers(ctx context.Context, output *logs.Store) (server.OutputReader, error) {
	if !d.store.IsShared() {
		return output, nil
	}
	if err := d.checkOwnEngines(ctx); err != nil {
		return nil, err
	}
	name, _ := os.Hostname() // it is for people only
	id := dstack.ServerID(d.hostID)
	d.membership = peers.New(peers.Options{Register: d.store, Changed: d.noteServers, Log: d.log, Self: dstack.Server{
		ID: id, Process: uuid.NewString(), Name: name, URL: d.peerURL, Version: currentVersion(), Machine: d.describeMachine(), StartedAt: time.Now(),
	}})
	secret, err := d.sealer.DeriveKey("calls between servers")
	if err != nil {
		return nil, err
	}
	config, err := installationca.ClientConfig(d.authority.Fingerprint())
	if err != nil {
		return nil, err
	}
	d.peers = peers.NewDirectory(d.membership, config, secret, d.log)
	d.peerHandler = peers.NewHandler(d.peers, output, func(ctx context.Context, address string) (bool, error) {
		return d.store.IsMachineEndpoint(ctx, id, address)
	})
	return peers.NewLogs(output, d.peers, d.store.OutputServer), nil
}

// joinServers makes this process one of the servers that share the database.
func (d *daemon) joinServers(ctx context.Context) error {
	if d.membership == nil {
		return nil
	}
	return d.membership.Join(ctx)
}

// noteServers makes the machines of other servers reachable, after one came, went or moved.
func (d *daemon) noteServers() {
	for _, other := range d.membership.Servers() {
		if id := other.ID; id != dstack.ServerID(d.hostID) {
			d.dialer.AddHost(id.MachineHost(), func(ctx context.Context, address string) (net.Conn, error) {
				return d.peers.DialMachine(ctx, id, address)
			})
		}
	}
	d.noteChange()
}

// peerURLVariable sets the URL at which the other servers that share the database reach this one.
const peerURLVariable = "DSTACK_SERVER_PEER_URL"

// readPeerURL sets the URL for other servers: the configured one, or the address that the server listens on. A server that
// listens on all addresses is reached at the one from which it reaches the database.
func (o *serverOptions) readPeerURL() error {
	o.peerURL = strings.TrimRight(os.Getenv(peerURLVariable), "/")
	if o.peerURL == "" {
		host := o.host
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = findOwnAddress(o.database)
		}
		if host != "" {
			o.peerURL = "https://" + net.JoinHostPort(host, strconv.Itoa(o.port))
		}
		return nil
	}
	u, err := url.Parse(o.peerURL)
	if err != nil || u.Scheme != "https" || u.Port() == "" || u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return newInvalidError(peerURLVariable+" is not the URL of a server: "+o.peerURL,
			"write https://, an address of this machine that the other servers reach, and the server's port: https://10.0.0.5:3000")
	}
	return nil
}

// ownAddressTimeout limits the look-up of the database's host.
const ownAddressTimeout = 3 * time.Second

// findOwnAddress returns the address of this machine from which it reaches the host of a database URL; empty: it is not known.
func findOwnAddress(database string) string {
	u, err := url.Parse(database)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	dialer := net.Dialer{Timeout: ownAddressTimeout}
	conn, err := dialer.Dial("udp", net.JoinHostPort(u.Hostname(), "5432")) // nothing is sent
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	host, _, _ := net.SplitHostPort(conn.LocalAddr().String())
	return host
}

// describePeers says where the other servers reach this one; empty: it is alone.
func (d *daemon) describePeers() string {
	switch {
	case d.membership == nil:
		return ""
	case d.peerURL == "":
		return "servers that share the database do not reach this one: set " + peerURLVariable
	case d.isLoopback() && os.Getenv(peerURLVariable) == "":
		return "servers on this machine that share the database reach this one at " + d.peerURL + "; for others, set " + peerURLVariable
	}
	return "servers that share the database reach this one at " + d.peerURL
}

// checkPeerURL warns if this server itself does not answer at the URL that it tells to others.
func (d *daemon) checkPeerURL(ctx context.Context) (time.Duration, error) {
	const soon, later = time.Second, 5 * time.Minute
	if d.peerURL == "" || loop.Sleep(ctx, soon) != nil {
		return later, nil
	}
	if err := d.peers.Check(ctx, dstack.Server{ID: dstack.ServerID(d.hostID), URL: d.peerURL}); err != nil && ctx.Err() == nil {
		d.log.Warn("this server does not answer at its address for other servers; set "+peerURLVariable, "url", d.peerURL, "err", err)
	}
	return later, nil
}

// checkOwnEngines fails if another server starts containers with the Docker Engine of this machine, too: each would stop those
// of the other.
func (d *daemon) checkOwnEngines(ctx context.Context) error {
	servers, err := d.store.ListServers(ctx)
	if err != nil {
		return err
	}
	for _, other := range servers {
		for _, engine := range d.describeMachine().Engines {
			if other.ID != dstack.ServerID(d.hostID) && !other.IsEnded && slices.Contains(other.Machine.Engines, engine) {
				return &dstack.Error{Kind: dstack.Conflict,
					Message: fmt.Sprintf("the Docker Engine of this machine is used by the server %s on %s, which shares the database", other.ID, other.Name),
					Hint:    "give this server no local backend: write `backends: []` for its projects in " + d.filePath("config.yml")}
			}
		}
	}
	return nil
}

// noteChange makes the passes and all waiting calls look again, after another server has changed something.
func (d *daemon) noteChange() {
	if d.reconciler != nil { // it is created after this server has joined the others
		d.reconciler.Wake()
	}
	d.changes.Notify()
}

// shareTasks returns the tasks of a server that shares its database.
func (d *daemon) shareTasks() []loop.Task {
	if d.membership == nil {
		return nil
	}
	tasks := d.store.ShareTasks(dstack.ServerID(d.hostID), d.noteChange)
	return append(tasks, d.membership.Task(), loop.Repeat("address for other servers", nil, d.checkPeerURL))
}

// leaveServers lets the other servers go on at once.
func (d *daemon) leaveServers() {
	if err := d.membership.Leave(context.Background()); err != nil {
		d.log.Warn("the other servers were not told that this one stops; they go on in a few seconds", "err", err)
	}
}

// permit is the Permit of the passes.
func (d *daemon) permit() (check func() error) { return d.membership.Permit() }

// mayStart is the engine.StartCheck of all engines that run containers. What this process had begun to start when another one took over, that
// one goes on with.
func (d *daemon) mayStart(ctx context.Context, attempt dstack.AttemptID) error {
	if d.isReplaced() {
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the process %d has taken over, and starts the attempt %s", d.successor.Load(), attempt)}
	}
	return d.store.CheckStart(ctx, attempt, dstack.ServerID(d.hostID))
}
