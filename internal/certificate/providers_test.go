package certificate

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"

	"dstack/internal/spec"
)

func textRecord(value string) []libdns.Record {
	return []libdns.Record{libdns.RR{Type: "TXT", Name: "_acme-challenge", Data: value, TTL: time.Minute}}
}

// TestExec: the program gets the action, the name and the value, and none of this process' variables.
func TestExec(t *testing.T) {
	t.Setenv("DSTACK_TOKEN", "secret")
	dir := t.TempDir()
	program, log := filepath.Join(dir, "set-record"), filepath.Join(dir, "log")
	script := "#!/bin/sh\necho \"$@ $DSTACK_TOKEN\" >> " + log + "\n[ \"$3\" != bad ] || { echo no such zone >&2; exit 3; }\n[ \"$3\" != slow ] || sleep 60\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	p := execProvider{command: program}
	if _, err := p.AppendRecords(t.Context(), "example.com.", textRecord("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.DeleteRecords(t.Context(), "example.com.", textRecord("one")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if want := "present _acme-challenge.example.com one \ncleanup _acme-challenge.example.com one \n"; err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := p.AppendRecords(t.Context(), "example.com.", textRecord("bad")); err == nil || !strings.HasSuffix(err.Error(), "exit status 3: no such zone") {
		t.Errorf("a failure: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := p.AppendRecords(ctx, "example.com.", textRecord("slow")); err == nil || !strings.Contains(err.Error(), "did not end in time") {
		t.Errorf("a slow program: %v", err)
	}
	if _, err := (execProvider{command: "/nowhere"}).AppendRecords(t.Context(), "example.com.", textRecord("one")); err == nil ||
		!strings.Contains(err.Error(), "does not exist on the machine of the gateway") {
		t.Errorf("a missing program: %v", err)
	}
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	var calls []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		calls = append(calls, r.Method+" "+r.Header.Get("Authorization")+" "+string(body))
		switch {
		case strings.Contains(string(body), "moved"):
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case strings.Contains(string(body), "bad"):
			http.Error(w, "the database password is 123", http.StatusTeapot)
		}
	}))
	defer server.Close()
	p, err := newDNSProvider(&spec.DNSProvider{Provider: "webhook", Settings: map[string]string{"url": server.URL, "token": "t0k"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.AppendRecords(t.Context(), "example.com.", textRecord("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.DeleteRecords(t.Context(), "example.com.", textRecord("one")); err != nil {
		t.Fatal(err)
	}
	want := []string{`POST Bearer t0k {"action":"present","name":"_acme-challenge.example.com","value":"one"}`,
		`POST Bearer t0k {"action":"cleanup","name":"_acme-challenge.example.com","value":"one"}`}
	if !slices.Equal(calls, want) {
		t.Errorf("got %q", calls)
	}
	for value, answer := range map[string]string{"bad": "the webhook answers 418", "moved": "the webhook answers 307"} {
		if _, err := p.AppendRecords(t.Context(), "example.com.", textRecord(value)); err == nil || err.Error() != answer {
			t.Errorf("%s: %v", value, err)
		}
	}
	metadata := webhookProvider{url: "http://169.254.169.254/latest", client: newHookClient()}
	if _, err := metadata.AppendRecords(t.Context(), "example.com.", textRecord("one")); err == nil || !strings.Contains(err.Error(), "may not be called") {
		t.Errorf("the metadata of a cloud: %v", err)
	}
}

// fakeRoute53 has the TXT records of _acme-challenge.example.com, and checks signatures by their form.
type fakeRoute53 struct {
	values []string
	wrong  []string
}

func (f *fakeRoute53) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	scope := time.Now().UTC().Format("20060102") + "/us-east-1/route53/aws4_request"
	if got := r.Header.Get("Authorization"); !strings.HasPrefix(got, "AWS4-HMAC-SHA256 Credential=AKIA/"+scope+", SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=") {
		f.wrong = append(f.wrong, got)
	}
	switch {
	case r.URL.Query().Get("dnsname") == "example.org.":
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>`) //nolint:errcheck
	case r.URL.Path == "/2013-04-01/hostedzonesbyname":
		io.WriteString(w, `<ListHostedZonesByNameResponse><HostedZones><HostedZone><Id>/hostedzone/ZPRIV</Id><Name>example.com.</Name>`+ //nolint:errcheck
			`<Config><PrivateZone>true</PrivateZone></Config></HostedZone><HostedZone><Id>/hostedzone/Z1</Id><Name>example.com.</Name></HostedZone></HostedZones></ListHostedZonesByNameResponse>`)
	case r.Method == http.MethodGet && r.URL.Path == "/2013-04-01/hostedzone/Z1/rrset":
		set := ""
		for _, v := range f.values {
			set += "<ResourceRecord><Value>" + v + "</Value></ResourceRecord>"
		}
		if set != "" {
			set = "<ResourceRecordSet><Name>_acme-challenge.example.com.</Name><Type>TXT</Type><TTL>60</TTL><ResourceRecords>" + set + "</ResourceRecords></ResourceRecordSet>"
		}
		io.WriteString(w, "<ListResourceRecordSetsResponse><ResourceRecordSets>"+set+"</ResourceRecordSets></ListResourceRecordSetsResponse>") //nolint:errcheck
	case r.Method == http.MethodPost && r.URL.Path == "/2013-04-01/hostedzone/Z1/rrset/":
		var batch route53Batch
		text, _ := io.ReadAll(r.Body)
		if err := xml.Unmarshal(text, &batch); err != nil || len(batch.Changes) != 1 {
			f.wrong = append(f.wrong, string(text))
			return
		}
		if f.values = batch.Changes[0].Set.Records; batch.Changes[0].Action == "DELETE" {
			f.values = nil
		}
	default:
		http.NotFound(w, r)
	}
}

func TestRoute53_KeepsTheOtherValues(t *testing.T) {
	t.Parallel()
	fake := &fakeRoute53{values: []string{`"of somebody else"`}}
	server := httptest.NewServer(fake)
	defer server.Close()
	p := recordSetProvider{&route53{keyID: "AKIA", secret: "secret", session: "session", region: "us-east-1", base: server.URL, client: newProviderClient()}}
	checkProvider(t, p, func() []string { return fake.values })
	if len(fake.wrong) > 0 {
		t.Errorf("wrong requests: %q", fake.wrong)
	}
	if _, err := p.AppendRecords(t.Context(), "example.org.", textRecord("one")); err == nil || err.Error() != "AccessDenied (403): not you" {
		t.Errorf("got %v", err)
	}
	if _, err := p.AppendRecords(t.Context(), "example.net.", textRecord("one")); err == nil || err.Error() != "there is no public hosted zone example.net" {
		t.Errorf("got %v", err)
	}
}

// TestRoute53_Signature derives the signing key of an example in the documentation of AWS.
func TestRoute53_Signature(t *testing.T) {
	t.Parallel()
	key := []byte("AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
	for _, part := range []string{"20150830", "us-east-1", "iam", "aws4_request"} {
		key = sumWithKey(key, part)
	}
	if got := fmt.Sprintf("%x", key); got != "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9" {
		t.Errorf("the signing key is %s", got)
	}
}

// checkProvider writes two values beside that of somebody else and deletes them.
func checkProvider(t *testing.T, p certmagic.DNSProvider, values func() []string) {
	t.Helper()
	for _, step := range []struct {
		do    func(context.Context, string, []libdns.Record) ([]libdns.Record, error)
		value string
		want  []string
	}{
		{p.AppendRecords, "one", []string{`"of somebody else"`, `"one"`}},
		{p.AppendRecords, "one", []string{`"of somebody else"`, `"one"`}},
		{p.AppendRecords, "two", []string{`"of somebody else"`, `"one"`, `"two"`}},
		{p.DeleteRecords, "one", []string{`"of somebody else"`, `"two"`}},
		{p.DeleteRecords, "of somebody else", []string{`"two"`}},
		{p.DeleteRecords, "two", nil},
		{p.DeleteRecords, "two", nil},
		{p.AppendRecords, "three", []string{`"three"`}},
	} {
		if _, err := step.do(t.Context(), "example.com.", textRecord(step.value)); err != nil {
			t.Fatalf("%s: %v", step.value, err)
		}
		if got := values(); !slices.Equal(got, step.want) {
			t.Errorf("after %s: %q, want %q", step.value, got, step.want)
		}
	}
}

// fakeCloudDNS has the TXT records of _acme-challenge.example.com.
type fakeCloudDNS struct {
	values []string
	wrong  []string
	key    *rsa.PublicKey
}

func (f *fakeCloudDNS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const zone = "/dns/v1/projects/p1/managedZones"
	if r.URL.Path != "/token" && r.Header.Get("Authorization") != "Bearer T" {
		f.wrong = append(f.wrong, r.Header.Get("Authorization"))
	}
	switch {
	case r.URL.Path == "/token":
		claim, signature, _ := cutLast(r.FormValue("assertion"))
		sum := sha256.Sum256([]byte(claim))
		if raw, err := base64.RawURLEncoding.DecodeString(signature); err != nil || rsa.VerifyPKCS1v15(f.key, crypto.SHA256, sum[:], raw) != nil {
			f.wrong = append(f.wrong, "the signature of "+claim)
		}
		io.WriteString(w, `{"access_token":"T"}`) //nolint:errcheck
	case r.URL.Query().Get("dnsName") == "example.org.":
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"error":{"code":403,"message":"not you"}}`) //nolint:errcheck
	case r.URL.Path == zone && r.URL.Query().Get("dnsName") == "example.com.":
		io.WriteString(w, `{"managedZones":[{"name":"inner","visibility":"private"},{"name":"z1","visibility":"public"}]}`) //nolint:errcheck
	case r.URL.Path == zone:
		io.WriteString(w, `{}`) //nolint:errcheck
	case r.URL.Path == zone+"/z1/rrsets":
		f.writeSets(w)
	case r.URL.Path == zone+"/z1/changes":
		var change cloudDNSChange
		if err := json.NewDecoder(r.Body).Decode(&change); err != nil {
			f.wrong = append(f.wrong, err.Error())
		}
		if len(change.Deletions) > 0 && !slices.Equal(change.Deletions[0].Values, f.values) {
			f.wrong = append(f.wrong, "a deletion of what is not there")
		}
		if f.values = nil; len(change.Additions) > 0 {
			f.values = change.Additions[0].Values
		}
		io.WriteString(w, `{}`) //nolint:errcheck
	default:
		http.NotFound(w, r)
	}
}

// cutLast cuts a text at its last dot.
func cutLast(text string) (before, after string, ok bool) {
	i := strings.LastIndexByte(text, '.')
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}

func (f *fakeCloudDNS) writeSets(w io.Writer) {
	var sets []cloudDNSSet
	if len(f.values) > 0 {
		sets = append(sets, cloudDNSSet{Name: "_acme-challenge.example.com.", Type: "TXT", TTL: 60, Values: f.values})
	}
	json.NewEncoder(w).Encode(map[string]any{"rrsets": sets}) //nolint:errcheck
}

func TestCloudDNS_KeepsTheOtherValues(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "a@p1", "private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))})
	if err != nil {
		t.Fatal(err)
	}
	cloud, err := newCloudDNS("p1", string(account))
	if err != nil {
		t.Fatal(err)
	}
	fake := &fakeCloudDNS{values: []string{`"of somebody else"`}, key: &key.PublicKey}
	server := httptest.NewServer(fake)
	defer server.Close()
	cloud.base, cloud.tokens = server.URL+"/dns/v1", server.URL+"/token"
	p := recordSetProvider{cloud}
	checkProvider(t, p, func() []string { return fake.values })
	if len(fake.wrong) > 0 {
		t.Errorf("wrong requests: %q", fake.wrong)
	}
	if _, err := p.AppendRecords(t.Context(), "example.org.", textRecord("one")); err == nil || err.Error() != "status 403: not you" {
		t.Errorf("got %v", err)
	}
	if _, err := p.AppendRecords(t.Context(), "example.net.", textRecord("one")); err == nil || err.Error() != "the project p1 has no public zone example.net" {
		t.Errorf("got %v", err)
	}
	for _, wrong := range []string{"", "{}", `{"type":"service_account"}`, `{"type":"service_account","private_key":"x"}`} {
		if _, err := newCloudDNS("p1", wrong); err == nil || strings.Contains(err.Error(), "private") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// The HTTP library's error has the URL of a webhook, which may contain a secret; ours has not.
func TestWebhook_ErrorsHaveNoURL(t *testing.T) {
	t.Parallel()
	p := webhookProvider{url: "http://127.0.0.1:1/?token=s3cret", client: newHookClient()}
	if _, err := p.AppendRecords(t.Context(), "example.com.", textRecord("one")); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}

func TestCleanText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"a\nb\tc": "a b c", "\x1b[31mred\u202e": "[31mred", strings.Repeat("é", 400): strings.Repeat("é", 300) + "…"} {
		if got := cleanText(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{"": {}, "soon": {}, "-5": {}, "120": now.Add(2 * time.Minute), " 0 ": now,
		"99999999999999": now.Add(366 * 24 * time.Hour), "Sun, 29 Nov 2026 13:00:00 GMT": now.Add(time.Hour)} {
		if got := parseRetryAfter(text, now); !got.Equal(want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
