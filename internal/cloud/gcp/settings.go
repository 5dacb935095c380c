package gcp

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Settings are the settings of a project in config.yml.
type Settings struct {
	Name             string // of the entry; empty: it is the only one, or the first
	Credentials      Credentials
	ProjectID        string
	Regions          []string          // empty: all
	VPCName          string            // empty: default
	VPCProjectID     string            // the host project of a shared VPC; empty: ProjectID
	Subnetworks      map[string]string // names by region; empty: the first subnet of the VPC in the region
	PublicIPs        bool              // machines get public addresses; otherwise the server reaches private ones
	SkipNATCheck     bool              // machines without public addresses may have another way to the internet than Cloud NAT
	VMServiceAccount string            // e-mail address of the account of machines; empty: they have none
	Tags             map[string]string // labels that are added to everything that is made
	Images           Images            // zero: images of Canonical
	SSHSources       []netip.Prefix    // from where SSH is allowed; empty: from everywhere
	Endpoint         string            // of all APIs, instead of Google's; empty: Google's
}

// Credentials are the key of a service account. Without one, they are found as Google's own programs do: the file that
// GOOGLE_APPLICATION_CREDENTIALS names, else the one that gcloud wrote, else the account of the machine that the server
// runs on.
type Credentials struct {
	Filename string // absolute, or below ~
	Data     string // the file's content; it goes before Filename
}

// Images are the images that machines boot from, as projects/…/global/images/… or …/images/family/….
type Images struct {
	CPU    string // empty: Ubuntu 24.04
	Nvidia string // for machines with NVIDIA GPUs; empty: Ubuntu 24.04 with NVIDIA's driver
}

var (
	entryName      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	projectID      = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$`) // old ones have a domain before a colon
	objectName     = regexp.MustCompile(`^[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?$`)
	regionName     = regexp.MustCompile(`^[a-z]+(-[a-z]+)+[0-9]+$`)
	labelKey       = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	labelValue     = regexp.MustCompile(`^[a-z0-9_-]{0,63}$`)
	imagePath      = regexp.MustCompile(`^projects/([a-z0-9.-]+:)?[a-z][a-z0-9-]*/global/images/(family/)?[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?$`)
	accountAddress = regexp.MustCompile(`^[a-zA-Z0-9._-]+@[a-zA-Z0-9.-]+\.[a-z]+$`)
)

// Key returns the key of the backend in a backend.Set.
func (s Settings) Key() string {
	if s.Name == "" {
		return "gcp"
	}
	return "gcp-" + s.Name
}

// networkProject returns the project that the network belongs to.
func (s Settings) networkProject() string {
	if s.VPCProjectID != "" {
		return s.VPCProjectID
	}
	return s.ProjectID
}

// networkName returns the name of the network.
func (s Settings) networkName() string {
	if s.VPCName != "" {
		return s.VPCName
	}
	return "default"
}

// hasRegion reports whether machines may be rented in a region.
func (s Settings) hasRegion(region string) bool {
	return len(s.Regions) == 0 || slices.Contains(s.Regions, region)
}

// regionOf returns the region of a zone: us-central1 of us-central1-a.
func regionOf(zone string) string {
	if i := strings.LastIndexByte(zone, '-'); i > 0 {
		return zone[:i]
	}
	return zone
}

// lastPart returns the name at the end of a URL or path.
func lastPart(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// projectOf returns the project in a URL or path of an object; empty: it has none.
func projectOf(url string) string {
	_, rest, _ := strings.Cut(url, "projects/")
	project, _, _ := strings.Cut(rest, "/")
	return project
}
