package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
)

// Bounds of one call, and the retries of reads while the server is
// unreachable.
const (
	callTimeout      = 60 * time.Second
	uploadTimeout    = 15 * time.Minute
	maxResponseBytes = 64 << 20
	pollWait         = 30 * time.Second // how long one long poll of Watch waits for a change
	pollGrace        = 15 * time.Second // added to the wait of a long poll before the call times out
	maxReadAttempts  = 4
	reconnectPause   = 300 * time.Millisecond // between attempts of Watch while the server is unreachable
	initialBackoff   = 100 * time.Millisecond
)

// Client calls the API of one dstack server. It is safe for concurrent use.
//
// Errors that the user can act on are *dstack.Error. If the server gives no
// answer, calls that only read are retried; calls that change something are
// not, because the server may have carried them out.
//
// With several servers, calls go to one of them as long as it answers, and then to
// the next.
type Client struct {
	urls  *serverURLs
	token string
	http  *http.Client
}

// NewClient returns a client for the server at rawURL, or for several servers that
// share a database: see SplitURLs. It opens no connection.
// An invalid URL or token is a *dstack.Error of kind Invalid.
func NewClient(rawURL, token string) (*Client, error) {
	urls, err := parseServerURLs(rawURL)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(token, "\r\n\x00") {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "the token contains a line break",
			Hint: "pass only the token, exactly as the server printed it"}
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &Client{urls: urls, token: token, http: &http.Client{
		Transport: &http.Transport{
			Proxy:               proxyUnlessLocal,
			DialContext:         dialer.DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
			IdleConnTimeout:     60 * time.Second,
			MaxIdleConnsPerHost: 4,
			ForceAttemptHTTP2:   true,
		},
		// Following a redirect would send the token to another server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// WithTLS returns a client that opens connections with a TLS configuration, for
// servers without a public certificate.
func (c *Client) WithTLS(config *tls.Config) *Client {
	transport := c.http.Transport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	changed := *c.http
	changed.Transport = transport
	return &Client{urls: c.urls, token: c.token, http: &changed}
}

// WithToken returns a client that sends another token.
func (c *Client) WithToken(token string) *Client {
	return &Client{urls: c.urls, token: token, http: c.http}
}

// proxyUnlessLocal returns the proxy from the environment, or none for
// loopback addresses, so that the token of a local server does not leave the
// machine.
func proxyUnlessLocal(r *http.Request) (*url.URL, error) {
	host := strings.TrimSuffix(strings.ToLower(r.URL.Hostname()), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return nil, nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// URL returns the base URL of the server that the client uses now.
func (c *Client) URL() string { return c.base().String() }

// Close closes idle connections. The client can still be used afterwards.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Project returns a project. It fails if the token has no access to it.
func (c *Client) Project(ctx context.Context, project string) (Project, error) {
	return readWithRetry[Project](ctx, c, "/api/projects/"+url.PathEscape(project)+"/get", struct{}{}, callTimeout)
}

// CurrentUser returns the user that the token belongs to.
func (c *Client) CurrentUser(ctx context.Context) (User, error) {
	return readWithRetry[User](ctx, c, "/api/users/get_my_user", struct{}{}, callTimeout)
}

// Repo returns a registered repo.
func (c *Client) Repo(ctx context.Context, project, id string) (RepoHead, error) {
	return readWithRetry[RepoHead](ctx, c, projectPath(ProjectPrefix+"/repos/get", project), GetRepo{RepoID: id},
		callTimeout)
}

// InitRepo registers a repo, or updates its registration.
func (c *Client) InitRepo(ctx context.Context, project string, repo InitRepo) error {
	return c.callOnce(ctx, projectPath(ProjectPrefix+"/repos/init", project), repo, nil)
}

// Preview returns what Apply would do with a run. It changes nothing.
func (c *Client) Preview(ctx context.Context, project string, run dstack.RunSpec) (Preview, error) {
	body, err := newSourceSpec(run)
	if err != nil {
		return Preview{}, err
	}
	return readWithRetry[Preview](ctx, c, projectPath(PathPreview, project), map[string]any{"run_spec": body},
		callTimeout)
}

// ListOffers returns where the replicas of a configuration can run.
func (c *Client) ListOffers(ctx context.Context, project string, ask OffersRequest) (OfferList, error) {
	config, err := ask.Configuration.SourceJSON()
	if err != nil {
		return OfferList{}, fmt.Errorf("encode the configuration: %w", err)
	}
	body := map[string]any{"configuration": json.RawMessage(config)}
	if ask.Profile != nil {
		body["profile"] = ask.Profile
	}
	if len(ask.GroupBy) > 0 {
		body["group_by"] = ask.GroupBy
	}
	if ask.Limit > 0 {
		body["limit"] = ask.Limit
	}
	return readWithRetry[OfferList](ctx, c, projectPath(PathOffers, project), body, callTimeout)
}

// Apply submits a run, or a new revision of the run with the same name; see
// ApplyRequest.
func (c *Client) Apply(ctx context.Context, project string, run dstack.RunSpec, revision int) (RunView, error) {
	body, err := newSourceSpec(run)
	if err != nil {
		return RunView{}, err
	}
	var view RunView
	err = c.callOnce(ctx, projectPath(PathApply, project), map[string]any{"run_spec": body, "revision": revision},
		&view)
	return view, err
}

// sourceSpec is a RunSpec whose configuration is in the form of
// spec.Service.SourceJSON, which distinguishes written values from defaults.
type sourceSpec struct {
	dstack.RunSpec
	Configuration json.RawMessage `json:"configuration"`
}

func newSourceSpec(run dstack.RunSpec) (sourceSpec, error) {
	config, err := run.Configuration.SourceJSON()
	if err != nil {
		return sourceSpec{}, fmt.Errorf("encode the configuration: %w", err)
	}
	return sourceSpec{RunSpec: run, Configuration: config}, nil
}

// GetRunView returns a run; see RunViewRequest.
func (c *Client) GetRunView(ctx context.Context, project string, ask RunViewRequest) (RunView, error) {
	limit := callTimeout
	if wait := time.Duration(ask.WaitSeconds)*time.Second + pollGrace; wait > limit {
		limit = wait
	}
	return readWithRetry[RunView](ctx, c, projectPath(PathView, project), ask, limit)
}

// ListRunViews returns runs, newest first.
func (c *Client) ListRunViews(ctx context.Context, ask ListRuns) ([]RunView, error) {
	return readWithRetry[[]RunView](ctx, c, PathViews, ask, callTimeout)
}

// maxRunsPage is how many runs an answer has at most.
const maxRunsPage = 100

// ListActiveRunViews returns all unfinished runs of a project, newest first. It asks for
// further pages as long as there are some.
func (c *Client) ListActiveRunViews(ctx context.Context, project string) ([]RunView, error) {
	all := []RunView{}
	for limit := maxRunsPage; ; {
		ask := ListRuns{ProjectName: &project, OnlyActive: true, Limit: &limit}
		if last := len(all) - 1; last >= 0 {
			id := string(all[last].ID)
			ask.PrevSubmittedAt, ask.PrevRunID = &all[last].SubmittedAt, &id
		}
		page, err := c.ListRunViews(ctx, ask)
		if err != nil {
			return nil, err
		}
		if len(page) > 0 && len(all) > 0 && page[0].ID == all[0].ID {
			return all, nil // the server has no pages
		}
		if all = append(all, page...); len(page) < limit {
			return all, nil
		}
	}
}

// Run returns a run with its configuration, in the 0.18.10 wire format.
func (c *Client) Run(ctx context.Context, project, name string) (Run, error) {
	return readWithRetry[Run](ctx, c, projectPath(ProjectPrefix+"/runs/get", project), RunName{RunName: name},
		callTimeout)
}

// Stop asks runs to stop; with abort, their replicas are killed at once.
// Finished runs are ignored.
func (c *Client) Stop(ctx context.Context, project string, names []string, abort bool) error {
	return c.callOnce(ctx, projectPath(ProjectPrefix+"/runs/stop", project), StopRuns{RunsNames: names, Abort: abort},
		nil)
}

// Delete hides finished runs from lists.
func (c *Client) Delete(ctx context.Context, project string, names []string) error {
	return c.callOnce(ctx, projectPath(ProjectPrefix+"/runs/delete", project), DeleteRuns{RunsNames: names}, nil)
}

// Events returns the events of the runs with a name, oldest first; see
// EventsRequest.
func (c *Client) Events(ctx context.Context, project string, ask EventsRequest) ([]EventView, error) {
	return readWithRetry[[]EventView](ctx, c, projectPath(PathEvents, project), ask,
		callTimeout+time.Duration(ask.WaitSeconds)*time.Second)
}

// History returns the revisions of a run, newest first.
func (c *Client) History(ctx context.Context, project, name string) ([]RevisionView, error) {
	return readWithRetry[[]RevisionView](ctx, c, projectPath(PathHistory, project), RunName{RunName: name}, callTimeout)
}

// Rollback restores an earlier revision; see RollbackRequest.
func (c *Client) Rollback(ctx context.Context, project string, ask RollbackRequest) (RunView, error) {
	var view RunView
	err := c.callOnce(ctx, projectPath(PathRollback, project), ask, &view)
	return view, err
}

// Explain returns why a run has its current number of replicas.
func (c *Client) Explain(ctx context.Context, project, name string) (Explanation, error) {
	return readWithRetry[Explanation](ctx, c, projectPath(PathExplain, project), RunName{RunName: name}, callTimeout)
}

// projectPath replaces the placeholder of ProjectPrefix with a project name.
func projectPath(path, project string) string {
	return strings.Replace(path, "{project_name}", url.PathEscape(project), 1)
}

// readWithRetry makes a call that changes nothing. It retries with exponential
// back-off if the server gives no answer.
func readWithRetry[T any](ctx context.Context, c *Client, path string, body any, limit time.Duration) (T, error) {
	var answer T
	wait := initialBackoff
	if c.urls.isShared() && limit == callTimeout {
		limit = sharedTimeout
	}
	for try := 1; ; try++ {
		base := c.base()
		err := c.call(ctx, path, body, &answer, limit)
		if c.urls.isShared() && dstack.KindOf(err) == dstack.Timeout && ctx.Err() == nil { // it is frozen
			err = c.lostError(ctx, base, err)
		}
		if try == maxReadAttempts || !isNoResponse(err) {
			return answer, err
		}
		if loop.Sleep(ctx, wait) != nil {
			return answer, err
		}
		wait *= 2
	}
}

// callOnce makes a call that changes something, which must not be repeated.
func (c *Client) callOnce(ctx context.Context, path string, body, answer any) error {
	var err error
	for range c.urls.all {
		if err = c.call(ctx, path, body, answer, callTimeout); !isNotSent(err) {
			break
		}
	}
	return err
}

// call posts body as JSON to path and decodes the response into answer, which
// may be nil.
func (c *Client) call(ctx context.Context, path string, body, answer any, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, c.timeoutError(limit))
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	response, err := c.sendRequest(ctx, path, "application/json", bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(io.LimitReader(response.Body, maxResponseBytes+1))
	if err != nil {
		return c.unreachableError(ctx, err)
	}
	if len(text) > maxResponseBytes {
		return &dstack.Error{Kind: dstack.TooLarge,
			Message: fmt.Sprintf("the response of %s is larger than %s", c.base(), human.Bytes(maxResponseBytes))}
	}
	if answer == nil {
		answer = new(json.RawMessage)
		if len(text) == 0 {
			return nil
		}
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return c.unexpectedResponseError(err)
	}
	return nil
}

// sendRequest makes one request and turns any status other than 200 into an
// error. The caller must close the body of the response.
func (c *Client) sendRequest(ctx context.Context, path, contentType string, body io.Reader, size int64) (*http.Response, error) {
	if err := c.chooseServer(ctx); err != nil {
		return nil, err
	}
	base := c.base()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base.String()+path, body)
	if err != nil {
		return nil, fmt.Errorf("create the request: %w", err)
	}
	request.ContentLength = size
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "dstack")
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() == nil {
			c.urls.noteFailure(base)
		}
		return nil, c.unreachableError(ctx, err)
	}
	c.urls.noteAnswer(base)
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	return nil, c.responseError(response)
}
