package aws

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/dstack"
)

// image is what a machine boots from.
type image struct {
	id     string
	device string // of its disk
	gib    int32  // size of its disk
}

const imageTime = time.Hour // how long an image is kept: newer ones appear every few weeks

// imageKind is what an image is for.
type imageKind struct {
	isARM    bool
	isNVIDIA bool
}

// kindOfImage returns the kind of image that an offer needs.
func kindOfImage(offer dstack.Offer) imageKind {
	return imageKind{
		isARM: offer.Hardware.Arch == "arm",
		isNVIDIA: slices.ContainsFunc(offer.Hardware.GPUs, func(g dstack.GPU) bool {
			return g.Maker == "nvidia" || g.Maker == ""
		}),
	}
}

func (k imageKind) String() string {
	text := "x86"
	if k.isARM {
		text = "arm"
	}
	if k.isNVIDIA {
		text += " with NVIDIA GPUs"
	}
	return text
}

const canonical = "099720109477" // the account that publishes Ubuntu

// The images for configurations that name none: Ubuntu 24.04, and Amazon's image with driver, Docker and NVIDIA's
// container toolkit.
var defaultImages = map[imageKind]Image{
	{false, false}: {Name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*", Owner: canonical},
	{true, false}:  {Name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-*", Owner: canonical},
	{false, true}:  {Name: "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) *", Owner: "amazon"},
	{true, true}:   {Name: "Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) *", Owner: "amazon"},
}

// wantedImage returns how an image is found, and whether the configuration says so.
func (p *Provider) wantedImage(kind imageKind) (wanted Image, isConfigured bool) {
	own := p.settings.Images.CPU
	if kind.isNVIDIA {
		own = p.settings.Images.NVIDIA
	}
	if own != nil {
		return *own, true
	}
	return defaultImages[kind], false
}

// findImage returns the newest image of a kind in a region.
func (p *Provider) findImage(ctx context.Context, region string, kind imageKind) (image, error) {
	return p.images.get(ctx, region+" "+kind.String(), imageTime, func(ctx context.Context) (image, error) {
		wanted, isConfigured := p.wantedImage(kind)
		found, err := p.listImages(ctx, region, kind, wanted)
		if err != nil {
			return image{}, err
		}
		if len(found) == 0 {
			return image{}, missingImage(region, kind, wanted, isConfigured)
		}
		newest := slices.MaxFunc(found, func(a, b types.Image) int {
			return cmp.Or(cmp.Compare(sdk.ToString(a.CreationDate), sdk.ToString(b.CreationDate)),
				cmp.Compare(sdk.ToString(a.ImageId), sdk.ToString(b.ImageId)))
		})
		return readImage(newest), nil
	})
}

// readImage returns an image with the size of the disk that it needs.
func readImage(found types.Image) image {
	i := image{id: sdk.ToString(found.ImageId), device: cmp.Or(sdk.ToString(found.RootDeviceName), "/dev/sda1")}
	for _, disk := range found.BlockDeviceMappings {
		if sdk.ToString(disk.DeviceName) == i.device && disk.Ebs != nil {
			i.gib = sdk.ToInt32(disk.Ebs.VolumeSize)
		}
	}
	return i
}

func (p *Provider) listImages(ctx context.Context, region string, kind imageKind, wanted Image) ([]types.Image, error) {
	arch := "x86_64"
	if kind.isARM {
		arch = "arm64"
	}
	var found []types.Image
	err := p.read(ctx, region, "DescribeImages", func(ctx context.Context, client *ec2.Client) error {
		out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{
			Owners:  []string{wanted.Owner},
			Filters: []filter{textFilter("name", wanted.Name), textFilter("architecture", arch), textFilter("state", "available")},
		})
		if err == nil {
			found = out.Images
		}
		return err
	})
	return found, err
}

// missingImage says that a region has no image. Other types may need another image, so the failure concerns the type alone,
// except for the image that most types need.
func missingImage(region string, kind imageKind, wanted Image, isConfigured bool) error {
	hint := "add os_images to the aws backend, or remove the region from its regions"
	if isConfigured {
		hint = "copy the image into the region, correct os_images of the aws backend, or remove the region from its regions"
	}
	f := dstack.MachineFailure{Cause: dstack.FailureBroken, Scope: dstack.ScopeRegion,
		Message: fmt.Sprintf("aws %s: there is no image for %s with the name %q of %s", region, kind, wanted.Name, wanted.Owner)}
	if kind == (imageKind{}) {
		f.Scope = dstack.ScopePlace
	}
	return newFailure(dstack.NoCapacity, nil, f, hint)
}
