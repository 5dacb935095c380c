package certificate

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"dstack/internal/dstack"
)

// letsEncrypt is the directory of Let's Encrypt.
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// ACME is the ACME server of an installation, and the account there.
type ACME struct {
	Server  string // URL of the directory; empty: Let's Encrypt
	KeyID   string // of the external account binding; empty: none
	HMACKey string // of the external account binding, base64url
	Email   string // for domains whose certificate has none
	Roots   string // PEM of the authorities that the server's certificate may have; empty: the system's
	Profile string // of certificates, if the server offers several
	// HTTPPort and HTTPSPort are where the server connects to for its challenges;
	// 0: 80 and 443, which public servers use.
	HTTPPort, HTTPSPort int
	Resolvers           string // name servers as host:port, with commas, that know names as the server sees them; empty: the system's
}

// ACMEFromEnvironment reads the ACME server from environment variables. The error
// names all that are wrong.
func ACMEFromEnvironment(getenv func(string) string) (ACME, error) {
	a := ACME{
		Server: getenv("DSTACK_ACME_SERVER"), KeyID: getenv("DSTACK_ACME_EAB_KID"), HMACKey: getenv("DSTACK_ACME_EAB_HMAC_KEY"),
		Email: getenv("DSTACK_ACME_EMAIL"), Profile: getenv("DSTACK_ACME_PROFILE"),
		Resolvers: getenv("DSTACK_ACME_RESOLVERS"),
	}
	var wrong []string
	if u, err := url.Parse(a.Server); a.Server != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		wrong = append(wrong, fmt.Sprintf("DSTACK_ACME_SERVER=%s is not the https URL of an ACME directory", a.Server))
	}
	if (a.KeyID == "") != (a.HMACKey == "") {
		wrong = append(wrong, "DSTACK_ACME_EAB_KID and DSTACK_ACME_EAB_HMAC_KEY belong together, and only one is set")
	}
	if file := getenv("DSTACK_ACME_CA_ROOT"); file != "" {
		text, err := os.ReadFile(file)
		if a.Roots = string(text); err == nil {
			_, err = parseRoots(a.Roots)
		}
		if err != nil {
			wrong = append(wrong, "DSTACK_ACME_CA_ROOT: "+err.Error())
		}
	}
	for name, port := range map[string]*int{"DSTACK_ACME_HTTP_PORT": &a.HTTPPort, "DSTACK_ACME_HTTPS_PORT": &a.HTTPSPort} {
		text := getenv(name)
		if text == "" {
			continue
		}
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 || number > 65535 {
			wrong = append(wrong, fmt.Sprintf("%s=%s is not a port", name, text))
		}
		*port = number
	}
	for _, resolver := range a.resolvers() {
		if _, _, err := net.SplitHostPort(resolver); err != nil {
			wrong = append(wrong, fmt.Sprintf("DSTACK_ACME_RESOLVERS has %s, which is not host:port", resolver))
		}
	}
	if len(wrong) > 0 {
		return ACME{}, &dstack.Error{Kind: dstack.Invalid, Message: strings.Join(wrong, "; "),
			Hint: "docs/reference/certificates.md describes these variables"}
	}
	return a, nil
}

// directoryURL returns the URL of the directory.
func (a ACME) directoryURL() string { return cmp.Or(a.Server, letsEncrypt) }

// resolvers returns Resolvers as a list.
func (a ACME) resolvers() []string {
	return strings.FieldsFunc(a.Resolvers, func(r rune) bool { return r == ',' || r == ' ' })
}

// issuerKey returns the part of storage keys that is of this server. Another server has other accounts and certificates.
func (a ACME) issuerKey() string {
	u, err := url.Parse(a.directoryURL())
	if err != nil {
		return "unknown"
	}
	keep := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}
	return strings.Trim(strings.Map(keep, strings.ToLower(u.Host+u.Path)), "-.")
}

// host returns the host of the server, for messages.
func (a ACME) host() string {
	u, err := url.Parse(a.directoryURL())
	if err != nil {
		return a.directoryURL()
	}
	return u.Hostname()
}

// parseRoots parses the certificates of authorities; nil without any text.
func parseRoots(text string) (*x509.CertPool, error) {
	if text == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(text)) {
		return nil, errors.New("there is no certificate in PEM")
	}
	return pool, nil
}

// Timeouts of requests to an ACME server.
const (
	requestTimeout = 30 * time.Second
	answerTimeout  = 20 * time.Second
)

// newACMEClient returns a client for requests to the server, which notes its holds.
func newACMEClient(a ACME) (*http.Client, error) {
	roots, err := parseRoots(a.Roots)
	if err != nil {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "the authorities of the ACME server cannot be read: " + err.Error(), Cause: err}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	transport.ResponseHeaderTimeout = answerTimeout
	return &http.Client{Transport: holdNoter{transport}, Timeout: requestTimeout}, nil
}

// acmeServer is the ACME server that a Keeper uses. It is immutable.
type acmeServer struct {
	ACME
	client    *http.Client
	directory *acme.Client // for questions without an account
}

func newACMEServer(a ACME) (*acmeServer, error) {
	client, err := newACMEClient(a)
	if err != nil {
		return nil, err
	}
	s := &acmeServer{ACME: a, client: client}
	s.directory = s.newDirectory()
	return s, nil
}

func (s *acmeServer) newDirectory() *acme.Client {
	return &acme.Client{Directory: s.directoryURL(), HTTPClient: s.client, UserAgent: "dstack"}
}

// SetACME changes the ACME server. The present certificates are served until those of the new server are there. It may be
// called again with the same server. If it fails, the present server stays.
func (k *Keeper) SetACME(a ACME) error {
	if k.acme.Load().ACME == a {
		return nil
	}
	server, err := newACMEServer(a)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.acme.Store(server)
	k.issuer = issuerState{}
	for key, e := range k.entries {
		if !e.isOrdered() {
			continue
		}
		next := *e
		next.source = e.source.Clone() // what is going on at the old server does not count
		next.isRunning, next.due, next.record, next.problem = false, time.Time{}, record{}, problem{}
		k.entries[key] = &next
	}
	k.wakeAll()
	return nil
}

// hold is what an ACME server said during one try: when it wants the next request.
type hold struct{ until time.Time }

type holdKey struct{}

// withHold returns a context whose requests note holds in h.
func withHold(ctx context.Context, h *hold) context.Context {
	return context.WithValue(ctx, holdKey{}, h)
}

// holdNoter notes Retry-After of the answers 429 and 503, which the ACME library does not return.
type holdNoter struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (n holdNoter) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := n.next.RoundTrip(r)
	if err != nil || answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusServiceUnavailable {
		return answer, err
	}
	if h, ok := r.Context().Value(holdKey{}).(*hold); ok {
		if until := parseRetryAfter(answer.Header.Get("Retry-After"), time.Now()); until.After(h.until) {
			h.until = until
		}
	}
	return answer, nil
}

// parseRetryAfter parses the header Retry-After; zero if it says nothing.
func parseRetryAfter(text string, now time.Time) time.Time {
	if seconds, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && seconds >= 0 {
		return now.Add(min(time.Duration(seconds), 366*24*3600) * time.Second)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return time.Time{}
	}
	return at
}
