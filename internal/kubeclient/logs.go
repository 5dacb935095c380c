package kubeclient

import (
	"context"
	"io"
	"time"
)

// LogRequest chooses the output of a container.
type LogRequest struct {
	Pod       string
	Container string    // empty: the pod's only container
	Since     time.Time // zero: from the beginning. The API server rounds it down to seconds
	Follow    bool      // go on until the container or ctx ends
	Previous  bool      // of the container before its latest restart
	TailLines int64     // only the last lines; zero: all
}

// OpenLogs returns the output of a container, each line after its time in RFC 3339 and a space. The caller closes it. The
// error of a container that has not started has the meaning ContainerWaits.
func (c *Client) OpenLogs(ctx context.Context, l LogRequest) (io.ReadCloser, error) { return nil, nil }
