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

func TestPullProgress_Format(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pullProgress{startedAt: time.Now(), layers: map[string]*layerProgress{}}
		update := func(id, status string, got, size int64) string {
			m := jsonstream.Message{ID: id, Status: status}
			if size > 0 {
				m.Progress = &jsonstream.Progress{Current: got, Total: size}
			}
			p.update(m)
			return p.format(time.Now())
		}
		want := func(got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("the progress is %q, want %q", got, want)
			}
		}
		want(update("latest", "Pulling from library/x", 0, 0), "pulling image")
		want(update("a", "Pulling fs layer", 0, 0), "pulling image")
		want(update("b", "Waiting", 0, 0), "pulling image")
		want(update("c", "Already exists", 0, 0), "pulling image")
		want(update("a", "Downloading", 1e9, 4e9), "pulling image, 1.0GB so far, 1 of 3 layers")
		want(update("b", "Downloading", 1e9, 4.1e9), "pulling image 24% of 8.1GB")
		time.Sleep(10 * time.Second)
		want(update("a", "Downloading", 4e9, 4e9), "pulling image 61% of 8.1GB, about 6s left")
		time.Sleep(10 * time.Minute)
		want(update("a", "Verifying Checksum", 0, 0), "pulling image 61% of 8.1GB, about 6m left")
		want(update("b", "Download complete", 0, 0), "unpacking image 0% of 8.1GB")
		want(update("a", "Extracting", 4e9, 4e9), "unpacking image 49% of 8.1GB")
		want(update("b", "Pull complete", 0, 0), "unpacking image 100% of 8.1GB")
	})
}

// The messages come from several versions of Docker.
func TestTranslateError(t *testing.T) {
	for _, c := range []struct {
		table []errorPattern
		text  string
		kind  dstack.Kind
		want  string
	}{
		{pullErrors, `Error response from daemon: Get "https://reg.example/v2/": unauthorized: authentication required`, dstack.Unauthorized, "refused the login for x/y:1"},
		{pullErrors, `Head "https://reg.example/v2/y/manifests/1": no basic auth credentials`, dstack.Unauthorized, "refused the login"},
		{pullErrors, `pull access denied for x/y, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`, dstack.NotFound, "no image x/y:1, or it needs a login"},
		{pullErrors, `manifest for x/y:1 not found: manifest unknown: manifest unknown`, dstack.NotFound, "no image x/y:1"},
		{pullErrors, `no matching manifest for linux/arm64/v8 in the manifest list entries`, dstack.NotFound, "not made for the machine's processor"},
		{pullErrors, `Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host`, dstack.Unavailable, "registry of image x/y:1 cannot be reached"},
		{pullErrors, `Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`, dstack.Unavailable, "cannot be reached"},
		{pullErrors, `net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)`, dstack.Unavailable, "cannot be reached"},
		{pullErrors, `toomanyrequests: You have reached your pull rate limit`, dstack.Unavailable, "limits how often"},
		{pullErrors, `write /var/lib/docker/tmp/GetImageBlob1: no space left on device`, dstack.NoCapacity, "too full"},
		{startErrors, `could not select device driver "" with capabilities: [[gpu]]`, dstack.Unsupported, "cannot give GPUs"},
		{startErrors, `OCI runtime create failed: exec: "/bin/bash": stat /bin/bash: no such file or directory: unknown`, dstack.Invalid, "cannot be run in image"},
		{startErrors, `No command specified`, dstack.Invalid, "does not say what to run"},
		{startErrors, `something quite new`, dstack.Unavailable, "something quite new"},
	} {
		err := translateError(errors.New(c.text), c.table, "x/y:1")
		if dstack.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\nis translated to %s: %v", c.text, dstack.KindOf(err), err)
		}
	}
}
