package gcp

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// scope is what tokens are asked for. What an account may do is decided by its roles.
const scope = "https://www.googleapis.com/auth/cloud-platform"

const (
	tokenTimeout   = 10 * time.Second // of one request for a token
	tokenAttempts  = 3
	failureAge     = 5 * time.Second // how long a failure is repeated without asking again
	maxTokenAnswer = 1 << 20
	// metadataTimeout limits the search for credentials where there is no metadata service. Google's own library waits
	// half a minute, and again at each call.
	metadataTimeout = 3 * time.Second
)

const keyHint = "download a key for a service account as JSON: gcloud iam service-accounts keys create key.json --iam-account=ACCOUNT"

// tokenSource returns tokens that authorize requests. It finds the credentials at the first call, and again after
// failures, so that a file may appear later.
type tokenSource struct {
	credentials Credentials
	account     atomic.Pointer[string] // whom the tokens are for; nil: not known

	turn     lock // whose holder uses what follows
	source   oauth2.TokenSource
	requests *tokenTransport
	limit    time.Duration // of all requests to the metadata service together
	failure  error
	failedAt time.Time
}

func newTokenSource(c Credentials) *tokenSource {
	return &tokenSource{credentials: c, turn: newLock(), limit: metadataTimeout, requests: &tokenTransport{next: http.DefaultTransport, firstPause: firstPause}}
}

// get returns a token that is valid now.
func (t *tokenSource) get(ctx context.Context) (*oauth2.Token, error) {
	if err := t.turn.acquire(ctx); err != nil {
		return nil, &connectionError{what: "get a token", cause: err}
	}
	defer t.turn.release()
	if t.failure != nil && time.Since(t.failedAt) < failureAge {
		return nil, t.failure
	}
	t.requests.ctx = ctx
	token, err := t.fetch()
	if err != nil && ctx.Err() == nil {
		t.source, t.failure, t.failedAt = nil, err, time.Now()
	}
	return token, err
}

func (t *tokenSource) fetch() (*oauth2.Token, error) {
	if t.source == nil {
		source, account, err := t.find()
		if err != nil {
			return nil, err
		}
		t.source = source
		if account != "" {
			t.account.Store(&account)
		}
	}
	token, err := t.source.Token()
	if err != nil {
		return nil, explainTokenFailure(err, t.Account())
	}
	return token, nil
}

// Account returns whom the tokens are for, in words if it is not known.
func (t *tokenSource) Account() string {
	if account := t.account.Load(); account != nil {
		return *account
	}
	return "the account"
}

// find looks for credentials where Google's own programs do.
func (t *tokenSource) find() (source oauth2.TokenSource, account string, err error) {
	c := t.credentials
	switch {
	case c.Data != "":
		return t.newKeySource([]byte(c.Data), "`creds.data`")
	case c.Filename != "":
		return t.readKeySource(c.Filename, "`creds.filename`")
	}
	if name := os.Getenv("GOOGLE_APPLICATION_CREDENTIALS"); name != "" {
		return t.readDefaultFile(name, "GOOGLE_APPLICATION_CREDENTIALS")
	}
	if name := gcloudFile(); name != "" {
		if _, err := os.Stat(name); err == nil {
			return t.readDefaultFile(name, "gcloud")
		}
	}
	return t.askMetadata()
}

// gcloudFile returns the file that `gcloud auth application-default login` writes; empty: there is no home directory.
func gcloudFile() string {
	if dir := os.Getenv("CLOUDSDK_CONFIG"); dir != "" {
		return filepath.Join(dir, "application_default_credentials.json")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".config", "gcloud", "application_default_credentials.json")
}

// key is the key of a service account.
type key struct {
	Type        string `json:"type"`
	ClientEmail string `json:"client_email"`
	PrivateKey  string `json:"private_key"`
	TokenURI    string `json:"token_uri"`
}

// parseKey reads the key of a service account. Its errors never have parts of the key.
func parseKey(data []byte) (key, error) {
	var k key
	if err := json.Unmarshal(data, &k); err != nil {
		return k, errors.New("it is not JSON")
	}
	block, _ := pem.Decode([]byte(k.PrivateKey))
	switch {
	case k.Type != "service_account" && k.Type != "":
		return k, fmt.Errorf("its `type` is %q, not \"service_account\"", shorten(k.Type))
	case k.Type == "":
		return k, errors.New("it has no `type`")
	case k.ClientEmail == "":
		return k, errors.New("it has no `client_email`")
	case k.PrivateKey == "":
		return k, errors.New("it has no `private_key`")
	case block == nil:
		return k, errors.New("its `private_key` is not in PEM format: line ends may be missing")
	case k.TokenURI != "" && !isSafeURL(k.TokenURI):
		return k, errors.New("its `token_uri` is not an https URL")
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return k, errors.New("its `private_key` is damaged")
		}
	}
	return k, nil
}

// shorten returns the beginning of a text that may be anything.
func shorten(text string) string {
	if len(text) > 40 {
		return text[:40] + "…"
	}
	return text
}

// isSafeURL reports whether requests to a URL can be read by nobody on the way.
func isSafeURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func (t *tokenSource) newKeySource(data []byte, where string) (oauth2.TokenSource, string, error) {
	k, err := parseKey(data)
	if err != nil {
		return nil, "", newCredentialsError(where+" is not the key of a service account: "+err.Error(), keyHint, err)
	}
	config, err := google.JWTConfigFromJSON(data, scope)
	if err != nil {
		return nil, "", newCredentialsError(where+" is not the key of a service account", keyHint, err)
	}
	return config.TokenSource(t.context()), k.ClientEmail, nil
}

func (t *tokenSource) readKeySource(name, where string) (oauth2.TokenSource, string, error) {
	data, err := readCredentialsFile(name, where)
	if err != nil {
		return nil, "", err
	}
	return t.newKeySource(data, "the file "+name+" of "+where)
}

// readCredentialsFile reads a file of credentials.
func readCredentialsFile(name, where string) ([]byte, error) {
	path := name
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, newCredentialsError("the file "+name+" of "+where+" is in a home directory, and the server has none", "write an absolute path", err)
		}
		path = filepath.Join(home, rest)
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, newCredentialsError("there is no file "+name+", which "+where+" names", "put it there, or correct the name", err)
	}
	if err != nil {
		return nil, newCredentialsError("cannot read the file "+name+" of "+where+": "+human.DescribeFailure(err),
			"make it readable for the user that the server runs as", err)
	}
	return data, nil
}

// readDefaultFile reads a file of one of the kinds that default credentials may have: the user of the server's machine
// chose it.
func (t *tokenSource) readDefaultFile(name, where string) (oauth2.TokenSource, string, error) {
	data, err := readCredentialsFile(name, where)
	if err != nil {
		return nil, "", err
	}
	var file struct {
		Type google.CredentialsType `json:"type"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, "", newCredentialsError("the file "+name+" of "+where+" is not JSON", keyHint, err)
	}
	if file.Type == google.ServiceAccount {
		return t.newKeySource(data, "the file "+name+" of "+where)
	}
	found, err := google.CredentialsFromJSONWithType(t.context(), data, file.Type, scope)
	if err != nil {
		return nil, "", newCredentialsError("the file "+name+" of "+where+" has no credentials that dstack can use",
			"run: gcloud auth application-default login", err)
	}
	return found.TokenSource, "", nil
}

// askMetadata returns the credentials of the account of the machine that the server runs on.
func (t *tokenSource) askMetadata() (oauth2.TokenSource, string, error) {
	source := metadataSource{&http.Client{Timeout: t.limit, Transport: &tokenTransport{next: &http.Transport{DisableKeepAlives: true}, ctx: t.requests.ctx, firstPause: firstPause}}}
	account, err := source.get("email")
	if err != nil {
		return nil, "", newCredentialsError("there are no credentials for GCP: no GOOGLE_APPLICATION_CREDENTIALS, no file of gcloud, and no account of this machine",
			"write creds: {type: service_account, filename: /path/to/key.json}, or run: gcloud auth application-default login", err)
	}
	return oauth2.ReuseTokenSource(nil, source), strings.TrimSpace(string(account)), nil
}

// metadataSource asks the metadata service of the machine for tokens.
type metadataSource struct{ client *http.Client }

func (s metadataSource) get(what string) ([]byte, error) {
	host := os.Getenv("GCE_METADATA_HOST")
	if host == "" {
		host = "169.254.169.254"
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+host+"/computeMetadata/v1/instance/service-accounts/default/"+what, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Metadata-Flavor", "Google")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxTokenAnswer))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the metadata service answered %s", response.Status)
	}
	if err == nil && response.Header.Get("Metadata-Flavor") != "Google" {
		err = errors.New("what answered is not the metadata service")
	}
	return body, err
}

// Token implements oauth2.TokenSource.
func (s metadataSource) Token() (*oauth2.Token, error) {
	body, err := s.get("token?scopes=" + url.QueryEscape(scope))
	if err != nil {
		return nil, err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		return nil, errors.New("the metadata service answered without a token")
	}
	return &oauth2.Token{AccessToken: answer.AccessToken, Expiry: time.Now().Add(time.Duration(answer.ExpiresIn) * time.Second)}, nil
}

// context returns a context whose HTTP client asks for tokens. oauth2 keeps no other time limit than the client's, and no
// context.
func (t *tokenSource) context() context.Context {
	client := &http.Client{Timeout: tokenTimeout, Transport: t.requests}
	return context.WithValue(context.Background(), oauth2.HTTPClient, client)
}

// tokenTransport ends requests for tokens with the context of the call that needs one, and repeats those that failed for
// a moment: oauth2 itself does neither.
type tokenTransport struct {
	next       http.RoundTripper
	ctx        context.Context // of the holder of tokenSource.turn
	firstPause time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *tokenTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(request.Context())
	stop := context.AfterFunc(t.ctx, cancel)
	for attempt := 1; ; attempt++ {
		response, err := t.next.RoundTrip(request.WithContext(ctx))
		isTemporary := err != nil || response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusTooManyRequests
		if !isTemporary || attempt == tokenAttempts || request.Body != nil && request.GetBody == nil || pause(ctx, waitAfter(t.firstPause, attempt)) != nil {
			if err != nil {
				stop()
				cancel()
				return nil, err
			}
			response.Body = &bodyWithEnd{response.Body, func() { stop(); cancel() }}
			return response, nil
		}
		if response != nil {
			response.Body.Close()
		}
		if request = request.Clone(ctx); request.GetBody != nil {
			if request.Body, err = request.GetBody(); err != nil {
				stop()
				cancel()
				return nil, err
			}
		}
	}
}

// bodyWithEnd calls a function when it is closed.
type bodyWithEnd struct {
	io.ReadCloser
	end func()
}

// Close implements io.Closer.
func (b *bodyWithEnd) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// explainTokenFailure returns why there is no token.
func explainTokenFailure(err error, account string) error {
	whose := "of " + account
	answer, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok || answer.Response == nil || answer.Response.StatusCode >= http.StatusInternalServerError || answer.Response.StatusCode == http.StatusTooManyRequests {
		reason := human.DescribeFailure(err)
		if ok && answer.Response != nil {
			reason = "it answered " + answer.Response.Status
		}
		return &dstack.Error{Kind: dstack.Unavailable, Cause: err, Message: "cannot get a token for the credentials " + whose + ": " + reason,
			Hint: "dstack tries again"}
	}
	text := describeRefusedGrant(answer)
	hint := "check that the account and its key still exist; " + keyHint
	if strings.Contains(text, "iat") || strings.Contains(text, "timeframe") {
		hint = "the clock of the server's machine is wrong: correct it"
	}
	return newCredentialsError("Google refuses the credentials "+whose+": "+shortenMessage(text), hint, err)
}

// describeRefusedGrant returns why a token was refused. For keys of service accounts, oauth2 leaves the answer unread.
func describeRefusedGrant(answer *oauth2.RetrieveError) string {
	var body struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(answer.Body, &body) // what is not JSON has no description
	return cmp.Or(answer.ErrorDescription, body.Description, answer.ErrorCode, body.Code, answer.Response.Status)
}

// newCredentialsError returns an error that says that no offer of the backend can be used.
func newCredentialsError(message, hint string, cause error) *dstack.Error {
	failure := &dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend, Message: message}
	return &dstack.Error{Kind: dstack.Unauthorized, Message: message, Hint: hint, Cause: errors.Join(failure, cause)}
}
