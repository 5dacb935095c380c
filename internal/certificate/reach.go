package certificate

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/sync/errgroup"
)

// reached says who answers at an address.
type reached int

const (
	reachedNobody  reached = iota // nothing answers in time
	reachedClosed                 // the port is closed
	reachedAnother                // another program answers
	reachedUs                     // this process, or another one of the domain
)

// maxProbed limits the addresses of a name that are asked, and probeTimeout each of them.
const (
	maxProbed    = 4
	probeTimeout = 3 * time.Second
)

// checkReach finds out whether the challenges of an ACME server for a name reach a
// process of its domain. It returns the types of challenges that do, or all if that
// cannot be known from here, as behind some routers. The error says what is wrong for sure.
func (k *Keeper) checkReach(ctx context.Context, e *entry) ([]string, *problem) {
	addresses, err := k.lookUp(ctx, e.name)
	if err != nil {
		return nil, k.explainLookup(e, err)
	}
	http01, tls01, where := k.probeAll(ctx, e, addresses[:min(len(addresses), maxProbed)])
	var types []string
	if http01 == reachedUs {
		types = append(types, acme.ChallengeTypeHTTP01)
	}
	if tls01 == reachedUs {
		types = append(types, acme.ChallengeTypeTLSALPN01)
	}
	switch own := k.ownAddresses(); {
	case len(types) > 0:
		return types, nil
	case http01 == reachedAnother || tls01 == reachedAnother:
		return nil, &problem{fmt.Sprintf("%s does not point at %s", e.name, k.describeOwn(own)),
			fmt.Sprintf("another program answers at %s, where it points; change its DNS record, or stop that program", where)}
	case slices.Contains(own, where) && http01 == reachedClosed && tls01 == reachedClosed:
		return nil, &problem{fmt.Sprintf("the issuer cannot reach ports %d and %d of %s", k.validationPort("http"), k.validationPort("https"), where),
			"nothing listens there; let the gateway listen on these ports, or forward them to it"}
	}
	return []string{acme.ChallengeTypeHTTP01, acme.ChallengeTypeTLSALPN01}, nil
}

// probeAll asks all addresses of a name at once. It returns the worst that they answer over
// HTTP and over TLS, and an address where neither reaches us.
func (k *Keeper) probeAll(ctx context.Context, e *entry, addresses []netip.Addr) (http01, tls01 reached, where netip.Addr) {
	byHTTP, byTLS := make([]reached, len(addresses)), make([]reached, len(addresses))
	var group errgroup.Group
	for i, address := range addresses {
		group.Go(func() error { byHTTP[i] = k.probeHTTP(ctx, e, address); return nil })
		group.Go(func() error { byTLS[i] = k.probeTLS(ctx, e, address); return nil })
	}
	group.Wait() //nolint:errcheck,gosec // no probe fails
	where = addresses[0]
	for i, address := range addresses {
		if max(byHTTP[i], byTLS[i]) < reachedUs {
			where = address
		}
	}
	return slices.Min(byHTTP), slices.Min(byTLS), where
}

// explainLookup returns the problem of a name that has no address.
func (k *Keeper) explainLookup(e *entry, err error) *problem {
	if strings.HasSuffix("."+e.domain, ".localhost") {
		return &problem{"public issuers have no certificates for names below localhost", "write certificate: {type: internal} for the gateway"}
	}
	if notFound, ok := errors.AsType[*net.DNSError](err); ok && notFound.IsNotFound {
		return &problem{fmt.Sprintf("%s does not point at %s: it has no DNS record", e.name, k.describeOwn(k.ownAddresses())),
			fmt.Sprintf("add a DNS record of type A for *.%s", e.domain)}
	}
	return &problem{fmt.Sprintf("%s cannot be looked up: %s", e.name, cleanText(err.Error())), "check the name servers of the domain"}
}

// validationPort returns the port to which the ACME server connects.
func (k *Keeper) validationPort(scheme string) int {
	if scheme == "http" {
		return cmp.Or(k.acme.Load().HTTPPort, 80)
	}
	return cmp.Or(k.acme.Load().HTTPSPort, 443)
}

// lookUp returns the addresses of a name; at least one if err is nil.
func (k *Keeper) lookUp(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*probeTimeout)
	defer cancel()
	addresses, err := k.resolver().LookupNetIP(ctx, "ip", name+".")
	for i := range addresses {
		addresses[i] = addresses[i].Unmap()
	}
	if err == nil && len(addresses) == 0 {
		err = &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return addresses, err
}

// resolver returns what asks the configured name servers, or those of the system.
func (k *Keeper) resolver() *net.Resolver {
	servers := k.acme.Load().resolvers()
	if len(servers) == 0 {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		for _, server := range servers {
			if conn, err = (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, network, server); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}}
}

// probeHTTP asks an address for the answer to an HTTP-01 challenge.
func (k *Keeper) probeHTTP(ctx context.Context, e *entry, address netip.Addr) reached {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	token := probeTokenPrefix + rand.Text()
	at := netip.AddrPortFrom(address, uint16(k.validationPort("http"))).String() //nolint:gosec // a port
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", at)
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.name+challengePath+token, nil)
	if err != nil {
		return reachedNobody
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return classifyConnection(err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1000))
	want := k.probeAnswer(ctx, e.domain, "http", e.name, token)
	if err == nil && want != "" && string(body) == want {
		return reachedUs
	}
	return reachedAnother
}

// probeTLS asks an address for the answer to a TLS-ALPN-01 challenge.
func (k *Keeper) probeTLS(ctx context.Context, e *entry, address netip.Addr) reached {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	at := netip.AddrPortFrom(address, uint16(k.validationPort("https"))).String() //nolint:gosec // a port
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at)
	if err != nil {
		return classifyConnection(err)
	}
	defer conn.Close() //nolint:errcheck // only read
	client := tls.Client(conn, &tls.Config{ServerName: e.name, NextProtos: []string{acmez.ACMETLS1Protocol, probeProtocol}, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true}) //nolint:gosec // the extension of the certificate proves who it is
	if err := client.HandshakeContext(ctx); err != nil {
		return reachedAnother
	}
	want, err := acmez.TLSALPN01ChallengeCert(k.probeChallenge(ctx, e.domain, e.name))
	if err != nil {
		return reachedNobody
	}
	// The extension of the challenge is the only critical one that Go does not know.
	for _, got := range client.ConnectionState().PeerCertificates[0].Extensions {
		for _, extension := range want.Leaf.Extensions {
			if got.Critical && got.Id.Equal(extension.Id) && len(got.Value) == 34 && string(got.Value) == string(extension.Value) {
				return reachedUs
			}
		}
	}
	return reachedAnother
}

// classifyConnection says what a failed connection means.
func classifyConnection(err error) reached {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return reachedClosed
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH):
		return reachedNobody
	}
	if wrong, ok := errors.AsType[net.Error](err); ok && wrong.Timeout() {
		return reachedNobody
	}
	return reachedAnother
}

// ownAddresses returns the addresses of this machine that names could point at.
func (k *Keeper) ownAddresses() (own []netip.Addr) {
	for _, text := range k.opts.Addresses {
		if address, err := netip.ParseAddr(text); err == nil {
			own = append(own, address)
		}
	}
	if len(own) > 0 {
		return own
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, address := range all {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && !prefix.Addr().IsLinkLocalUnicast() {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	slices.SortStableFunc(own, func(a, b netip.Addr) int { return cmp.Compare(addressRank(a), addressRank(b)) })
	return own
}

// addressRank sorts addresses by how likely the internet reaches them.
func addressRank(a netip.Addr) int {
	switch {
	case a.IsLoopback():
		return 2
	case a.IsPrivate():
		return 1
	}
	return 0
}

// describeOwn names the address that a DNS record should have.
func (k *Keeper) describeOwn(own []netip.Addr) string {
	if len(own) == 0 || len(k.opts.Addresses) == 0 && addressRank(own[0]) > 0 {
		return "this gateway"
	}
	return own[0].String()
}

// maxText limits texts of other programs in messages.
const maxText = 300

// cleanText makes a text of another program fit for one line of a message.
func cleanText(text string) string {
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return ' '
	}, text)), " ")
	if runes := []rune(text); len(runes) > maxText {
		return string(runes[:maxText]) + "…"
	}
	return text
}
