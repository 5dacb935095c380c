package certificate

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/libdns/libdns"
)

// route53 writes records in Amazon Route 53. A set of records has all values of a
// name, so that a change reads the set first.
type route53 struct {
	keyID, secret, session, region string
	zoneID                         string // empty: found by the zone's name
	base                           string // URL of the API
	client                         *http.Client
}

type route53Set struct {
	Name    string   `xml:"Name"`
	Type    string   `xml:"Type"`
	TTL     int      `xml:"TTL"`
	Records []string `xml:"ResourceRecords>ResourceRecord>Value"`
}

type route53Change struct {
	Action string     `xml:"Action"`
	Set    route53Set `xml:"ResourceRecordSet"`
}

type route53Batch struct {
	XMLName xml.Name        `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ChangeResourceRecordSetsRequest"`
	Changes []route53Change `xml:"ChangeBatch>Changes>Change"`
}

// changeSets implements recordSets.
func (p *route53) changeSets(ctx context.Context, zone string, records []libdns.Record, edit editValues) error {
	id, err := p.findZone(ctx, zone)
	if err != nil {
		return err
	}
	for _, record := range records {
		r := record.RR()
		name := libdns.AbsoluteName(r.Name, zone)
		present, err := p.readSet(ctx, id, name)
		if err != nil {
			return err
		}
		changed := route53Change{"UPSERT", route53Set{name, "TXT", int(r.TTL / time.Second), edit(present.Records, `"`+r.Data+`"`)}}
		if len(changed.Set.Records) == 0 {
			changed = route53Change{"DELETE", present}
		}
		if len(changed.Set.Records) == 0 {
			continue // nothing is there
		}
		body, err := xml.Marshal(route53Batch{Changes: []route53Change{changed}})
		if err != nil {
			return err
		}
		if err := p.call(ctx, http.MethodPost, "/2013-04-01/hostedzone/"+id+"/rrset/", nil, body, nil); err != nil {
			return err
		}
	}
	return nil
}

// findZone returns the ID of the public hosted zone with a name.
func (p *route53) findZone(ctx context.Context, zone string) (string, error) {
	if p.zoneID != "" {
		return p.zoneID, nil
	}
	name := strings.TrimSuffix(zone, ".") + "."
	var found struct {
		Zones []struct {
			ID        string `xml:"Id"`
			Name      string `xml:"Name"`
			IsPrivate bool   `xml:"Config>PrivateZone"`
		} `xml:"HostedZones>HostedZone"`
	}
	if err := p.call(ctx, http.MethodGet, "/2013-04-01/hostedzonesbyname", url.Values{"dnsname": {name}}, nil, &found); err != nil {
		return "", err
	}
	for _, z := range found.Zones {
		if z.Name == name && !z.IsPrivate {
			return strings.TrimPrefix(z.ID, "/hostedzone/"), nil
		}
	}
	return "", fmt.Errorf("there is no public hosted zone %s", strings.TrimSuffix(zone, "."))
}

// readSet reads the TXT records of a name.
func (p *route53) readSet(ctx context.Context, zoneID, name string) (route53Set, error) {
	var found struct {
		Sets []route53Set `xml:"ResourceRecordSets>ResourceRecordSet"`
	}
	err := p.call(ctx, http.MethodGet, "/2013-04-01/hostedzone/"+zoneID+"/rrset", url.Values{"name": {name}, "type": {"TXT"}, "maxitems": {"1"}}, nil, &found)
	if err == nil && len(found.Sets) > 0 && found.Sets[0].Type == "TXT" && strings.EqualFold(found.Sets[0].Name, strings.TrimSuffix(name, ".")+".") {
		return found.Sets[0], nil
	}
	return route53Set{}, err
}

// call sends a request to the API and decodes its answer.
func (p *route53) call(ctx context.Context, method, path string, query url.Values, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, p.base+path+"?"+strings.ReplaceAll(query.Encode(), "+", "%20"), bytes.NewReader(body))
	if err != nil {
		return err
	}
	p.sign(request, body, time.Now().UTC())
	text, err := readAnswer(p.client, request, explainAmazonError)
	if err != nil || into == nil {
		return err
	}
	return xml.Unmarshal(text, into)
}

func explainAmazonError(status int, text []byte) error {
	var wrong struct {
		Code    string `xml:"Error>Code"`
		Message string `xml:"Error>Message"`
	}
	xml.Unmarshal(text, &wrong) //nolint:errcheck,gosec // the status says enough without it
	return fmt.Errorf("%s (%d): %s", cmp.Or(wrong.Code, "error"), status, wrong.Message)
}

// sign signs a request (AWS Signature Version 4).
func (p *route53) sign(r *http.Request, body []byte, now time.Time) {
	date, scope := now.Format("20060102T150405Z"), now.Format("20060102")+"/"+p.region+"/route53/aws4_request"
	r.Header.Set("X-Amz-Date", date)
	signed := []string{"host", "x-amz-date"}
	headers := "host:" + r.URL.Host + "\nx-amz-date:" + date + "\n"
	if p.session != "" {
		r.Header.Set("X-Amz-Security-Token", p.session)
		signed = append(signed, "x-amz-security-token")
		headers += "x-amz-security-token:" + p.session + "\n"
	}
	names := strings.Join(signed, ";")
	request := strings.Join([]string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, headers, names, hexSum(body)}, "\n")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", date, scope, hexSum([]byte(request))}, "\n")
	key := []byte("AWS4" + p.secret)
	for part := range strings.SplitSeq(scope, "/") {
		key = sumWithKey(key, part)
	}
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		p.keyID, scope, names, hex.EncodeToString(sumWithKey(key, text))))
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func sumWithKey(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text)) //nolint:errcheck // never fails
	return mac.Sum(nil)
}
