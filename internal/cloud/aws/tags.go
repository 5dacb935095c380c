package aws

import (
	"maps"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// tagsFor returns the tags of new objects: those of the configuration, the given ones, and the mark of the installation.
// Their order is always the same, since a repeated request must be the same one.
func (p *Provider) tagsFor(own map[string]string, kinds ...types.ResourceType) []types.TagSpecification {
	all := maps.Clone(p.settings.Tags)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, own)
	all[tagInstallation] = string(p.installation)
	var tags []types.Tag
	for _, name := range slices.Sorted(maps.Keys(all)) {
		tags = append(tags, types.Tag{Key: sdk.String(name), Value: sdk.String(all[name])})
	}
	specifications := make([]types.TagSpecification, len(kinds))
	for i, kind := range kinds {
		specifications[i] = types.TagSpecification{ResourceType: kind, Tags: tags}
	}
	return specifications
}

// tagOf returns the value of a tag, or nothing.
func tagOf(tags []types.Tag, name string) string {
	for _, tag := range tags {
		if sdk.ToString(tag.Key) == name {
			return sdk.ToString(tag.Value)
		}
	}
	return ""
}

// isOwn reports whether tags have the mark of the installation. Listings are filtered by it, but an endpoint that is not
// Amazon's may not know filters, and what is listed may be deleted.
func (p *Provider) isOwn(tags []types.Tag) bool {
	return tagOf(tags, tagInstallation) == string(p.installation)
}
