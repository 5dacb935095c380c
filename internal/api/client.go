package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dstack/internal/dstack"
)

// How long calls may take, how much they may answer, and how reads are tried
// again when the server cannot be reached.
const (
	callLimit    = 60 * time.Second
	uploadLimit  = 15 * time.Minute
	answerLimit  = 64 << 20
	pollWait     = 30 * time.Second // one long poll of Watch
	pollGrace    = 15 * time.Second // on top of what the server may wait
	readTries    = 4
	awayPause    = 300 * time.Millisecond // between looks for a server that is away
	firstBackoff = 100 * time.Millisecond
)

// Client calls one dstack server. All its errors that a person can act on
// are *dstack.Error. Calls that only read are tried again when the server
// cannot be reached, the others never are. It may be used concurrently.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// NewClient makes a client for the server at rawURL. It connects to nothing.
func NewClient(rawURL, token string) (*Client, error) {
	base, err := url.Parse(strings.TrimRight(rawURL, "/"))
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: fmt.Sprintf("%q is not the URL of a server", rawURL),
			Hint:    "write it as http://127.0.0.1:3000"}
	}
	if strings.ContainsAny(token, "\r\n\x00") {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "the token has a line break in it",
			Hint: "give the token alone, as the server printed it"}
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &Client{base: base, token: token, http: &http.Client{
		Transport: &http.Transport{
			Proxy:               proxyUnlessLocal,
			DialContext:         dialer.DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
			IdleConnTimeout:     60 * time.Second,
			MaxIdleConnsPerHost: 4,
			ForceAttemptHTTP2:   true,
		},
		// A redirect would carry the token to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// proxyUnlessLocal keeps calls to this very machine, and with them the token,
// away from any proxy that the environment names.
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

// URL is where the server is.
func (c *Client) URL() string { return c.base.String() }

// Close gives up idle connections; the client may be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Project looks a project up; it also tells whether the token is good for it.
func (c *Client) Project(ctx context.Context, project string) (Project, error) {
	return read[Project](ctx, c, "/api/projects/"+url.PathEscape(project)+"/get", struct{}{}, callLimit)
}

// Me tells whose token it is.
func (c *Client) Me(ctx context.Context) (User, error) {
	return read[User](ctx, c, "/api/users/get_my_user", struct{}{}, callLimit)
}

// Repo looks a folder's registration up.
func (c *Client) Repo(ctx context.Context, project, id string) (RepoHead, error) {
	return read[RepoHead](ctx, c, in(ProjectPrefix+"/repos/get", project), GetRepo{RepoID: id}, callLimit)
}

// InitRepo registers a folder, or registers it again.
func (c *Client) InitRepo(ctx context.Context, project string, repo InitRepo) error {
	return c.write(ctx, in(ProjectPrefix+"/repos/init", project), repo, nil)
}

// Preview tells what applying a run would mean. It changes nothing.
func (c *Client) Preview(ctx context.Context, project string, run dstack.RunSpec) (Preview, error) {
	body, err := sourceForm(run)
	if err != nil {
		return Preview{}, err
	}
	return read[Preview](ctx, c, in(PathPreview, project), map[string]any{"run_spec": body}, callLimit)
}

// Apply submits a run, or revises the one of that name; see ApplyRequest.
func (c *Client) Apply(ctx context.Context, project string, run dstack.RunSpec, revision int) (RunView, error) {
	body, err := sourceForm(run)
	if err != nil {
		return RunView{}, err
	}
	var view RunView
	err = c.write(ctx, in(PathApply, project), map[string]any{"run_spec": body, "revision": revision}, &view)
	return view, err
}

// sourceSpec is a RunSpec whose configuration still tells what was written
// and what is a default.
type sourceSpec struct {
	dstack.RunSpec
	Configuration json.RawMessage `json:"configuration"`
}

func sourceForm(run dstack.RunSpec) (sourceSpec, error) {
	config, err := run.Configuration.SourceJSON()
	if err != nil {
		return sourceSpec{}, fmt.Errorf("encode the configuration: %w", err)
	}
	return sourceSpec{RunSpec: run, Configuration: config}, nil
}

// View shows a run; see RunViewRequest.
func (c *Client) View(ctx context.Context, project string, ask RunViewRequest) (RunView, error) {
	limit := callLimit
	if wait := time.Duration(ask.WaitSeconds)*time.Second + pollGrace; wait > limit {
		limit = wait
	}
	return read[RunView](ctx, c, in(PathView, project), ask, limit)
}

// Views lists runs, latest first.
func (c *Client) Views(ctx context.Context, ask ListRuns) ([]RunView, error) {
	return read[[]RunView](ctx, c, PathViews, ask, callLimit)
}

// Run is a run in the wire form of the reference, with its configuration.
func (c *Client) Run(ctx context.Context, project, name string) (Run, error) {
	return read[Run](ctx, c, in(ProjectPrefix+"/runs/get", project), RunName{RunName: name}, callLimit)
}

// Stop asks runs to end. Finished ones are left alone.
func (c *Client) Stop(ctx context.Context, project string, names []string, abort bool) error {
	return c.write(ctx, in(ProjectPrefix+"/runs/stop", project), StopRuns{RunsNames: names, Abort: abort}, nil)
}

// Delete takes finished runs off the list.
func (c *Client) Delete(ctx context.Context, project string, names []string) error {
	return c.write(ctx, in(ProjectPrefix+"/runs/delete", project), DeleteRuns{RunsNames: names}, nil)
}

// Events tells what happened to the runs of a name; see EventsRequest.
func (c *Client) Events(ctx context.Context, project string, ask EventsRequest) ([]EventView, error) {
	return read[[]EventView](ctx, c, in(PathEvents, project), ask, callLimit+time.Duration(ask.WaitSeconds)*time.Second)
}

// History lists a run's revisions, newest first.
func (c *Client) History(ctx context.Context, project, name string) ([]RevisionView, error) {
	return read[[]RevisionView](ctx, c, in(PathHistory, project), RunName{RunName: name}, callLimit)
}

// Rollback brings an earlier revision back; see RollbackRequest.
func (c *Client) Rollback(ctx context.Context, project string, ask RollbackRequest) (RunView, error) {
	var view RunView
	err := c.write(ctx, in(PathRollback, project), ask, &view)
	return view, err
}

// Explain tells why a run has the replicas that it has.
func (c *Client) Explain(ctx context.Context, project, name string) (Explanation, error) {
	return read[Explanation](ctx, c, in(PathExplain, project), RunName{RunName: name}, callLimit)
}

func in(path, project string) string {
	return strings.Replace(path, "{project_name}", url.PathEscape(project), 1)
}

// read makes a call that changes nothing, and so may be made again.
func read[T any](ctx context.Context, c *Client, path string, body any, limit time.Duration) (T, error) {
	var answer T
	wait := firstBackoff
	for try := 1; ; try++ {
		err := c.call(ctx, path, body, &answer, limit)
		if try == readTries || !unreached(err) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, err
		case <-time.After(wait):
			wait *= 2
		}
	}
}

func (c *Client) write(ctx context.Context, path string, body, answer any) error {
	return c.call(ctx, path, body, answer, callLimit)
}

func (c *Client) call(ctx context.Context, path string, body, answer any, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, c.tooSlow(limit))
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	response, err := c.send(ctx, path, "application/json", bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(io.LimitReader(response.Body, answerLimit+1))
	if err != nil {
		return c.unreachable(ctx, err)
	}
	if len(text) > answerLimit {
		return &dstack.Error{Kind: dstack.TooLarge, Message: fmt.Sprintf("the answer of %s is larger than %d MiB", c.base, answerLimit>>20)}
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return c.notOurs(err)
	}
	return nil
}

// send makes one request and turns any answer but 200 into an error. The
// caller closes the body.
func (c *Client) send(ctx context.Context, path, contentType string, body io.Reader, size int64) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+path, body)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
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
		return nil, c.unreachable(ctx, err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	return nil, c.refusal(response)
}
