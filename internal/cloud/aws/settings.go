package aws

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// Settings are the settings of an account in config.yml.
type Settings struct {
	Name               string      // of the account; empty: it is the only one, or the first
	Credentials        Credentials // zero: the default chain of the SDK
	Regions            []string    // empty: all that are enabled for the account
	VPCName            string      // tag Name of the network in each region; empty: see VPCIDs
	VPCIDs             map[string]string
	DefaultVPCs        bool              // regions without an entry of VPCIDs use their default network
	PublicIPs          bool              // machines get public addresses; otherwise the server reaches private ones
	Images             Images            // zero: images of Canonical and Amazon
	IAMInstanceProfile string            // of machines; empty: none
	Tags               map[string]string // added to everything that is made
	SSHSources         []netip.Prefix    // from where SSH is allowed; empty: from everywhere
	Endpoint           string            // of the API, instead of Amazon's; empty: Amazon's
}

// Credentials are an access key. Without one, the default chain of the SDK finds credentials: the environment, shared
// files, then the metadata service of the machine that the server runs on.
type Credentials struct{ AccessKey, SecretKey string }

// Images are the images that machines boot from.
type Images struct{ CPU, NVIDIA *Image }

// Image finds an image in each region.
type Image struct {
	Name  string // may have * and ?: the newest that matches is used
	Owner string // an account, amazon, or self
	User  string // whom the image is made for; dstack makes a user of its own
}

// Key returns the key of the account in a backend.Set.
func (s Settings) Key() string {
	if s.Name == "" {
		return "aws"
	}
	return "aws-" + s.Name
}

var (
	accountName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	regionName   = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+){1,3}-[0-9]{1,2}$`)
	vpcID        = regexp.MustCompile(`^vpc-[0-9a-f]{8,17}$`)
	imageOwner   = regexp.MustCompile(`^([0-9]{12}|self|amazon)$`)
	profileName  = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	accessKeyID  = regexp.MustCompile(`^[A-Za-z0-9]{16,128}$`)
	maxOwnTags   = 40 // of 50 that an object may have: dstack adds its own
	maxTagKey    = 128
	maxTagValue  = 256
	reservedTags = []string{tagInstallation, tagInstance, tagVolume, "Name"}
)

const creds = "creds: {type: default}, or creds: {type: access_key, access_key: AKIA…, secret_key: …}"

// ReadSettings reads the settings of an account. It adds everything that is wrong to problems.
func ReadSettings(problems *strictyaml.Problems, block *strictyaml.Node) Settings {
	s := Settings{DefaultVPCs: true, PublicIPs: true}
	r := settingsReader{problems, &s}
	problems.ReadFields(block, "an AWS backend", []strictyaml.Field{
		{Name: "name", Read: r.readName},
		{Name: "creds", Required: creds, Read: r.readCredentials},
		{Name: "regions", Nullable: true, Read: r.readRegions},
		{Name: "vpc_name", Nullable: true, Read: r.readTextInto(&s.VPCName)},
		{Name: "vpc_ids", Nullable: true, Read: r.readVPCIDs},
		{Name: "default_vpcs", Nullable: true, Read: r.readBoolInto(&s.DefaultVPCs)},
		{Name: "public_ips", Nullable: true, Read: r.readBoolInto(&s.PublicIPs)},
		{Name: "os_images", Nullable: true, Read: r.readImages},
		{Name: "iam_instance_profile", Nullable: true, Read: r.readProfile},
		{Name: "tags", Nullable: true, Read: r.readTags},
		{Name: "ssh_from", Nullable: true, Read: r.readSources},
		{Name: "endpoint", Nullable: true, Read: r.readEndpoint},
		{Name: "experimental_instance_types", Nullable: true, Read: r.refuseExperimental},
	})
	r.checkNetworks(block)
	return s
}

type settingsReader struct {
	*strictyaml.Problems
	settings *Settings
}

func (r settingsReader) checkNetworks(block *strictyaml.Node) {
	s := r.settings
	if block.Kind != strictyaml.Mapping {
		return
	}
	if s.VPCName != "" && s.VPCIDs != nil {
		r.Add(block.Get("vpc_name"), "`vpc_name` and `vpc_ids` exclude each other", "remove one of them")
	}
	if s.DefaultVPCs || s.VPCName != "" {
		return
	}
	if len(s.Regions) == 0 && len(s.VPCIDs) > 0 {
		for region := range s.VPCIDs {
			s.Regions = append(s.Regions, region)
		}
		slices.Sort(s.Regions)
		return
	}
	for _, region := range s.Regions {
		if s.VPCIDs[region] == "" {
			r.Add(block.Get("default_vpcs"), "region "+region+" has no network: default networks are switched off",
				fmt.Sprintf("add vpc_ids: {%s: vpc-…}, or remove the region", region))
		}
	}
	if len(s.Regions) == 0 {
		r.Add(block.Get("default_vpcs"), "no region has a network: default networks are switched off", "add vpc_ids: {us-east-1: vpc-…}")
	}
}

// readTextInto returns a reader of text that is not empty.
func (r settingsReader) readTextInto(to *string) func(n *strictyaml.Node) {
	return func(n *strictyaml.Node) {
		text, ok := r.ReadText(n)
		if ok && strings.TrimSpace(text) == "" {
			r.Add(n, "the value is empty", "add a value, or remove the line")
		}
		*to = strings.TrimSpace(text)
	}
}

func (r settingsReader) readBoolInto(to *bool) func(n *strictyaml.Node) {
	return func(n *strictyaml.Node) {
		if value, ok := r.ReadBool(n); ok {
			*to = value
		}
	}
}

// readPattern reads text that matches a pattern.
func (r settingsReader) readPattern(n *strictyaml.Node, pattern *regexp.Regexp, what, hint string) string {
	text, ok := r.ReadText(n)
	if ok && !pattern.MatchString(text) {
		r.Add(n, n.Describe()+" is not "+what, hint)
		return ""
	}
	return text
}

func (r settingsReader) readName(n *strictyaml.Node) {
	r.settings.Name = r.readPattern(n, accountName, "a valid name of a backend",
		"use at most 40 lower-case letters, digits and dashes, with a letter or digit at both ends")
}

func (r settingsReader) readCredentials(n *strictyaml.Node) {
	if n.Kind != strictyaml.Mapping {
		r.Add(n, "`creds` must be a mapping", "write "+creds)
		return
	}
	kind := n.Get("type")
	if kind == nil || kind.Text == "default" {
		r.ReadFields(n, "`creds`", []strictyaml.Field{{Name: "type", Required: "type: default", Read: func(*strictyaml.Node) {}}})
		return
	}
	c := &r.settings.Credentials
	r.ReadFields(n, "`creds`", []strictyaml.Field{
		{Name: "type", Read: func(n *strictyaml.Node) { r.ReadOneOf(n, "default", "access_key") }},
		{Name: "access_key", Required: "access_key: AKIA…", Read: func(n *strictyaml.Node) {
			text, ok := r.ReadText(n)
			if ok && !accessKeyID.MatchString(text) { // it is not repeated: somebody may have mixed up the two keys
				r.Add(n, "the value is not the ID of an access key", "write 16 or more letters and digits, such as AKIA…")
			}
			c.AccessKey = text
		}},
		{Name: "secret_key", Required: "secret_key: …", Read: r.readTextInto(&c.SecretKey)},
	})
}

func (r settingsReader) readRegion(n *strictyaml.Node) string {
	return r.readPattern(n, regionName, "the name of a region", "write a name such as us-east-1")
}

func (r settingsReader) readRegions(n *strictyaml.Node) {
	items, ok := r.ReadItems(n, "`regions`")
	if ok && len(items) == 0 {
		r.Add(n, "the list is empty", "add a region, or remove the line to use all")
	}
	for _, item := range items {
		region := r.readRegion(item)
		if slices.Contains(r.settings.Regions, region) {
			r.Add(item, item.Describe()+" is there twice", "remove one of them")
		} else if region != "" {
			r.settings.Regions = append(r.settings.Regions, region)
		}
	}
}

// readPairs reads a mapping of names to text.
func (r settingsReader) readPairs(n *strictyaml.Node, what, hint string, read func(key, value *strictyaml.Node)) {
	if n.Kind != strictyaml.Mapping {
		r.Add(n, what+" must be a mapping, not "+n.Describe(), hint)
		return
	}
	for _, pair := range n.Pairs {
		read(pair.Key, pair.Value)
	}
}

func (r settingsReader) readVPCIDs(n *strictyaml.Node) {
	r.settings.VPCIDs = map[string]string{}
	r.readPairs(n, "`vpc_ids`", "write vpc_ids: {us-east-1: vpc-0123456789abcdef0}", func(key, value *strictyaml.Node) {
		region := r.readRegion(key)
		id := r.readPattern(value, vpcID, "the ID of a VPC", "write an ID such as vpc-0123456789abcdef0")
		if region != "" && id != "" {
			r.settings.VPCIDs[region] = id
		}
	})
}

func (r settingsReader) readImages(n *strictyaml.Node) {
	r.ReadFields(n, "`os_images`", []strictyaml.Field{
		{Name: "cpu", Nullable: true, Read: func(n *strictyaml.Node) { r.settings.Images.CPU = r.readImage(n) }},
		{Name: "nvidia", Nullable: true, Read: func(n *strictyaml.Node) { r.settings.Images.NVIDIA = r.readImage(n) }},
	})
}

func (r settingsReader) readImage(n *strictyaml.Node) *Image {
	image := &Image{Owner: "self"}
	r.ReadFields(n, "an image", []strictyaml.Field{
		{Name: "name", Required: "name: my-image-*", Read: r.readTextInto(&image.Name)},
		{Name: "owner", Read: func(n *strictyaml.Node) {
			image.Owner = r.readPattern(n, imageOwner, "an owner of images", "write 12 digits in quotes, self or amazon")
		}},
		{Name: "user", Read: r.readTextInto(&image.User)},
	})
	return image
}

func (r settingsReader) readProfile(n *strictyaml.Node) {
	r.settings.IAMInstanceProfile = r.readPattern(n, profileName, "the name of an instance profile",
		"write the name without arn:aws:iam::…:instance-profile/")
}

func (r settingsReader) readTags(n *strictyaml.Node) {
	tags := map[string]string{}
	r.readPairs(n, "`tags`", "write tags: {team: search}", func(key, value *strictyaml.Node) {
		text, ok := r.ReadText(value)
		name := key.Text
		switch {
		case slices.Contains(reservedTags, name) || strings.HasPrefix(strings.ToLower(name), "aws:"):
			r.Add(key, "the tag "+name+" is set by dstack or AWS", "use another name")
		case name == "" || len([]rune(name)) > maxTagKey:
			r.Add(key, fmt.Sprintf("the name of a tag has 1 to %d characters", maxTagKey), "use another name")
		case ok && len([]rune(text)) > maxTagValue:
			r.Add(value, fmt.Sprintf("the value of a tag has at most %d characters", maxTagValue), "shorten it")
		default:
			tags[name] = text
		}
	})
	if len(tags) > maxOwnTags {
		r.Add(n, fmt.Sprintf("there are %d tags; %d are allowed", len(tags), maxOwnTags), "remove some")
	}
	r.settings.Tags = tags
}

func (r settingsReader) readSources(n *strictyaml.Node) {
	items, ok := r.ReadItems(n, "`ssh_from`")
	if ok && len(items) == 0 {
		r.Add(n, "the list is empty", "add the addresses that this server connects from, or remove the line")
	}
	for _, item := range items {
		text, ok := r.ReadText(item)
		prefix, err := netip.ParsePrefix(text)
		switch {
		case !ok:
		case err != nil || prefix != prefix.Masked():
			r.Add(item, item.Describe()+" is not a range of addresses", "write a range such as 203.0.113.0/24 or 198.51.100.7/32")
		default:
			r.settings.SSHSources = append(r.settings.SSHSources, prefix)
		}
	}
}

func (r settingsReader) readEndpoint(n *strictyaml.Node) {
	text, ok := r.ReadText(n)
	if !ok {
		return
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || (u.Scheme != "https" && u.Scheme != "http"):
		r.Add(n, "the endpoint is not a URL of a server", "write a URL such as https://ec2.example.com")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		r.Add(n, n.Describe()+" would send requests that anybody on the way can read", "write https://")
	default:
		r.settings.Endpoint = strings.TrimSuffix(text, "/")
	}
}

// isLoopback reports whether a host is this machine.
func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func (r settingsReader) refuseExperimental(n *strictyaml.Node) {
	r.AddUnsupported(n, "`experimental_instance_types`", "remove the line: every type that the catalogue has can be rented")
}
