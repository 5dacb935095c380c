package server

import (
	"context"
	"fmt"
	"time"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/human"
)

// maxImageTime limits the time to ask registries about the images of all groups.
const maxImageTime = 5 * time.Second

// describeImages says how much has to be downloaded before the replicas of each group can start.
// It asks about each image once.
func (s *Server) describeImages(ctx context.Context, project dstack.ProjectID, groups []groupPlan) (notes []string) {
	ctx, cancel := context.WithTimeout(ctx, maxImageTime)
	defer cancel()
	asked := map[string]bool{}
	for _, g := range groups {
		image := job.ChooseImage(g.spec)
		if asked[image] || ctx.Err() != nil {
			continue
		}
		asked[image] = len(g.placements) > 0
		if note := s.describeImage(ctx, project, g); note != "" {
			notes = append(notes, note)
		}
	}
	return notes
}

// describeImage says how much has to be downloaded before the replicas can start,
// or "" if nothing has to be, or nothing is known.
func (s *Server) describeImage(ctx context.Context, project dstack.ProjectID, p groupPlan) string {
	if len(p.placements) == 0 || !p.placements[0].Offer.Engine.Containers || p.placements[0].Offer.OwnedInstance == "" {
		return ""
	}
	offer := p.placements[0].Offer
	b, err := s.backends.Get(offer.Key)
	if err != nil {
		return ""
	}
	eng, err := b.Engine(ctx, offer.OwnedInstance)
	finder, ok := eng.(engine.ImageFinder)
	if err != nil || !ok {
		return ""
	}
	image := job.ChooseImage(p.spec)
	// A registry must not see a reference in place of a secret: it would count a failed login.
	resolved, err := s.store.ResolveSecrets(ctx, dstack.Run{ProjectID: project, Spec: p.spec})
	if err != nil {
		return ""
	}
	var auth *dstack.RegistryAuth
	if login := resolved.Spec.Configuration.RegistryAuth; login != nil {
		auth = &dstack.RegistryAuth{Username: login.Username, Password: login.Password}
	}
	info, err := finder.FindImage(ctx, image, auth)
	switch {
	case err != nil || info.IsLocal:
		return ""
	case info.DownloadBytes == 0 && p.spec.Configuration.Image == "":
		return fmt.Sprintf("the default image %s is not on %s yet: several gigabytes will be downloaded; `image` may name a smaller one",
			image, offer.Type)
	case info.DownloadBytes == 0:
		return fmt.Sprintf("the image %s is not on %s yet and will be downloaded", image, offer.Type)
	}
	return fmt.Sprintf("the image %s is not on %s yet: %s will be downloaded", image, offer.Type, human.ImageBytes(info.DownloadBytes))
}
