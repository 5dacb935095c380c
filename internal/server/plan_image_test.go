package server

import (
	"context"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// fakeImageFinder is an engine that records the logins for registries.
type fakeImageFinder struct {
	engine.Engine
	logins []dstack.RegistryAuth
}

func (f *fakeImageFinder) FindImage(_ context.Context, _ string, auth *dstack.RegistryAuth) (engine.ImageInfo, error) {
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
