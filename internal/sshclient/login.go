package sshclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// errDropped is in the chain of errors for connections that the server closed before the login was decided. sshd does so
// with too many connections at once, and with addresses that it penalizes; it never says why.
var errDropped = errors.New("the server closed the connection before the login")

// logIn opens a connection, within the pauses of the LoginLimiter.
func (c *Client) logIn(ctx context.Context) (*link, error) {
	signers, err := parseKeys(c.options.Login.PrivateKey)
	if err != nil {
		return nil, err
	}
	rules, err := newHostKeyRules(c.name(), c.pinnedKey(), c.options.Login.Fingerprints)
	if err != nil {
		return nil, err
	}
	for {
		if err := c.limits.begin(ctx, c.login); err != nil {
			return nil, err
		}
		l, err := c.tryLogIn(ctx, rules, signers)
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		reason, mayRetry := c.limits.end(c.login, err)
		if !mayRetry || ctx.Err() != nil {
			return l, reason
		}
		c.log.Debug("an SSH server closed the connection before the login; trying again", "host", c.name(), "err", err)
	}
}

// tryLogIn logs in once. With fingerprints, that can take a connection for each sort of host key.
func (c *Client) tryLogIn(ctx context.Context, rules hostKeyRules, signers []ssh.Signer) (*link, error) {
	var refusal error
	for _, algorithms := range rules.algorithms() {
		conn, err := c.connect(ctx)
		if err != nil {
			return nil, err
		}
		h := &handshake{client: c, rules: rules, signers: signers, algorithms: algorithms}
		l, err := h.run(ctx, conn)
		switch {
		case err == nil:
			return l, nil
		case !h.isKeyMissing && !h.isKeyRefused:
			return nil, err
		case refusal == nil || h.isKeyRefused: // a key that is another one says more than a missing type
			refusal = err
		}
	}
	return nil, refusal
}

// connect opens the TCP connection: directly, or through the jump host.
func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.times.connect)
	defer cancel()
	if c.options.Jump == nil {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", c.options.Login.Address)
		if err != nil {
			return nil, c.explainConnect(ctx, err)
		}
		return conn, nil
	}
	address, err := c.options.Jump.resolve(ctx, c.options.Login.Address)
	if err != nil {
		return nil, c.explainJump(err)
	}
	conn, err := c.options.Jump.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, c.explainJump(err)
	}
	return conn, nil
}

// errJump is in the chain of errors of the jump host. They say nothing about the host behind it.
var errJump = errors.New("the jump host failed")

// explainJump returns the error for a host that cannot be reached through its jump host.
func (c *Client) explainJump(err error) error {
	step := StepOf(err)
	if step == "" {
		step = dstack.HostStepConnect
	}
	return stepFailure(dstack.KindOf(err), step, errors.Join(errJump, err),
		fmt.Sprintf("%s cannot be reached through its jump host: %v", c.name(), err), hintOf(err))
}

// handshake is one key exchange and login on a new connection.
type handshake struct {
	client     *Client
	rules      hostKeyRules
	signers    []ssh.Signer
	algorithms []string // for host keys

	isKeyAccepted bool  // the server has proven that it has an allowed host key
	isKeyRefused  bool  // the server has a host key that is not allowed
	isKeyMissing  bool  // the server has no host key for the algorithms
	keyErr        error // why the login stopped at the host key
}

// run logs in on conn, and closes it if that fails.
func (h *handshake) run(ctx context.Context, conn net.Conn) (*link, error) {
	watched := &watchedConn{Conn: conn}
	watched.noteRead()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(h.client.times.handshake)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	sshConn, channels, requests, err := ssh.NewClientConn(watched, h.client.options.Login.Address, h.config(ctx))
	if err != nil {
		return nil, h.explain(err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = sshConn.Close()
		return nil, err
	}
	l := newLink(h.client, watched, sshConn)
	l.offers, l.requests = channels, requests
	return l, nil
}

func (h *handshake) config(ctx context.Context) *ssh.ClientConfig {
	secure := ssh.SupportedAlgorithms()
	return &ssh.ClientConfig{
		Config: ssh.Config{KeyExchanges: secure.KeyExchanges, Ciphers: secure.Ciphers, MACs: secure.MACs},
		User:   h.client.options.Login.User,
		// All keys are in one method: x/crypto tries only the first method of a kind.
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(h.signers...)},
		HostKeyAlgorithms: h.algorithms,
		ClientVersion:     "SSH-2.0-dstack",
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			h.isKeyRefused = !h.rules.allows(key)
			h.keyErr = h.client.checkHostKey(ctx, h.rules, key)
			h.isKeyAccepted = h.keyErr == nil
			return h.keyErr
		},
	}
}

// explain returns the error for the user. What the handshake has reached decides about it, not the text of err.
func (h *handshake) explain(err error) error {
	name, user := h.client.name(), h.client.options.Login.User
	mismatch, isMismatch := errors.AsType[*ssh.AlgorithmNegotiationError](err)
	netErr, isNetErr := errors.AsType[net.Error](err)
	switch {
	case h.keyErr != nil:
		return h.keyErr
	case isMismatch && slices.Equal(mismatch.SupportedAlgorithms, h.algorithms):
		h.isKeyMissing = true
		return h.rules.refuseTypes(mismatch.RequestedAlgorithms)
	case isMismatch:
		return stepFailure(dstack.Unsupported, dstack.HostStepConnect, err, fmt.Sprintf("%s and dstack have no secure "+
			"algorithm in common: %s offers %s", name, mismatch.What, listOffered(mismatch.RequestedAlgorithms)), "update OpenSSH there")
	case isNetErr && netErr.Timeout():
		return stepFailure(dstack.Unavailable, dstack.HostStepConnect, err, fmt.Sprintf("%s accepts connections, but the "+
			"login did not end within %s", name, h.client.times.handshake), "check that an SSH server listens there, and its load")
	case isNetErr, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), dstack.KindOf(err) == dstack.Unavailable:
		return stepFailure(dstack.Unavailable, dstack.HostStepConnect, errors.Join(errDropped, err), name+" closes connections "+
			"before the login", "its sshd may have too many logins at once (MaxStartups), or refuse this address for some time "+
			"(PerSourcePenalties): see its log")
	case !h.isKeyAccepted:
		return stepFailure(dstack.Unavailable, dstack.HostStepConnect, err, name+" does not answer as an SSH server",
			"check the port")
	default:
		return stepFailure(dstack.Unauthorized, dstack.HostStepLogin, err, fmt.Sprintf("%s refuses the key %s for user %s",
			name, h.describeKeys(), user), fmt.Sprintf("add the public key to ~%s/.ssh/authorized_keys there, and check the user; "+
			"its log has the reason: journalctl -u ssh", user))
	}
}

// describeKeys returns the fingerprints of the login's keys.
func (h *handshake) describeKeys() string {
	text := ""
	for i, signer := range h.signers {
		if i > 0 {
			text += ", "
		}
		text += ssh.FingerprintSHA256(signer.PublicKey())
	}
	return text
}

// explainConnect returns the error for an address that cannot be connected to.
func (c *Client) explainConnect(ctx context.Context, err error) error {
	message := fmt.Sprintf("%s cannot be reached: %s", c.name(), describeNetError(err))
	hint := "check the address, that the machine runs, and that a firewall lets SSH through"
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		hint = "check the name, and that the server's machine can resolve it; or write the address of the host"
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		message = fmt.Sprintf("%s does not answer within %s", c.name(), c.times.connect)
	}
	return stepFailure(dstack.Unavailable, dstack.HostStepConnect, err, message, hint)
}

// describeNetError returns the innermost reason of an error of package net, such as "connection refused".
func describeNetError(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("its name cannot be resolved (%s)", dns.Err)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		for inner := op.Err; ; {
			next := errors.Unwrap(inner)
			if next == nil {
				return inner.Error()
			}
			inner = next
		}
	}
	return err.Error()
}

// newLogin returns the names under which a LoginLimiter knows the login. The digest covers the keys, so that a mended
// configuration need not wait for the pause of the old one.
func newLogin(o Options) login {
	path := o.Login.Address
	for jump := o.Jump; jump != nil; jump = jump.options.Jump {
		path = jump.options.Login.Address + " " + path
	}
	text, err := json.Marshal([]any{path, o.Login})
	if err != nil { // it contains strings only
		panic(err)
	}
	digest := sha256.Sum256(text)
	return login{address: path, digest: hex.EncodeToString(digest[:])}
}
