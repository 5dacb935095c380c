package gcp_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/cloud/gcp"
	"dstack/internal/cloud/gcp/computetest"
	"dstack/internal/dstack"
)

// isolate hides the credentials of the machine that the tests run on.
func isolate(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("CLOUDSDK_CONFIG", "")
	t.Setenv("GCE_METADATA_HOST", closedAddress(t))
	return home
}

// closedAddress returns an address on which nobody listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// check asks for the project with some credentials.
func check(t *testing.T, s *computetest.Server, c gcp.Credentials) error {
	t.Helper()
	settings := newSettings(s)
	settings.Credentials = c
	return openProvider(t, settings, "i").CheckAccess(t.Context())
}

func expectRefusal(t *testing.T, err error, message string) {
	t.Helper()
	if f := failureOf(err); dstack.KindOf(err) != dstack.Unauthorized || f.Scope != dstack.ScopeBackend || !strings.Contains(err.Error(), message) || hintOf(err) == "" {
		t.Errorf("%v, failure %+v, hint %q, want %q", err, f, hintOf(err), message)
	}
}

func TestCredentials_Files(t *testing.T) {
	home := isolate(t)
	s := startServer(t, computetest.Options{})
	file := filepath.Join(home, "keys", "key.json")
	settings := newSettings(s)
	settings.Credentials = gcp.Credentials{Filename: "~/keys/key.json"}
	p := openProvider(t, settings, "i")
	expectRefusal(t, p.CheckAccess(t.Context()), "there is no file ~/keys/key.json")
	writeFile(t, file, `{"type": "service_account"}`)
	expectRefusal(t, check(t, s, gcp.Credentials{Filename: file}), "is not the key of a service account: it has no `client_email`")
	writeFile(t, file, s.KeyFile(""))
	p.ForgetFailure() // a failure is repeated for five seconds
	if err := p.CheckAccess(t.Context()); err != nil {
		t.Errorf("the file is there by now: %v", err)
	}
}

func TestCredentials_Default(t *testing.T) {
	home := isolate(t)
	s := startServer(t, computetest.Options{})
	expectRefusal(t, check(t, s, gcp.Credentials{}), "there are no credentials for GCP")
	own := filepath.Join(home, "own.json")
	writeFile(t, own, s.KeyFile(""))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", own)
	if err := check(t, s, gcp.Credentials{}); err != nil {
		t.Errorf("GOOGLE_APPLICATION_CREDENTIALS: %v", err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(home, "gone.json"))
	expectRefusal(t, check(t, s, gcp.Credentials{}), "which GOOGLE_APPLICATION_CREDENTIALS names")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	writeFile(t, filepath.Join(home, ".config/gcloud/application_default_credentials.json"), s.KeyFile(""))
	if err := check(t, s, gcp.Credentials{}); err != nil {
		t.Errorf("the file of gcloud: %v", err)
	}
	writeFile(t, filepath.Join(home, ".config/gcloud/application_default_credentials.json"), `{"type": "unheard_of"}`)
	expectRefusal(t, check(t, s, gcp.Credentials{}), "has no credentials that dstack can use")
}

// TestCredentials_Metadata: the account of the server's machine is used last, and a silent service costs seconds, not
// the minute of Google's library.
func TestCredentials_Metadata(t *testing.T) {
	isolate(t)
	s := startServer(t, computetest.Options{})
	token := s.AddToken(computetest.DefaultAccount)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		switch {
		case r.Header.Get("Metadata-Flavor") != "Google":
			http.Error(w, "no", http.StatusForbidden)
		case strings.HasSuffix(r.URL.Path, "/email"):
			fmt.Fprint(w, computetest.DefaultAccount)
		case strings.HasSuffix(r.URL.Path, "/token"):
			fmt.Fprintf(w, `{"access_token": %q, "expires_in": 3600, "token_type": "Bearer"}`, token)
		}
	}))
	defer service.Close()
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(service.URL, "http://"))
	if err := check(t, s, gcp.Credentials{}); err != nil {
		t.Error(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("GCE_METADATA_HOST", silent.Addr().String())
	began := time.Now()
	p := openProvider(t, gcp.Settings{ProjectID: computetest.DefaultProject, Endpoint: s.URL}, "i")
	expectRefusal(t, p.CheckAccess(t.Context()), "there are no credentials for GCP")
	expectRefusal(t, p.CheckAccess(t.Context()), "there are no credentials for GCP") // the failure is kept
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if other := newSettings(s); openProvider(t, other, "i").CheckAccess(t.Context()) != nil {
		t.Error("a key of its own needs no metadata service")
	}
}

// TestCredentials_TokenEndpoint: what fails for a moment is repeated, a refusal is said, and the key never is.
func TestCredentials_TokenEndpoint(t *testing.T) {
	s := startServer(t, computetest.Options{})
	s.Inject(computetest.Fault{Method: "token", Status: 503, Reason: "backendError", Message: "busy", Times: 2})
	if err := check(t, s, newSettings(s).Credentials); err != nil {
		t.Errorf("after two failures: %v", err)
	}
	restore := s.Inject(computetest.Fault{Method: "token", Status: 503, Reason: "backendError", Message: "busy"})
	err := check(t, s, newSettings(s).Credentials)
	if dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "503 Service Unavailable") {
		t.Errorf("%v", err)
	}
	restore()
	s.SetAccount(computetest.DefaultAccount, computetest.Account{IsDeleted: true})
	expectRefusal(t, check(t, s, newSettings(s).Credentials), "account not found")
	other := startServer(t, computetest.Options{})
	wrong := strings.ReplaceAll(newSettings(other).Credentials.Data, computetest.DefaultAccount, "ghost@test-project.iam.gserviceaccount.com")
	expectRefusal(t, check(t, other, gcp.Credentials{Data: wrong}), "ghost@test-project.iam.gserviceaccount.com")
}
