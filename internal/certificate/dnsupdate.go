package certificate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// updateProvider writes records by DNS UPDATE (RFC 2136), signed with a TSIG key.
type updateProvider struct {
	server    string // host:port
	keyName   string // empty: not signed
	algorithm string
	key       string // base64
}

// maxSkew is how much the clocks of both sides may differ, in seconds.
const maxSkew = 300

func newUpdateProvider(set map[string]string) (updateProvider, error) {
	p := updateProvider{server: set["server"], algorithm: dns.HmacSHA256, key: set["key"]}
	if _, _, err := net.SplitHostPort(p.server); err != nil {
		p.server = net.JoinHostPort(strings.Trim(p.server, "[]"), "53")
	}
	if name := set["key_name"]; name != "" {
		p.keyName = dns.CanonicalName(name)
	}
	if algorithm := set["key_algorithm"]; algorithm != "" {
		p.algorithm = dns.CanonicalName(algorithm)
	}
	switch p.algorithm {
	case dns.HmacSHA1, dns.HmacSHA224, dns.HmacSHA256, dns.HmacSHA384, dns.HmacSHA512:
		return p, nil
	}
	return p, fmt.Errorf("key_algorithm %s is not known; write hmac-sha256 or hmac-sha512", cleanText(set["key_algorithm"]))
}

// AppendRecords implements libdns.RecordAppender.
func (p updateProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return p.update(ctx, zone, records, (*dns.Msg).Insert)
}

// DeleteRecords implements libdns.RecordDeleter.
func (p updateProvider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return p.update(ctx, zone, records, (*dns.Msg).Remove)
}

func (p updateProvider) update(ctx context.Context, zone string, records []libdns.Record, change func(*dns.Msg, []dns.RR)) ([]libdns.Record, error) {
	var rows []dns.RR
	for _, record := range records {
		r := record.RR()
		if r.Type != "TXT" {
			return nil, fmt.Errorf("records of type %s are not written", r.Type)
		}
		rows = append(rows, &dns.TXT{Txt: []string{r.Data}, Hdr: dns.RR_Header{Name: dns.Fqdn(libdns.AbsoluteName(r.Name, zone)),
			Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(r.TTL / time.Second)}}) //nolint:gosec // a minute
	}
	message := (&dns.Msg{}).SetUpdate(dns.Fqdn(zone))
	change(message, rows)
	client := &dns.Client{Net: "tcp", Timeout: providerTimeout}
	if p.keyName != "" {
		client.TsigSecret = map[string]string{p.keyName: p.key}
		message.SetTsig(p.keyName, p.algorithm, maxSkew, time.Now().Unix())
	}
	answer, _, err := client.ExchangeContext(ctx, message, p.server)
	switch {
	case answer != nil && answer.Rcode != dns.RcodeSuccess:
		return nil, p.explainRefusal(answer, zone)
	case err != nil:
		return nil, p.explainError(err)
	}
	return records, nil
}

// explainError says what a failed exchange means.
func (p updateProvider) explainError(err error) error {
	switch {
	case errors.Is(err, dns.ErrSecret) || errors.Is(err, dns.ErrKey) || errors.Is(err, dns.ErrKeyAlg):
		return errors.New("the key is not base64, or not of this algorithm")
	case errors.Is(err, dns.ErrTime):
		return fmt.Errorf("the clocks of this machine and of %s differ by more than %d s", p.server, maxSkew)
	}
	return fmt.Errorf("%s: %w", p.server, err)
}

// explainRefusal says what the answer of a name server that refused an update means.
func (p updateProvider) explainRefusal(answer *dns.Msg, zone string) error {
	code := dns.RcodeToString[answer.Rcode]
	if tsig := answer.IsTsig(); tsig != nil && tsig.Error != 0 {
		code = dns.RcodeToString[int(tsig.Error)]
	}
	switch code {
	case "BADSIG", "BADKEY":
		return fmt.Errorf("%s refuses the key %s (%s)", p.server, strings.TrimSuffix(p.keyName, "."), code)
	case "BADTIME":
		return fmt.Errorf("the clocks of this machine and of %s differ too much", p.server)
	case "NOTAUTH", "NOTZONE":
		return fmt.Errorf("%s refuses the key, or has no zone %s (%s)", p.server, strings.TrimSuffix(zone, "."), code)
	}
	return fmt.Errorf("%s refuses the update of %s (%s)", p.server, strings.TrimSuffix(zone, "."), code)
}
