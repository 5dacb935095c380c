package gcp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/cloud/gcp/computetest"
	"dstack/internal/dstack"
)

// A zone that a user wrote is never a part of a URL unless it is one: it could make the request stop or change any machine of
// the project, with the server's rights.
func TestCreateDisk_RefusesAZoneThatIsNone(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	victim := mustLaunch(t, openProvider(t, newSettings(s), "another"), newLaunch("two", "e2-standard-2", "us-central1-a"))
	for _, zone := range []string{
		"us-central1-a/instances/" + victim.Ref + "/reset?x=", "us-central1-a/instances/" + victim.Ref + "/detachDisk?deviceName=boot&x=",
		"../global", "us-central1-a#", "us-central1-a%2f..", "us-east1-b", "us-central1-z", "US-CENTRAL1-A", "us-central1-a ",
	} {
		before := len(s.Calls())
		_, err := p.CreateDisk(t.Context(), cloud.Disk{Volume: "v", Region: "us-central1", Zone: zone, SizeMiB: 10 << 10})
		if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "has no zone") || !strings.Contains(hintOf(err), "us-central1-a") {
			t.Errorf("%q: %v, hint %q", zone, err, hintOf(err))
		}
		for _, c := range s.Calls()[before:] {
			if c.Method != "disks.aggregatedList" && c.Method != "zones.list" && c.Method != "token" {
				t.Errorf("%q: %s was called", zone, c.Method)
			}
		}
	}
}

// Names that would make the URL another one are not sent, wherever they come from.
func TestClient_SendsNoURLThatIsNotWhatItLooksLike(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	for _, name := range []string{"a/../b", "a?x=", "a#b", "a%2fb", "..", "a//b"} {
		before := len(s.Calls())
		err := p.Terminate(t.Context(), []cloud.Machine{{Ref: name, Region: "us-central1", Zone: "us-central1-a"}})
		if dstack.KindOf(err) != dstack.Invalid || len(s.Calls()) > before {
			t.Errorf("%q: %v, %v", name, err, s.Calls()[before:])
		}
	}
}

// A disk that an installation made is not a disk of the user: the sweep of that installation deletes it once its volume is gone.
func TestCreateDisk_RefusesToRegisterAMarkedDisk(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	made, err := p.CreateDisk(t.Context(), cloud.Disk{Volume: "one", Region: "us-central1", SizeMiB: 10 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, installation := range []dstack.Installation{"i", "another"} {
		_, err = openProvider(t, newSettings(s), installation).CreateDisk(t.Context(), cloud.Disk{Ref: made.Ref, IsExternal: true, Region: "us-central1"})
		if dstack.KindOf(err) != dstack.Conflict || !strings.Contains(hintOf(err), "remove-labels "+made.Ref) {
			t.Errorf("%s: %v, hint %q", installation, err, hintOf(err))
		}
	}
}

// What answers in place of GCP neither gets the token by a redirect nor keeps the server busy with pages without end.
func TestClient_EvilAnswers(t *testing.T) {
	s := startServer(t, computetest.Options{})
	stolen := 0
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stolen++ }))
	t.Cleanup(thief.Close)
	pages := 0
	isRedirecting := true
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isRedirecting {
			http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		pages++
		fmt.Fprintf(w, `{"items": {}, "nextPageToken": "%d"}`, pages)
	}))
	t.Cleanup(evil.Close)
	settings := newSettings(s)
	settings.Endpoint = evil.URL
	p := openProvider(t, settings, "i")
	if _, err := p.ListMachines(t.Context()); err == nil || stolen > 0 {
		t.Errorf("%v; the other host was asked %d times", err, stolen)
	}
	isRedirecting = false
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := p.ListMachines(ctx); dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "does not end") {
		t.Errorf("after %d pages: %v", pages, err)
	}
}

// No answer keeps the server from giving machines back for longer than an hour.
func TestClient_WaitsAnHourAtMost(t *testing.T) {
	s := startServer(t, computetest.Options{})
	for _, wanted := range []string{"999999999", "9223372036854775807", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", wanted)
			http.Error(w, `{"error": {"code": 429, "message": "later", "errors": [{"reason": "rateLimitExceeded"}]}}`, http.StatusTooManyRequests)
		}))
		t.Cleanup(evil.Close)
		settings := newSettings(s)
		settings.Endpoint = evil.URL
		_, err := openProvider(t, settings, "i").ListMachines(t.Context())
		if wait := failureOf(err).RetryAfter; wait <= 0 || wait > time.Hour {
			t.Errorf("%s: waits %v after %v", wanted, wait, err)
		}
	}
}
