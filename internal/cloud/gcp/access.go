package gcp

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// CheckAccess implements cloud.Provider.
func (p *Provider) CheckAccess(ctx context.Context) error {
	s := p.settings
	_, err := read[struct{}](ctx, p, s.ProjectID, "", "name", "read the project "+s.ProjectID)
	if hasMeaning(err, meansNotFound) {
		return newSettingsError("there is no project "+s.ProjectID+", or "+p.client.tokens.Account()+" may not see it", "correct `project_id` in config.yml: it is the project's ID, not its name", err)
	}
	if err != nil {
		return p.describeError(err, nil)
	}
	if err := p.checkRights(ctx, s.ProjectID, rights); err != nil {
		return err
	}
	if s.VPCProjectID == "" || s.VPCProjectID == s.ProjectID {
		if err := p.checkRights(ctx, s.ProjectID, networkRights); err != nil {
			return err
		}
	}
	if err := p.checkImages(ctx); err != nil {
		return err
	}
	return p.checkRegions(ctx)
}

// newSettingsError returns an error that says that the settings are wrong for every offer of the backend.
func newSettingsError(message, hint string, cause error) *dstack.Error {
	refusal := newCredentialsError(message, hint, cause)
	refusal.Kind = dstack.Forbidden
	return refusal
}

// checkRights reports the permissions that the account lacks in a project, all at once. It needs the Cloud Resource
// Manager API: where that is not enabled, missing rights show when they are needed.
func (p *Provider) checkRights(ctx context.Context, project string, table []Right) error {
	var body, answer struct {
		Permissions []string `json:"permissions"`
	}
	for _, r := range table {
		if r.isNeeded(p.settings) {
			body.Permissions = append(body.Permissions, r.Name)
		}
	}
	err := p.client.send(ctx, call{method: http.MethodPost, url: p.client.projects + project + ":testIamPermissions", body: body, what: "see what dstack may do in " + project}, &answer)
	if hasMeaning(err, meansDisabled) || hasMeaning(err, meansForbidden) {
		return nil
	}
	if err != nil {
		return p.describeError(err, nil)
	}
	var missing []string
	hints := map[string]bool{}
	for _, name := range body.Permissions {
		if !slices.Contains(answer.Permissions, name) {
			missing = append(missing, name)
			hints[hintForRight(name)] = true
		}
	}
	if len(missing) == 0 {
		return nil
	}
	hint := rightsHint
	if len(hints) == 1 {
		hint = hintForRight(missing[0])
	}
	return newSettingsError(p.client.tokens.Account()+" lacks permissions in the project "+project+": "+strings.Join(missing, ", "), hint, nil)
}

// checkImages reports images of the settings that do not exist.
func (p *Provider) checkImages(ctx context.Context) error {
	for _, image := range []string{p.settings.Images.CPU, p.settings.Images.Nvidia} {
		if image == "" {
			continue
		}
		project := projectOf(image)
		_, path, _ := strings.Cut(image, project+"/")
		_, err := read[struct{}](ctx, p, project, path, "name", "find the image "+image)
		if hasMeaning(err, meansNotFound) {
			return newSettingsError("there is no image "+image, "correct `os_images` in config.yml: gcloud compute images list --project "+project, err)
		}
		if err != nil {
			return p.describeError(err, nil)
		}
	}
	return nil
}

// checkRegions reports regions of the settings that do not exist, or have no subnet.
func (p *Provider) checkRegions(ctx context.Context) error {
	zones, err := p.zones.get(ctx, p.readZones)
	if err != nil {
		return p.describeError(err, nil)
	}
	n, err := p.network.get(ctx, p.readNetwork)
	if err != nil {
		return p.describeError(err, nil)
	}
	byRegion := cloud.RegionErrors{}
	var first *dstack.Error
	fail := func(region string, problem *dstack.Error) {
		byRegion[region] = problem
		first = cmp.Or(first, problem)
	}
	regions := p.settings.Regions
	if len(regions) == 0 && len(n.subnets) == 0 { // the message is the same for each region
		regions = slices.Sorted(maps.Keys(zones))[:min(1, len(zones))]
	}
	for _, region := range regions {
		if len(zones[region]) == 0 {
			known := slices.Sorted(maps.Keys(zones))
			hint := "write one of " + strings.Join(known, ", ")
			if near := human.Nearest(region, known); near != "" {
				hint = "did you mean " + near + "?"
			}
			fail(region, newSettingsError("GCP has no region "+region, hint, nil))
		} else if problem := p.checkNetwork(n, region); problem != nil {
			p.network.forget()
			if len(n.subnets) == 0 { // of all regions
				problem.Kind = dstack.Forbidden
				return problem
			}
			fail(region, problem)
		}
	}
	if first == nil {
		return nil
	}
	joined := *first
	if len(byRegion) < len(regions) {
		joined.Cause = errors.Join(first.Cause, byRegion)
	}
	return &joined
}
