package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// Timeouts of a pull. refreshTimeout applies if the image is on the machine already and
// its registry is slow to say whether there is a newer one.
const (
	pullTimeout    = 20 * time.Minute
	refreshTimeout = 20 * time.Second
)

// ensureImage pulls the attempt's image if needed and returns its full name. An image
// that is on the machine is used without a pull, except if its tag is latest: then
// ensureImage pulls it again. If that fails, it uses the local image and returns a
// warning for the user.
func (e *Engine) ensureImage(
	ctx context.Context, spec dstack.AttemptSpec, setProgress func(string),
) (image, warning string, err error) {
	named, err := reference.ParseNormalizedNamed(spec.Image)
	if err != nil {
		return "", "", translateError(fmt.Errorf("invalid reference format: %w", err), pullErrors, spec.Image)
	}
	named = reference.TagNameOnly(named)
	_, err = e.docker.ImageInspect(ctx, named.String())
	if err != nil && !errdefs.IsNotFound(err) {
		return "", "", e.translateError(err, pullErrors, spec.Image)
	}
	isLocal := err == nil
	if tagged, ok := named.(reference.Tagged); isLocal && (!ok || tagged.Tag() != "latest") {
		return named.String(), "", nil
	}
	err = e.pullImage(ctx, named, spec.Auth, isLocal, setProgress)
	if isLocal && err != nil && ctx.Err() == nil {
		err = e.translateError(err, pullErrors, spec.Image)
		e.opts.Log.Warn("an image could not be pulled again; the local image is used", "image", spec.Image, "err", err)
		return named.String(), "using the local image, because it could not be pulled again: " + err.Error(), nil
	}
	return named.String(), "", e.translateError(err, pullErrors, spec.Image)
}

func (e *Engine) pullImage(
	ctx context.Context, image reference.Named, auth *dstack.RegistryAuth, isLocal bool, setProgress func(string),
) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pullTimeout, &dstack.Error{
		Kind: dstack.Timeout, Message: fmt.Sprintf("image %s was not pulled within %v", reference.FamiliarString(image), pullTimeout),
		Hint: "pull it by hand with docker pull, then apply again",
	})
	defer cancel()
	refreshTimer := time.AfterFunc(refreshTimeout, func() {
		if isLocal {
			cancel()
		}
	})
	defer refreshTimer.Stop()
	login, err := encodeAuth(image, auth)
	if err != nil {
		return err
	}
	setProgress("pulling image")
	stream, err := e.streams.ImagePull(ctx, image.String(), client.ImagePullOptions{RegistryAuth: login})
	if err != nil {
		return preferTimeoutCause(ctx, err)
	}
	p := pullProgress{startedAt: time.Now(), layers: map[string]*layerProgress{}}
	for m, err := range stream.JSONMessages(ctx) {
		if err != nil {
			return preferTimeoutCause(ctx, err)
		}
		if m.Error != nil {
			return m.Error
		}
		if p.update(m) {
			refreshTimer.Stop() // a newer image is being downloaded
		}
		setProgress(p.format(time.Now()))
	}
	return nil
}

// preferTimeoutCause returns the error for a pull that took too long if ctx has that
// cause, else err.
func preferTimeoutCause(ctx context.Context, err error) error {
	if timeoutErr, ok := errors.AsType[*dstack.Error](context.Cause(ctx)); ok {
		return timeoutErr
	}
	return err
}

func encodeAuth(image reference.Named, auth *dstack.RegistryAuth) (string, error) {
	if auth == nil || auth.Username == "" && auth.Password == "" {
		return "", nil
	}
	return authconfig.Encode(registry.AuthConfig{
		Username: auth.Username, Password: auth.Password, ServerAddress: reference.Domain(image),
	})
}

// pullProgress adds up the progress of an image's layers.
type pullProgress struct {
	startedAt time.Time
	layers    map[string]*layerProgress
}

type layerProgress struct {
	size, downloaded         int64
	extracted                int64
	isDownloaded, isComplete bool
}

// update applies one message of Docker. It returns true if the message says that bytes
// of a layer are being downloaded.
func (p *pullProgress) update(m jsonstream.Message) bool {
	if m.ID == "" || strings.HasPrefix(m.Status, "Pulling from") {
		return false
	}
	l := p.layers[m.ID]
	if l == nil {
		l = &layerProgress{}
		p.layers[m.ID] = l
	}
	switch m.Status {
	case "Downloading":
		if m.Progress == nil {
			return false
		}
		l.downloaded, l.size = m.Progress.Current, max(l.size, m.Progress.Total)
		return true
	case "Extracting":
		l.isDownloaded, l.downloaded = true, l.size
		if m.Progress != nil {
			l.extracted = min(m.Progress.Current, l.size)
		}
	case "Verifying Checksum", "Download complete":
		l.isDownloaded, l.downloaded = true, l.size
	case "Pull complete", "Already exists":
		l.isDownloaded, l.isComplete, l.downloaded, l.extracted = true, true, l.size, l.size
	default: // Pulling fs layer, Waiting, Retrying
	}
	return false
}

// format returns the progress for people. It has a percentage and an estimate of the
// time left once the sizes of all layers are known.
func (p *pullProgress) format(now time.Time) string {
	var size, downloaded, extracted int64
	allSizesKnown, allDownloaded := true, true
	complete := 0
	for _, l := range p.layers {
		size, downloaded, extracted = size+l.size, downloaded+l.downloaded, extracted+l.extracted
		allSizesKnown = allSizesKnown && (l.size > 0 || l.isDownloaded)
		allDownloaded = allDownloaded && l.isDownloaded
		if l.isComplete {
			complete++
		}
	}
	switch {
	case size == 0:
		return "pulling image"
	case allDownloaded:
		return fmt.Sprintf("unpacking image %d%% of %s", extracted*100/size, human.ImageBytes(size))
	case !allSizesKnown:
		return fmt.Sprintf("pulling image, %s so far, %d of %d layers", human.ImageBytes(downloaded), complete, len(p.layers))
	}
	text := fmt.Sprintf("pulling image %d%% of %s", downloaded*100/size, human.ImageBytes(size))
	if elapsed := now.Sub(p.startedAt); elapsed > 2*time.Second && downloaded > 0 {
		left := time.Duration(float64(elapsed) * float64(size-downloaded) / float64(downloaded))
		unit := time.Second
		if left >= time.Minute {
			unit = time.Minute
		}
		text += ", about " + human.Duration(max(left.Round(unit), time.Second)) + " left"
	}
	return text
}
