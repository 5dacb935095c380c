package docker

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// manifestTimeout limits the time to ask a registry for the size of an image.
const manifestTimeout = 3 * time.Second

var _ engine.ImageFinder = (*Engine)(nil)

// FindImage implements engine.ImageFinder. A registry that does not answer, or
// refuses, makes the size unknown; the pull will say why.
func (e *Engine) FindImage(ctx context.Context, image string, auth *dstack.RegistryAuth) (engine.ImageInfo, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return engine.ImageInfo{}, translateError(fmt.Errorf("invalid reference format: %w", err), pullErrors, image)
	}
	full := reference.TagNameOnly(named).String()
	_, err = e.docker.ImageInspect(ctx, full)
	switch {
	case err == nil:
		return engine.ImageInfo{IsLocal: true}, nil
	case !errdefs.IsNotFound(err):
		return engine.ImageInfo{}, e.translateError(err, pullErrors, image)
	}
	size, err := fetchImageSize(ctx, full, cmp.Or(e.about.arch, runtime.GOARCH), auth)
	if err != nil {
		e.opts.Log.Debug("the size of an image is unknown", "image", image, "err", err)
	}
	return engine.ImageInfo{DownloadBytes: size}, nil
}

// fetchImageSize asks the registry for the sizes of an image's layers.
func fetchImageSize(ctx context.Context, image, arch string, auth *dstack.RegistryAuth) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
	defer cancel()
	ref, err := name.ParseReference(image)
	if err != nil {
		return 0, err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch})}
	if auth != nil {
		options = append(options, remote.WithAuth(&authn.Basic{Username: auth.Username, Password: auth.Password}))
	}
	found, err := remote.Image(ref, options...)
	if err != nil {
		return 0, err
	}
	manifest, err := found.Manifest()
	if err != nil {
		return 0, err
	}
	size := manifest.Config.Size
	for _, layer := range manifest.Layers {
		size += layer.Size
	}
	return size, nil
}
