package docker

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
)

// fetch sees to it that the image is there. One that is there is used, unless
// it is a :latest; a :latest that cannot be fetched is used as it is.
func (e *Engine) fetch(ctx context.Context, o dstack.Order, s *start) error {
	image := tagged(o.Image)
	_, err := e.api.ImageInspect(ctx, image)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	here := err == nil
	if here && !strings.HasSuffix(image, ":latest") {
		return nil
	}
	s.set(func(r *dstack.Report) { r.Outcome, r.Progress = dstack.OutcomePulling, "pulling "+image })
	err = e.pull(ctx, image, o.Auth, s)
	if err != nil && here && ctx.Err() == nil {
		e.Log.Warn("an image was not refreshed; the one that is here is used", "image", image, "err", err)
		return nil
	}
	return err
}

func (e *Engine) pull(ctx context.Context, image string, auth *dstack.RegistryAuth, s *start) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pullLimit, errPullLimit)
	defer cancel()
	options := client.ImagePullOptions{}
	if auth != nil {
		var err error
		options.RegistryAuth, err = authconfig.Encode(registry.AuthConfig{Username: auth.Username, Password: auth.Password})
		if err != nil {
			return err
		}
	}
	stream, err := e.api.ImagePull(ctx, image, options)
	if err != nil {
		return pullError{image, err}
	}
	defer stream.Close()
	p := progress{image: image, began: time.Now(), layers: map[string]layer{}}
	for m, err := range stream.JSONMessages(ctx) {
		if err == nil && m.Error != nil {
			err = m.Error
		}
		if err != nil {
			return pullError{image, err}
		}
		if p.hear(m) {
			s.set(func(r *dstack.Report) { r.Progress = p.text(time.Now()) })
		}
	}
	if err := context.Cause(ctx); err != nil {
		return pullError{image, err}
	}
	return nil
}

// tagged completes a name without a tag or digest.
func tagged(image string) string {
	last := image[strings.LastIndex(image, "/")+1:]
	if strings.ContainsAny(last, ":@") {
		return image
	}
	return image + ":latest"
}

// progress sums up what the engine says of the layers.
type progress struct {
	image  string
	began  time.Time
	layers map[string]layer
}

type layer struct{ done, total int64 }

// hear takes note of a message and says whether anything changed. Layers that
// are here already are never heard of.
func (p *progress) hear(m jsonstream.Message) bool {
	if m.ID == "" || m.Progress == nil || m.Progress.Total <= 0 || m.Status != "Downloading" {
		if l, ok := p.layers[m.ID]; ok && (m.Status == "Download complete" || m.Status == "Pull complete") {
			p.layers[m.ID] = layer{l.total, l.total}
			return true
		}
		return false
	}
	p.layers[m.ID] = layer{m.Progress.Current, m.Progress.Total}
	return true
}

// text is what people see: pulling image 62% of 8.1GB, about 20s left.
func (p *progress) text(now time.Time) string {
	var done, total int64
	for _, l := range p.layers {
		done, total = done+l.done, total+l.total
	}
	if total == 0 {
		return "pulling " + p.image
	}
	text := fmt.Sprintf("pulling image %d%% of %s", done*100/total, sized(total))
	took := now.Sub(p.began).Seconds()
	if done == 0 || took < 2 || done >= total {
		return text
	}
	left := time.Duration(math.Ceil(took*float64(total-done)/float64(done))) * time.Second
	return text + fmt.Sprintf(", about %s left", left)
}

// sized prints a size as people write it.
func sized(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1fGB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.0fMB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.0fkB", math.Ceil(float64(n)/1e3))
	}
}
