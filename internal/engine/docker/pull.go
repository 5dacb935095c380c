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

// Limits of a pull. An image that is here already is not waited for long when
// its registry is slow to say whether there is a newer one.
const (
	pullLimit    = 20 * time.Minute
	refreshLimit = 20 * time.Second
)

// fetch makes an image available and returns its full name. say tells how far
// it is. One that is here is used as it is, except for :latest, which is
// looked up again; where that fails, the one that is here does.
func (e *Engine) fetch(ctx context.Context, o dstack.AttemptSpec, say func(string)) (string, error) {
	named, err := reference.ParseNormalizedNamed(o.Image)
	if err != nil {
		return "", explain(fmt.Errorf("invalid reference format: %w", err), pullTroubles, o.Image)
	}
	named = reference.TagNameOnly(named)
	_, err = e.docker.ImageInspect(ctx, named.String())
	if err != nil && !errdefs.IsNotFound(err) {
		return "", explain(err, pullTroubles, o.Image)
	}
	here := err == nil
	if tagged, ok := named.(reference.Tagged); here && (!ok || tagged.Tag() != "latest") {
		return named.String(), nil
	}
	err = e.pull(ctx, named, o.Auth, here, say)
	if here && err != nil && ctx.Err() == nil {
		err = explain(err, pullTroubles, o.Image)
		e.opts.Log.Warn("an image was not looked up again; the one that is here is used", "image", o.Image, "err", err)
		say("using the image that is here, as it could not be looked up again: " + err.Error())
		return named.String(), nil
	}
	return named.String(), explain(err, pullTroubles, o.Image)
}

func (e *Engine) pull(ctx context.Context, image reference.Named, auth *dstack.RegistryAuth, here bool, say func(string)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pullLimit, &dstack.Error{
		Kind: dstack.Timeout, Message: fmt.Sprintf("image %s was not pulled within %v", reference.FamiliarString(image), pullLimit),
		Hint: "pull it by hand with docker pull, then apply again",
	})
	defer cancel()
	impatient := time.AfterFunc(refreshLimit, func() {
		if here {
			cancel()
		}
	})
	defer impatient.Stop()
	login, err := loginFor(image, auth)
	if err != nil {
		return err
	}
	say("pulling image")
	stream, err := e.docker.ImagePull(ctx, image.String(), client.ImagePullOptions{RegistryAuth: login})
	if err != nil {
		return timedOut(ctx, err)
	}
	p := progress{begun: time.Now(), layers: map[string]*layer{}}
	for m, err := range stream.JSONMessages(ctx) {
		if err != nil {
			return timedOut(ctx, err)
		}
		if m.Error != nil {
			return m.Error
		}
		if p.take(m) {
			impatient.Stop() // there is a newer one, and it comes
		}
		say(p.text(time.Now()))
	}
	return nil
}

// timedOut prefers our own words about a pull that took too long.
func timedOut(ctx context.Context, err error) error {
	if ours, ok := errors.AsType[*dstack.Error](context.Cause(ctx)); ok {
		return ours
	}
	return err
}

func loginFor(image reference.Named, auth *dstack.RegistryAuth) (string, error) {
	if auth == nil || auth.Username == "" && auth.Password == "" {
		return "", nil
	}
	return authconfig.Encode(registry.AuthConfig{
		Username: auth.Username, Password: auth.Password, ServerAddress: reference.Domain(image),
	})
}

// progress adds up what a pull says of its layers.
type progress struct {
	begun  time.Time
	layers map[string]*layer
}

type layer struct {
	size, got          int64
	unpacked           int64
	fetched, completed bool
}

// take notes one message; true when bytes come.
func (p *progress) take(m jsonstream.Message) bool {
	if m.ID == "" || strings.HasPrefix(m.Status, "Pulling from") {
		return false
	}
	l := p.layers[m.ID]
	if l == nil {
		l = &layer{}
		p.layers[m.ID] = l
	}
	switch m.Status {
	case "Downloading":
		if m.Progress == nil {
			return false
		}
		l.got, l.size = m.Progress.Current, max(l.size, m.Progress.Total)
		return true
	case "Extracting":
		l.fetched, l.got = true, l.size
		if m.Progress != nil {
			l.unpacked = min(m.Progress.Current, l.size)
		}
	case "Verifying Checksum", "Download complete":
		l.fetched, l.got = true, l.size
	case "Pull complete", "Already exists":
		l.fetched, l.completed, l.got, l.unpacked = true, true, l.size, l.size
	default: // Pulling fs layer, Waiting, Retrying
	}
	return false
}

// text says how far it is: with a share and a guess of the time left once the
// sizes of all layers are known.
func (p *progress) text(now time.Time) string {
	var size, got, unpacked int64
	known, fetched := true, true
	done := 0
	for _, l := range p.layers {
		size, got, unpacked = size+l.size, got+l.got, unpacked+l.unpacked
		known = known && (l.size > 0 || l.fetched)
		fetched = fetched && l.fetched
		if l.completed {
			done++
		}
	}
	switch {
	case size == 0:
		return "pulling image"
	case fetched:
		return fmt.Sprintf("unpacking image %d%% of %s", unpacked*100/size, human.ImageBytes(size))
	case !known:
		return fmt.Sprintf("pulling image, %s so far, %d of %d layers", human.ImageBytes(got), done, len(p.layers))
	}
	text := fmt.Sprintf("pulling image %d%% of %s", got*100/size, human.ImageBytes(size))
	if took := now.Sub(p.begun); took > 2*time.Second && got > 0 {
		left := time.Duration(float64(took) * float64(size-got) / float64(got))
		unit := time.Second
		if left >= time.Minute {
			unit = time.Minute
		}
		text += ", about " + human.Duration(max(left.Round(unit), time.Second)) + " left"
	}
	return text
}
