package docker_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
)

// openHostile opens the engine of a machine that answers every call, except those about itself, with the result of answer.
func openHostile(t *testing.T, answer func(r *http.Request) string) *docker.Engine {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.47")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.Copy(io.Discard, r.Body)
		if strings.HasSuffix(r.URL.Path, "/info") {
			_, _ = io.WriteString(w, `{"ID": "E", "OSType": "linux", "Architecture": "x86_64"}`)
			return
		}
		_, _ = io.WriteString(w, answer(r))
	}))
	t.Cleanup(server.Close)
	e := openEngine(t, docker.Options{
		Installation: "i", Remote: &docker.Remote{HostID: "host", Dial: func(ctx context.Context) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "tcp", server.Listener.Addr().String())
		}},
		Files: func(context.Context, dstack.FileArchive) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("")), nil
		},
	})
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// The engine of a host may be a fake one, and leave out whatever Docker never leaves out. Nothing of it ends the server.
func TestEngine_HostileAnswers(t *testing.T) {
	const attempt = "7e0e7a52-13c8-4a6c-9d6b-0d9d3e1c5a11"
	listed := `[{"Id": "c", "State": "running", "Labels": {"dstack.attempt": "` + attempt + `", "dstack.installation": "i"}}]`
	for _, inspected := range []string{`{}`, `null`, `[]`, `"x"`, ``, `{"State": {}}`, `{"State": {"Running": true}}`,
		`{"State": {"Running": true}, "NetworkSettings": {"Networks": {"a": null}}}`, `{"Id": "c", "ExecIDs": ["a"], "Config": null}`} {
		t.Run(inspected, func(t *testing.T) {
			t.Parallel()
			e := openHostile(t, func(r *http.Request) string {
				if strings.HasSuffix(r.URL.Path, "/containers/json") && !strings.Contains(r.URL.RawQuery, "dstack.attempt") {
					return listed
				}
				return inspected
			})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, _ = e.ListReports(ctx)
			spec := newSpec("local/x:1", "true")
			spec.Files = []dstack.FileArchive{{Path: "a"}}
			_ = e.Start(ctx, spec)
			for range 20 {
				if reports, err := e.ListReports(ctx); err != nil || len(reports) == 0 || reports[0].State.IsOver() {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			for _, err := range e.Logs(ctx, attempt, time.Time{}) {
				if err != nil {
					break
				}
			}
			_ = e.Stop(ctx, attempt, 0)
			_ = e.Remove(ctx, attempt)
			_ = e.Remove(ctx, spec.Attempt)
			_, _ = e.ListVolumes(ctx)
			_, _ = e.CreateVolume(ctx, dstack.Volume{ID: attempt, Name: "data"})
			_, _ = e.CreateVolume(ctx, dstack.Volume{ID: attempt, Name: "data", IsExternal: true, ExternalID: "/data"})
			_ = e.DeleteVolume(ctx, dstack.Volume{ID: attempt, Name: "data"})
		})
	}
}

// What a report takes over from the engine is bounded: it is stored.
func TestEngine_HostileReport(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	e := openHostile(t, func(r *http.Request) string {
		switch {
		case strings.HasSuffix(r.URL.Path, "/containers/json"):
			return `[{"Id": "a", "State": "exited", "Labels": {"dstack.attempt": "a"}}, {"Id": "b", "State": "running", "Labels": {"dstack.attempt": "b"}}]`
		case strings.HasSuffix(r.URL.Path, "/containers/a/json"):
			return `{"State": {"Running": false, "ExitCode": 1, "Error": "` + long + `"}, "Config": {}}`
		default:
			return `{"State": {"Running": true}, "Config": {"Labels": {"dstack.port": "` + long + `"}}, "NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.2"}}}}`
		}
	})
	reports, err := e.ListReports(t.Context())
	if err != nil || len(reports) != 2 {
		t.Fatalf("%d reports, %v", len(reports), err)
	}
	for _, r := range reports {
		if len(r.Error) > 5000 || r.Address != "" || r.Attempt == "a" && !strings.HasPrefix(r.Error, "éé") {
			t.Errorf("%s: an error of %d bytes, an address of %d", r.Attempt, len(r.Error), len(r.Address))
		}
	}
}
