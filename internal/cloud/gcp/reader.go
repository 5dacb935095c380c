package gcp

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// maxTags is how many labels the user may add, of the 64 that an object may have.
const maxTags = 50

const credsHint = "creds: {type: default}, or creds: {type: service_account, filename: /path/to/key.json}"

// ReadSettings reads the settings of a project. It adds everything that is wrong to problems.
func ReadSettings(problems *strictyaml.Problems, block *strictyaml.Node) Settings {
	s := Settings{PublicIPs: true}
	r := settingsReader{problems, &s}
	problems.ReadFields(block, "a GCP backend", []strictyaml.Field{
		{Name: "name", Read: r.readName},
		{Name: "creds", Required: credsHint, Read: r.readCredentials},
		{Name: "project_id", Required: "project_id: my-project", Read: r.readProjectInto(&s.ProjectID)},
		{Name: "regions", Nullable: true, Read: r.readRegions},
		{Name: "vpc_name", Nullable: true, Read: r.readNameInto(&s.VPCName, "the name of a VPC")},
		{Name: "vpc_project_id", Nullable: true, Read: r.readProjectInto(&s.VPCProjectID)},
		{Name: "subnetworks", Nullable: true, Read: r.readSubnetworks},
		{Name: "public_ips", Nullable: true, Read: func(n *strictyaml.Node) { r.readBoolInto(n, &s.PublicIPs) }},
		{Name: "nat_check", Nullable: true, Read: r.readNATCheck},
		{Name: "vm_service_account", Nullable: true, Read: r.readAccount},
		{Name: "tags", Nullable: true, Read: r.readTags},
		{Name: "os_images", Nullable: true, Read: r.readImages},
		{Name: "ssh_from", Nullable: true, Read: r.readSources},
		{Name: "endpoint", Nullable: true, Read: r.readEndpoint},
		{Name: "tpu", Nullable: true, Read: r.refuseTPU},
		{Name: "extra_vpcs", Nullable: true, Read: r.refuse("machines with several networks", "remove `extra_vpcs`: machines have one network")},
		{Name: "roce_vpcs", Nullable: true, Read: r.refuse("networks for RDMA", "remove `roce_vpcs`: machines have one network")},
		{Name: "preview_features", Nullable: true, Read: r.readFeatures},
	})
	if block.Kind == strictyaml.Mapping && len(s.Subnetworks) > 0 && s.VPCName == "" {
		r.Add(block.Get("subnetworks"), "`subnetworks` names parts of a VPC, and the backend does not say which", "add vpc_name: my-vpc")
	}
	for _, region := range slices.Sorted(maps.Keys(s.Subnetworks)) {
		if !s.hasRegion(region) {
			r.Add(block.Get("subnetworks"), "`subnetworks` has the region "+region+", which `regions` leaves out", "add it to `regions`, or remove it here")
		}
	}
	return s
}

type settingsReader struct {
	*strictyaml.Problems
	settings *Settings
}

func (r settingsReader) readBoolInto(n *strictyaml.Node, to *bool) {
	if value, ok := r.ReadBool(n); ok {
		*to = value
	}
}

func (r settingsReader) readNATCheck(n *strictyaml.Node) {
	if value, ok := r.ReadBool(n); ok {
		r.settings.SkipNATCheck = !value
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
	r.settings.Name = r.readPattern(n, entryName, "a valid name of a backend",
		"use at most 40 lower-case letters, digits and dashes, with a letter or digit at both ends")
}

func (r settingsReader) readNameInto(to *string, what string) func(n *strictyaml.Node) {
	return func(n *strictyaml.Node) {
		*to = r.readPattern(n, objectName, what, "write its name alone: lower-case letters, digits and dashes")
	}
}

func (r settingsReader) readProjectInto(to *string) func(n *strictyaml.Node) {
	return func(n *strictyaml.Node) {
		*to = r.readPattern(n, projectID, "the ID of a project",
			"write the project's ID, such as my-project-123456, not its name or number")
	}
}

func (r settingsReader) readCredentials(n *strictyaml.Node) {
	if n.Kind != strictyaml.Mapping {
		r.Add(n, "`creds` must be a mapping", "write "+credsHint)
		return
	}
	kind := n.Get("type")
	if kind == nil || kind.Text == "default" {
		r.ReadFields(n, "`creds`", []strictyaml.Field{{Name: "type", Required: "type: default", Read: func(*strictyaml.Node) {}}})
		return
	}
	c := &r.settings.Credentials
	ok := r.ReadFields(n, "`creds`", []strictyaml.Field{
		{Name: "type", Read: func(n *strictyaml.Node) { r.ReadOneOf(n, "default", "service_account") }},
		{Name: "filename", Nullable: true, Read: r.readFilename},
		{Name: "data", Nullable: true, Read: r.readKey},
	})
	switch {
	case !ok || kind.Text != "service_account":
	case c.Data != "": // the original writes both, with the data that it read from the file
		c.Filename = ""
	case c.Filename == "" && n.Get("data").IsNull() && n.Get("filename").IsNull():
		r.Add(n, "`creds` has neither `filename` nor `data`", "write "+credsHint[len("creds: {type: default}, or "):])
	}
}

func (r settingsReader) readFilename(n *strictyaml.Node) {
	name, ok := r.ReadText(n)
	name = strings.TrimSpace(name)
	if ok && name != "" && !filepath.IsAbs(name) && !strings.HasPrefix(name, "~/") {
		r.Add(n, n.Describe()+" is relative, and the server may be started in any folder", "write an absolute path, or one that begins with ~/")
		return
	}
	r.settings.Credentials.Filename = name
}

// readKey reads the content of a key file. What is wrong with it is said without repeating it.
func (r settingsReader) readKey(n *strictyaml.Node) {
	text, ok := r.ReadText(n)
	if !ok {
		return
	}
	if _, err := parseKey([]byte(text)); err != nil {
		r.Add(n, "`data` is not the key of a service account: "+err.Error(), keyHint)
		return
	}
	r.settings.Credentials.Data = text
}

func (r settingsReader) readRegion(n *strictyaml.Node) string {
	return r.readPattern(n, regionName, "the name of a region", "write a name such as us-central1, without the letter of a zone")
}

func (r settingsReader) readRegions(n *strictyaml.Node) {
	items, ok := r.ReadItems(n, "`regions`")
	if ok && len(items) == 0 {
		r.Add(n, "the list is empty", "add a region, or remove the line to use all")
	}
	for _, item := range items {
		region := r.readRegion(item)
		if region != "" && slices.Contains(r.settings.Regions, region) {
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

func (r settingsReader) readSubnetworks(n *strictyaml.Node) {
	r.settings.Subnetworks = map[string]string{}
	r.readPairs(n, "`subnetworks`", "write subnetworks: {us-central1: my-subnet}", func(key, value *strictyaml.Node) {
		region := r.readRegion(key)
		name := r.readPattern(value, objectName, "the name of a subnetwork", "write its name alone: lower-case letters, digits and dashes")
		if region != "" && name != "" {
			r.settings.Subnetworks[region] = name
		}
	})
}

func (r settingsReader) readAccount(n *strictyaml.Node) {
	r.settings.VMServiceAccount = r.readPattern(n, accountAddress, "the address of a service account",
		"write an address such as machines@my-project.iam.gserviceaccount.com")
}

func (r settingsReader) readTags(n *strictyaml.Node) {
	tags := map[string]string{}
	r.readPairs(n, "`tags`", "write tags: {team: search}", func(key, value *strictyaml.Node) {
		text, ok := r.ReadText(value)
		name := key.Text
		switch {
		case slices.Contains(reservedLabels, name):
			r.Add(key, "the label "+name+" is set by dstack", "use another name")
		case !labelKey.MatchString(name):
			r.Add(key, key.Describe()+" is not a valid name of a label", "use at most 63 lower-case letters, digits, dashes and underscores, with a letter first")
		case ok && !labelValue.MatchString(text):
			r.Add(value, value.Describe()+" is not a valid value of a label", "use at most 63 lower-case letters, digits, dashes and underscores")
		default:
			tags[name] = text
		}
	})
	if len(tags) > maxTags {
		r.Add(n, fmt.Sprintf("there are %d tags; %d are allowed", len(tags), maxTags), "remove some")
	}
	r.settings.Tags = tags
}

func (r settingsReader) readImages(n *strictyaml.Node) {
	read := func(to *string) func(n *strictyaml.Node) {
		return func(n *strictyaml.Node) {
			*to = r.readPattern(n, imagePath, "the path of an image",
				"write projects/PROJECT/global/images/NAME, or projects/PROJECT/global/images/family/FAMILY for the newest of a family")
		}
	}
	r.ReadFields(n, "`os_images`", []strictyaml.Field{
		{Name: "cpu", Nullable: true, Read: read(&r.settings.Images.CPU)},
		{Name: "nvidia", Nullable: true, Read: read(&r.settings.Images.Nvidia)},
	})
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
		case !prefix.Addr().Is4():
			r.Add(item, item.Describe()+" is a range of IPv6, and the machines have addresses of IPv4", "write the IPv4 addresses that the server connects from")
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
		r.Add(n, "the endpoint is not a URL of a server", "write a URL such as https://compute.example.com")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		r.Add(n, n.Describe()+" would send requests that anybody on the way can read", "write https://")
	default:
		r.settings.Endpoint = strings.TrimSuffix(text, "/")
	}
}

// refuseTPU accepts the setting's default only.
func (r settingsReader) refuseTPU(n *strictyaml.Node) {
	if value, ok := r.ReadBool(n); ok && value {
		r.AddUnsupported(n, "TPUs", "remove `tpu`: dstack rents machines with CPUs and NVIDIA GPUs of GCP")
	}
}

func (r settingsReader) refuse(what, hint string) func(n *strictyaml.Node) {
	return func(n *strictyaml.Node) {
		if len(n.Items) > 0 || n.Kind != strictyaml.Sequence {
			r.AddUnsupported(n, what, hint)
		}
	}
}

// readFeatures accepts the one feature that has ever been in preview; dstack rents such machines anyway.
func (r settingsReader) readFeatures(n *strictyaml.Node) {
	items, _ := r.ReadItems(n, "`preview_features`")
	for _, item := range items {
		r.ReadOneOf(item, "g4")
	}
}
