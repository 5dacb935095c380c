package certificate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"

	"github.com/libdns/libdns"
)

// webhookProvider writes records by a service of the user: POST {action, name, value}.
type webhookProvider struct {
	url, token string
	client     *http.Client
}

// hookCall is the body of a call.
type hookCall struct {
	Action string `json:"action"` // present, cleanup
	Name   string `json:"name"`   // _acme-challenge.example.com
	Value  string `json:"value"`
}

// AppendRecords implements libdns.RecordAppender.
func (p webhookProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.call(ctx, "present", zone, records)
}

// DeleteRecords implements libdns.RecordDeleter.
func (p webhookProvider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.call(ctx, "cleanup", zone, records)
}

func (p webhookProvider) call(ctx context.Context, action, zone string, records []libdns.Record) error {
	for _, record := range records {
		r := record.RR()
		body, err := json.Marshal(hookCall{action, strings.TrimSuffix(libdns.AbsoluteName(r.Name, zone), "."), r.Data})
		if err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		if p.token != "" {
			request.Header.Set("Authorization", "Bearer "+p.token)
		}
		answer, err := p.client.Do(request)
		if err != nil {
			return errors.New(rootCause(err)) // without the URL, which may have a secret
		}
		answer.Body.Close() //nolint:errcheck,gosec // not read: whoever configures the URL may not see what it answers
		if answer.StatusCode/100 != 2 {
			return fmt.Errorf("the webhook answers %d", answer.StatusCode)
		}
	}
	return nil
}

// newProviderClient returns a client for the API of a provider.
func newProviderClient() *http.Client {
	return &http.Client{Timeout: requestTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// newHookClient returns a client that reaches no link-local address: clouds have secrets of the machine there.
func newHookClient() *http.Client {
	client := newProviderClient()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.DialContext = (&net.Dialer{Timeout: answerTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || at.Addr().Unmap().IsLinkLocalUnicast() || at.Addr().Unmap().IsUnspecified() {
			return fmt.Errorf("%s may not be called", address)
		}
		return nil
	}}).DialContext
	client.Transport = transport
	return client
}
