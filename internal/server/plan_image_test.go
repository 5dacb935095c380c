package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// fakeImageFinder is an engine that records the logins for registries.
type fakeImageFinder struct {
	engine.Engine
	logins []dstack.RegistryAuth
	images []string
	hangs  bool // the registry does not answer
}

func (f *fakeImageFinder) FindImage(ctx context.Context, image string, auth *dstack.RegistryAuth) (engine.ImageInfo, error) {
	f.images = append(f.images, image)
	if f.hangs {
		<-ctx.Done()
		return engine.ImageInfo{}, ctx.Err()
	}
	if auth != nil {
		f.logins = append(f.logins, *auth)
	}
	return engine.ImageInfo{DownloadBytes: 5 << 30}, nil
}

// A plan asks a registry with the values of secrets, never with the references to them.
func TestPlan_AsksTheRegistryWithTheValuesOfSecrets(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	finder := &fakeImageFinder{}
	h.backend.engine = finder
	h.setSecret("PASSWORD", "canary")
	const yaml = "type: service\nport: 8000\ncommands: [a]\nimage: registry.example.com/a\n" +
		"registry_auth: {username: ann, password: '${{ secrets.PASSWORD }}'}\n"
	h.mustCall(api.PathPreview, api.RunSpecRequest{RunSpec: h.newRunSpec("web", yaml)}, nil)
	if want := (dstack.RegistryAuth{Username: "ann", Password: "canary"}); len(finder.logins) != 1 || finder.logins[0] != want {
		t.Errorf("the registry gets %+v", finder.logins)
	}
}

// groupsWith returns a service with a group for each image.
func groupsWith(images ...string) string {
	groups := make([]string, len(images))
	for i, image := range images {
		groups[i] = fmt.Sprintf(`{"image": %q, "replicas": 1, "commands": ["serve"]}`, image)
	}
	return `{"type": "service", "port": 8000, "groups": [` + strings.Join(groups, ",") + "]}"
}

// A plan asks about the image of several groups once.
func TestPlan_AsksOnceAboutTheImageOfGroups(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	finder := &fakeImageFinder{}
	h.backend.engine = finder
	var preview api.Preview
	h.mustCall(api.PathPreview, groupsBody(groupsWith("a", "a", "b")), &preview)
	if want := []string{"a", "b"}; !slices.Equal(finder.images, want) || len(preview.Notes) != 2 {
		t.Errorf("asked about %q, notes %q", finder.images, preview.Notes)
	}
}

// Registries that do not answer delay a plan once, however many groups it has.
func TestPlan_RegistriesThatHang(t *testing.T) {
	t.Parallel()
	h := newTestServer(t)
	h.initRepo()
	finder := &fakeImageFinder{hangs: true}
	h.backend.engine = finder
	h.mustCall(api.PathPreview, groupsBody(groupsWith("a", "b", "c")), nil)
	if len(finder.images) != 1 {
		t.Errorf("asked about %q, although the first one took the whole time", finder.images)
	}
}
