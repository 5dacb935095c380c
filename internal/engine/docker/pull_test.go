package docker

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/jsonstream"

	"dstack/internal/dstack"
)

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := progress{begun: time.Now(), layers: map[string]*layer{}}
		hear := func(id, status string, got, size int64) string {
			m := jsonstream.Message{ID: id, Status: status}
			if size > 0 {
				m.Progress = &jsonstream.Progress{Current: got, Total: size}
			}
			p.take(m)
			return p.text(time.Now())
		}
		want := func(got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("it says %q, want %q", got, want)
			}
		}
		want(hear("latest", "Pulling from library/x", 0, 0), "pulling image")
		want(hear("a", "Pulling fs layer", 0, 0), "pulling image")
		want(hear("b", "Waiting", 0, 0), "pulling image")
		want(hear("c", "Already exists", 0, 0), "pulling image")
		want(hear("a", "Downloading", 1e9, 4e9), "pulling image, 1.0GB so far, 1 of 3 layers")
		want(hear("b", "Downloading", 1e9, 4.1e9), "pulling image 24% of 8.1GB")
		time.Sleep(10 * time.Second)
		want(hear("a", "Downloading", 4e9, 4e9), "pulling image 61% of 8.1GB, about 6s left")
		time.Sleep(10 * time.Minute)
		want(hear("a", "Verifying Checksum", 0, 0), "pulling image 61% of 8.1GB, about 6m left")
		want(hear("b", "Download complete", 0, 0), "unpacking image 0% of 8.1GB")
		want(hear("a", "Extracting", 4e9, 4e9), "unpacking image 49% of 8.1GB")
		want(hear("b", "Pull complete", 0, 0), "unpacking image 100% of 8.1GB")
	})
}

// What Docker engines of several versions say, and what becomes of it.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		table []trouble
		said  string
		kind  dstack.Kind
		words string
	}{
		{pullTroubles, `Error response from daemon: Get "https://reg.example/v2/": unauthorized: authentication required`, dstack.Unauthorized, "refused the login for x/y:1"},
		{pullTroubles, `Head "https://reg.example/v2/y/manifests/1": no basic auth credentials`, dstack.Unauthorized, "refused the login"},
		{pullTroubles, `pull access denied for x/y, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`, dstack.NotFound, "no image x/y:1, or it needs a login"},
		{pullTroubles, `manifest for x/y:1 not found: manifest unknown: manifest unknown`, dstack.NotFound, "no image x/y:1"},
		{pullTroubles, `no matching manifest for linux/arm64/v8 in the manifest list entries`, dstack.NotFound, "not made for this machine's processor"},
		{pullTroubles, `Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host`, dstack.Unavailable, "registry of image x/y:1 cannot be reached"},
		{pullTroubles, `Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`, dstack.Unavailable, "cannot be reached"},
		{pullTroubles, `net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)`, dstack.Unavailable, "cannot be reached"},
		{pullTroubles, `toomanyrequests: You have reached your pull rate limit`, dstack.Unavailable, "limits how often"},
		{pullTroubles, `write /var/lib/docker/tmp/GetImageBlob1: no space left on device`, dstack.Unavailable, "too full"},
		{startTroubles, `could not select device driver "" with capabilities: [[gpu]]`, dstack.Unsupported, "cannot give GPUs"},
		{startTroubles, `OCI runtime create failed: exec: "/bin/bash": stat /bin/bash: no such file or directory: unknown`, dstack.Invalid, "cannot be run in image"},
		{startTroubles, `No command specified`, dstack.Invalid, "does not say what to run"},
		{startTroubles, `something quite new`, dstack.Unavailable, "something quite new"},
	} {
		err := explain(errors.New(c.said), c.table, "x/y:1")
		if dstack.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s\nbecame %s: %v", c.said, dstack.KindOf(err), err)
		}
	}
}
