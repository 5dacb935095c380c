package docker

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"dstack/internal/dstack"
)

// The registry demands a login, as most that matter do.
func TestFetchImageSize(t *testing.T) {
	files := registry.New()
	needsLogin := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); needsLogin && (user != "alice" || password != "s3cret") {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "log in", http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	image := strings.TrimPrefix(server.URL, "http://") + "/team/model:1"
	ref, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := random.Image(50_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, pushed); err != nil {
		t.Fatal(err)
	}
	needsLogin = true
	size, err := fetchImageSize(t.Context(), image, runtime.GOARCH, &dstack.RegistryAuth{Username: "alice", Password: "s3cret"})
	if err != nil || size < 150_000 || size > 160_000 {
		t.Errorf("three layers of 50 kB have %d bytes, %v", size, err)
	}
	if size, err := fetchImageSize(t.Context(), image, runtime.GOARCH, nil); err == nil || size != 0 {
		t.Errorf("without a login: %d, %v", size, err)
	}
	server.Close()
	if size, err := fetchImageSize(t.Context(), image, runtime.GOARCH, nil); err == nil || size != 0 {
		t.Errorf("without a registry: %d, %v", size, err)
	}
}
