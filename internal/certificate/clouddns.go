package certificate

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/libdns/libdns"
)

// cloudDNS writes records in Google Cloud DNS with the key of a service account.
type cloudDNS struct {
	project string
	email   string // of the service account
	key     *rsa.PrivateKey
	base    string // URL of the API
	tokens  string // URL that exchanges a signed claim for a token
	client  *http.Client
}

const (
	cloudDNSScope    = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
	cloudDNSLifetime = 10 * time.Minute // of a token: one call of the provider
)

// newCloudDNS reads the key of a service account, as Google hands it out.
func newCloudDNS(project, account string) (*cloudDNS, error) {
	var file struct {
		Type  string `json:"type"`
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
	}
	wrong := errors.New("service_account is not the JSON key of a service account")
	if err := json.Unmarshal([]byte(account), &file); err != nil || file.Type != "service_account" {
		return nil, wrong
	}
	block, _ := pem.Decode([]byte(file.Key))
	if block == nil {
		return nil, wrong
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, isRSA := parsed.(*rsa.PrivateKey)
	if err != nil || !isRSA {
		return nil, wrong
	}
	return &cloudDNS{project: project, email: file.Email, key: key, base: "https://dns.googleapis.com/dns/v1",
		tokens: "https://oauth2.googleapis.com/token", client: newProviderClient()}, nil
}

type cloudDNSSet struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	TTL    int      `json:"ttl"`
	Values []string `json:"rrdatas"`
}

type cloudDNSChange struct {
	Additions []cloudDNSSet `json:"additions,omitempty"`
	Deletions []cloudDNSSet `json:"deletions,omitempty"`
}

// changeSets implements recordSets: the API replaces the old set by the new one at once, and refuses that if the old one
// changed meanwhile.
func (p *cloudDNS) changeSets(ctx context.Context, zone string, records []libdns.Record, edit editValues) error {
	token, err := p.fetchToken(ctx, time.Now())
	if err != nil {
		return err
	}
	path, err := p.findZone(ctx, token, zone)
	if err != nil {
		return err
	}
	for _, record := range records {
		r := record.RR()
		name := libdns.AbsoluteName(r.Name, strings.TrimSuffix(zone, ".")+".")
		var found struct {
			Sets []cloudDNSSet `json:"rrsets"`
		}
		if err := p.call(ctx, token, http.MethodGet, path+"/rrsets?"+url.Values{"name": {name}, "type": {"TXT"}}.Encode(), nil, &found); err != nil {
			return err
		}
		set := cloudDNSSet{Name: name, Type: "TXT", TTL: int(r.TTL / time.Second)}
		if len(found.Sets) > 0 {
			set.Values = found.Sets[0].Values
		}
		if set.Values = edit(set.Values, `"`+r.Data+`"`); len(found.Sets) == 0 && len(set.Values) == 0 {
			continue
		}
		change := cloudDNSChange{Deletions: found.Sets}
		if len(set.Values) > 0 {
			change.Additions = []cloudDNSSet{set}
		}
		if err := p.call(ctx, token, http.MethodPost, path+"/changes", change, nil); err != nil {
			return err
		}
	}
	return nil
}

// findZone returns the path of the public zone with a DNS name.
func (p *cloudDNS) findZone(ctx context.Context, token, zone string) (string, error) {
	var found struct {
		Zones []struct {
			Name       string `json:"name"`
			Visibility string `json:"visibility"`
		} `json:"managedZones"`
	}
	zones := "/projects/" + url.PathEscape(p.project) + "/managedZones"
	query := url.Values{"dnsName": {strings.TrimSuffix(zone, ".") + "."}}
	if err := p.call(ctx, token, http.MethodGet, zones+"?"+query.Encode(), nil, &found); err != nil {
		return "", err
	}
	for _, z := range found.Zones {
		if z.Visibility != "private" {
			return zones + "/" + url.PathEscape(z.Name), nil
		}
	}
	return "", fmt.Errorf("the project %s has no public zone %s", p.project, strings.TrimSuffix(zone, "."))
}

// fetchToken exchanges a claim that the service account's key signed for a token.
func (p *cloudDNS) fetchToken(ctx context.Context, now time.Time) (string, error) {
	claim, err := json.Marshal(map[string]any{"iss": p.email, "scope": cloudDNSScope, "aud": p.tokens,
		"iat": now.Unix(), "exp": now.Add(cloudDNSLifetime).Unix()})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(claim)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {text + "." + encode(signature)}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.tokens, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		Token string `json:"access_token"`
	}
	err = p.send(request, &answer)
	return answer.Token, err
}

func (p *cloudDNS) call(ctx context.Context, token, method, path string, body, into any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, p.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	return p.send(request, into)
}

// send sends a request and decodes its answer.
func (p *cloudDNS) send(request *http.Request, into any) error {
	text, err := readAnswer(p.client, request, explainGoogleError)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// explainGoogleError reads the two forms of errors: of the API, and of the exchange of tokens.
func explainGoogleError(status int, text []byte) error {
	var api struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	var exchange struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(text, &api) != nil {
		json.Unmarshal(text, &exchange) //nolint:errcheck,gosec // the status says enough without it
	}
	return fmt.Errorf("status %d: %s", status, cmp.Or(api.Error.Message, joinReasons(exchange.Error, exchange.Description)))
}
