package kubeclient

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxRefusal limits what is read of an answer that refuses a request.
const maxRefusal = 64 << 10

// get sends a request that is not about an object, and returns its answer; the caller closes the body. An answer other than
// 200 is an error of the API server.
func (c *Client) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.newURL(path, query).String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // what arrived is explained
	return nil, newStatusError(resp.StatusCode, body)
}

// newStatusError returns the error in an answer. What stands before an API server may answer in other formats.
func newStatusError(code int, body []byte) error {
	var status metav1.Status
	if json.Unmarshal(body, &status) != nil || status.Kind != "Status" {
		status = metav1.Status{Status: metav1.StatusFailure, Message: shortenText(http.StatusText(code) + ": " + string(body))}
	}
	if status.Code == 0 {
		status.Code = int32(code)
	}
	return &apierrors.StatusError{ErrStatus: status}
}

// podPath returns the path of a subresource of a pod.
func (c *Client) podPath(pod, subresource string) string {
	return "/api/v1/namespaces/" + url.PathEscape(c.namespace) + "/pods/" + url.PathEscape(pod) + "/" + subresource
}

// joinPath appends a path to that of the API server, which has one behind some proxies.
func joinPath(base, path string) string {
	for len(base) > 0 && base[len(base)-1] == '/' {
		base = base[:len(base)-1]
	}
	return base + path
}

// newURL returns the URL of a path of the API server.
func (c *Client) newURL(path string, query url.Values) *url.URL {
	u := *c.base
	u.Path, u.RawQuery = joinPath(u.Path, path), query.Encode()
	return &u
}
