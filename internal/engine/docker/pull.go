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
)

// Limits of a pull. An image that is here already is not waited for long when
// its registry is slow to say whether there is a newer one.
const (
	pullTimeout    = 20 * time.Minute
	refreshTimeout = 20 * time.Second
)

// ensureImage makes an image available and returns its full name. say tells how far
// it is. One that is here is used as it is, except for :latest, which is
// looked up again; where that fails, the one that is here does.
func (e *Engine) ensureImage(ctx context.Context, spec dstack.AttemptSpec, setProgress func(string)) (string, error) {
	named, err := reference.ParseNormalizedNamed(spec.Image)
	if err != nil {
		return "", translateError(fmt.Errorf("invalid reference format: %w", err), pullErrors, spec.Image)
	}
	named = reference.TagNameOnly(named)
	_, err = e.docker.ImageInspect(ctx, named.String())
	if err != nil && !errdefs.IsNotFound(err) {
		return "", translateError(err, pullErrors, spec.Image)
	}
	isLocal := err == nil
	if tagged, ok := named.(reference.Tagged); isLocal && (!ok || tagged.Tag() != "latest") {
		return named.String(), nil
	}
	err = e.pullImage(ctx, named, spec.Auth, isLocal, setProgress)
	if isLocal && err != nil && ctx.Err() == nil {
		err = translateError(err, pullErrors, spec.Image)
		e.opts.Log.Warn("an image was not looked up again; the one that is here is used", "image", spec.Image, "err", err)
		setProgress("using the image that is here, as it could not be looked up again: " + err.Error())
		return named.String(), nil
	}
	return named.String(), translateError(err, pullErrors, spec.Image)
}

func (e *Engine) pullImage(ctx context.Context, image reference.Named, auth *dstack.RegistryAuth, isLocal bool, setProgress func(string)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pullTimeout, &dstack.Error{
		Kind: dstack.Timeout, Message: fmt.Sprintf("image %s was not pulled within %v", reference.FamiliarString(image), pullTimeout),
		Hint: "pull it by hand with docker pull, then apply again",
	})
	defer cancel()
	impatient := time.AfterFunc(refreshTimeout, func() {
		if isLocal {
			cancel()
		}
	})
	defer impatient.Stop()
	login, err := encodeAuth(image, auth)
	if err != nil {
		return err
	}
	setProgress("pulling image")
	stream, err := e.docker.ImagePull(ctx, image.String(), client.ImagePullOptions{RegistryAuth: login})
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
			impatient.Stop() // there is a newer one, and it comes
		}
		setProgress(p.format(time.Now()))
	}
	return nil
}

// preferTimeoutCause prefers our own words about a pull that took too long.
func preferTimeoutCause(ctx context.Context, err error) error {
	if ours, ok := errors.AsType[*dstack.Error](context.Cause(ctx)); ok {
		return ours
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

// pullProgress adds up what a pull says of its layers.
type pullProgress struct {
	startedAt time.Time
	layers    map[string]*layerProgress
}

type layerProgress struct {
	size, downloaded         int64
	extracted                int64
	isDownloaded, isComplete bool
}

// update notes one message; true when bytes come.
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

// format says how far it is: with a share and a guess of the time left once the
// sizes of all layers are known.
func (p *pullProgress) format(now time.Time) string {
	var size, got, unpacked int64
	known, fetched := true, true
	done := 0
	for _, l := range p.layers {
		size, got, unpacked = size+l.size, got+l.downloaded, unpacked+l.extracted
		known = known && (l.size > 0 || l.isDownloaded)
		fetched = fetched && l.isDownloaded
		if l.isComplete {
			done++
		}
	}
	switch {
	case size == 0:
		return "pulling image"
	case fetched:
		return fmt.Sprintf("unpacking image %d%% of %s", unpacked*100/size, formatBytes(size))
	case !known:
		return fmt.Sprintf("pulling image, %s so far, %d of %d layers", formatBytes(got), done, len(p.layers))
	}
	text := fmt.Sprintf("pulling image %d%% of %s", got*100/size, formatBytes(size))
	if took := now.Sub(p.startedAt); took > 2*time.Second && got > 0 {
		left := time.Duration(float64(took) * float64(size-got) / float64(got))
		text += ", about " + formatTimeLeft(left) + " left"
	}
	return text
}

func formatTimeLeft(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%ds", max(1, int(d.Round(time.Second)/time.Second)))
	}
	return fmt.Sprintf("%dm", int(d.Round(time.Minute)/time.Minute))
}

// formatBytes writes a size as registries do, in powers of ten.
func formatBytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1fGB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%dMB", n/1e6)
	default:
		return fmt.Sprintf("%dkB", max(1, n/1e3))
	}
}
