package kubeclient

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strconv"
	"time"
)

// LogRequest chooses the output of a container.
type LogRequest struct {
	Pod       string
	Container string    // empty: the pod's only container
	Since     time.Time // zero: from the beginning. Earlier lines of the same second come, too
	Follow    bool      // go on until the container or ctx ends
	Previous  bool      // of the container before its latest restart
	TailLines int64     // only the last lines; zero: all
}

// OpenLogs returns the output of a container, each line after its time in RFC 3339 and a space. The caller closes it. The
// error of a container that has not started has the meaning ContainerWaits. A node that is lost has no logs: the error then
// has the meaning NodeUnreachable. The time until the first byte is limited, that of the whole is not.
func (c *Client) OpenLogs(ctx context.Context, l LogRequest) (io.ReadCloser, error) {
	query := url.Values{"timestamps": {"true"}}
	if l.Container != "" {
		query.Set("container", l.Container)
	}
	if !l.Since.IsZero() {
		query.Set("sinceTime", l.Since.UTC().Format(time.RFC3339))
	}
	if l.Follow {
		query.Set("follow", "true")
	}
	if l.Previous {
		query.Set("previous", "true")
	}
	if l.TailLines > 0 {
		query.Set("tailLines", strconv.FormatInt(l.TailLines, 10))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(defaultTimeout, func() { cancel(context.DeadlineExceeded) })
	resp, err := c.get(ctx, c.podPath(l.Pod, "log"), query)
	late.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			err = context.DeadlineExceeded
		}
		cancel(nil)
		return nil, c.newError(err, request{verb: "read the logs of", word: Pods.Word, name: l.Pod})
	}
	return logBody{resp.Body, func() { cancel(nil) }}, nil
}

// logBody is the body of an answer, whose context ends with it.
type logBody struct {
	io.ReadCloser
	cancel func()
}

func (b logBody) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}
