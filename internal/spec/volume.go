package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// Volume is a configuration with `type: volume`: a disk that outlives runs.
type Volume struct {
	Name     Text
	Backend  string // remote also for ssh
	Region   string
	Host     Text // the machine that the volume is on, with local and remote; overrides Region
	Size     *GB  // size of a new volume
	VolumeID Text // ID of an existing volume; overrides Size
	LaterVolume

	UnsupportedNotes []UnsupportedNote
}

// LaterVolume is the fields of a volume that versions after 0.18.10 added: the zone of a cloud's disk, and the others for
// Kubernetes.
type LaterVolume struct {
	Zone         Text     `json:"availability_zone,omitempty"`  // of a new disk; empty: the cloud's choice
	ClaimName    Text     `json:"claim_name,omitempty"`         // an existing claim; overrides Size
	StorageClass Text     `json:"storage_class_name,omitempty"` // empty: the default class
	AccessModes  []string `json:"access_modes,omitempty"`
	ReadOnly     bool     `json:"read_only,omitempty"`
}

// MarshalJSON writes the normal form of the wire format, with all keys in fixed
// order, and then what 0.18.10 does not have.
func (v Volume) MarshalJSON() ([]byte, error) {
	return marshalJSON(struct {
		Type     string `json:"type"`
		Name     Text   `json:"name"`
		Backend  string `json:"backend"`
		Region   string `json:"region"`
		Size     *GB    `json:"size"`
		VolumeID Text   `json:"volume_id"`
		Host     Text   `json:"host,omitempty"`
		LaterVolume
	}{"volume", v.Name, v.Backend, v.Region, v.Size, v.VolumeID, v.Host, v.LaterVolume})
}

// UnmarshalJSON reads every spelling of a volume that a file may have. The error is Problems.
func (v *Volume) UnmarshalJSON(text []byte) error {
	return readJSON(text, func(r *reader, n *strictyaml.Node) {
		if n.Kind != strictyaml.Mapping || n.Get("type").IsScalar() && n.Get("type").Text != "volume" {
			r.Add(n, "this is not the configuration of a volume", "write type: volume")
			return
		}
		*v = *r.readVolume(n)
	})
}

// The backends of the user's own machines.
const (
	BackendLocal = "local"  // the server's machine
	BackendSSH   = "remote" // the hosts of fleets; files may also have ssh
)

// BackendKubernetes is the backend of the nodes of a Kubernetes cluster.
const BackendKubernetes = "kubernetes"

// The clouds whose disks can be volumes.
const (
	BackendAWS = "aws"
	BackendGCP = "gcp"
)

// IsOnOwnMachine reports whether the volume is on a machine of the user, not in a cloud.
func (v Volume) IsOnOwnMachine() bool { return v.Backend == BackendLocal || v.Backend == BackendSSH }

// IsInCluster reports whether the volume is a claim of a Kubernetes cluster.
func (v Volume) IsInCluster() bool { return v.Backend == BackendKubernetes }

// IsInCloud reports whether the volume is a disk of a cloud.
func (v Volume) IsInCloud() bool { return v.Backend == BackendAWS || v.Backend == BackendGCP }

// Machine returns the name of the machine that the configuration wants; empty: it names none.
func (v Volume) Machine() string {
	if v.Host != "" {
		return string(v.Host)
	}
	return v.Region
}

var (
	backendsWithoutRegion = []string{BackendLocal, BackendSSH, "ssh", BackendKubernetes, "daytona", "lium"} // a volume needs no region
	backendsWithoutSize   = []string{"daytona", "lium"}                                                     // a volume needs neither a size nor an ID
)

var volumeBackendShape = oneOfShape(slices.Concat([]string{"ssh"}, backendNames)...)

var volumeMapping = newMapping("volume", "a volume", "A disk that outlives the runs that use it.", []field[Volume]{
	{Key: requiredKey("type", "type: volume"), description: "The type of this configuration.",
		shape: oneOfShape("volume"),
		read:  func(r *reader, n *strictyaml.Node, _ *Volume) { r.ReadOneOf(n, supportedTypes...) }},
	{Key: nullableKey("name"), description: "The name of the volume: 2 to 41 lowercase letters, digits and dashes, " +
		"beginning with a letter. If not set, a name is generated.", shape: textShape, examples: []string{"my-volume"},
		read: readTextInto(func(v *Volume) *Text { return &v.Name })},
	{Key: requiredKey("backend", "backend: ssh"), description: "Where the volume is: `ssh` (or `remote`) on a host of a fleet, " +
		"`local` on the server's machine, `kubernetes` in a cluster, `aws` and `gcp` a disk of a cloud.", shape: volumeBackendShape,
		examples: []string{"ssh", "kubernetes", "aws"},
		read:     func(r *reader, n *strictyaml.Node, v *Volume) { v.Backend = r.readVolumeBackend(n) }},
	{Key: nullableKey("host"), description: "The host that the volume is on, with `ssh` and `local`: its name as in the fleet, " +
		"or `FLEET/HOST`. Can be left out where there is only one.", shape: textShape, examples: []string{"gpu-1"},
		read: readTextInto(func(v *Volume) *Text { return &v.Host })},
	{Key: nullableKey("region"), description: "The region of a cloud. With `kubernetes` it is the name of the cluster, which can be " +
		"left out where there is only one; with `ssh` and `local` it means the same as `host`.", shape: textShape,
		examples: []string{"eu-west-1"},
		read:     func(r *reader, n *strictyaml.Node, v *Volume) { v.Region, _ = r.ReadText(n) }},
	{Key: nullableKey("size"), description: "The size of a new volume, rounded down to whole gigabytes.",
		shape: sizeShape, examples: []string{"100GB"},
		read: func(r *reader, n *strictyaml.Node, v *Volume) { v.Size = r.readSize(n) }},
	{Key: nullableKey("volume_id"), description: "An existing volume: with `ssh` and `local` the absolute path of a folder, " +
		"with `kubernetes` the same as `claim_name`, in a cloud its ID. Deleting the configuration leaves it as it is.", shape: textShape, examples: []string{"/srv/models"},
		read: readTextInto(func(v *Volume) *Text { return &v.VolumeID })},
	{Key: nullableKey("claim_name"), description: "The name of an existing `PersistentVolumeClaim` of the namespace, with `backend: kubernetes`. " +
		"`size`, `storage_class_name` and `access_modes` have no effect then. Deleting the configuration leaves it as it is.", shape: textShape, examples: []string{"my-claim"},
		read: readTextInto(func(v *Volume) *Text { return &v.ClaimName })},
	{Key: nullableKey("storage_class_name"), description: "The `StorageClass` of a new claim, with `backend: kubernetes`. " +
		"If not set, it is the default class of the cluster.", shape: textShape,
		examples: []string{"fast"},
		read:     readTextInto(func(v *Volume) *Text { return &v.StorageClass })},
	{Key: plainKey("access_modes"), description: "How pods may share a new claim, with `backend: kubernetes`: `ReadWriteOnce` " +
		"is for replicas on one node, `ReadWriteMany` and `ReadOnlyMany` for replicas on any, `ReadWriteOncePod` for one replica.",
		defaultText: "[ReadWriteOnce]", shape: accessModesShape, examples: []string{"[ReadWriteMany]"},
		read: func(r *reader, n *strictyaml.Node, v *Volume) { v.AccessModes = r.readAccessModes(n) }},
	{Key: plainKey("read_only"), description: "Whether replicas can only read the volume, with `backend: kubernetes`.", defaultText: "false",
		shape: boolShape, read: func(r *reader, n *strictyaml.Node, v *Volume) { v.ReadOnly, _ = r.ReadBool(n) }},
	{Key: nullableKey("availability_zone"), description: "The zone of the region in which a new disk is created, with `aws` and `gcp`. " +
		"Only machines of that zone can attach it. If not set, the cloud's first zone that the backend uses.", shape: textShape,
		examples: []string{"eu-west-1b"}, read: readTextInto(func(v *Volume) *Text { return &v.Zone })},
	unsupportedField[Volume]("auto_cleanup_duration", "How long the volume may be unused before it is deleted. `off` keeps it.",
		anyOfShape(durationShape.words+", or `off`", durationShape, minusOneShape), "remove it", usesIdleDuration),
	unsupportedField[Volume]("tags", "Tags for resources that are created in the cloud.",
		openMappingShape("mapping of text", textShape), "remove it", usesTags),
})

// volumeNeedsRegion is the rule of the schema for the region.
var volumeNeedsRegion = schema{
	"if":   schema{"properties": schema{"backend": schema{"enum": backendsWithoutRegion}}, "required": []string{"backend"}},
	"else": schema{"required": []string{"region"}, "properties": schema{"region": schema{"minLength": 1}}},
}

// readVolume reads a volume, and checks that it has what its backend needs: a region, and a
// size or the name of an existing volume.
func (r *reader) readVolume(n *strictyaml.Node) *Volume {
	v := &Volume{}
	volumeMapping.read(r, n, v)
	v.UnsupportedNotes = r.unsupported
	if v.Backend == "" {
		return v // missing or invalid, which is reported already
	}
	r.checkRegion(n, v)
	r.checkMachineFields(n, v)
	r.checkKubernetesFields(n, v)
	r.checkZone(n, v)
	hasID := v.VolumeID != "" || v.Backend == BackendKubernetes && v.ClaimName != ""
	if v.Size != nil || hasID || slices.Contains(backendsWithoutSize, v.Backend) || !n.Get("size").IsNull() {
		return v
	}
	for _, key := range []string{"size", "volume_id", "claim_name"} {
		if value := n.Get(key); r.IsMisspelled(key) || !value.IsNull() && !value.IsScalar() {
			return v
		}
	}
	if v.Backend == BackendKubernetes {
		r.Add(n, "either `claim_name` or `size` must be set",
			"add size: 100GB for a new volume, or claim_name: followed by the name of an existing claim")
		return v
	}
	existing := "the cloud's ID of an existing one"
	if v.IsOnOwnMachine() {
		existing = "the absolute path of an existing folder"
	}
	r.Add(n, "either `volume_id` or `size` must be set",
		"add size: 100GB for a new volume, or volume_id: followed by "+existing)
	return v
}

// readVolumeBackend reads the name of a backend; empty if it is invalid. In files, ssh is another name of remote.
func (r *reader) readVolumeBackend(n *strictyaml.Node) string {
	if n.IsScalar() && n.Text == "ssh" {
		return BackendSSH
	}
	name, _ := r.ReadOneOf(n, backendNames...)
	return name
}

// checkMachineFields checks the fields that mean something else, or nothing, on a machine of the user.
func (r *reader) checkMachineFields(n *strictyaml.Node, v *Volume) {
	if !v.IsOnOwnMachine() {
		if host := n.Get("host"); !host.IsNull() {
			r.Add(host, "`host` can only be used with backend: ssh or local", "remove it")
		}
		return
	}
	if v.VolumeID != "" && !isPlainPath(string(v.VolumeID)) {
		r.Add(n.Get("volume_id"), fmt.Sprintf("`%.60s` is not the absolute path of a folder", v.VolumeID),
			"write the folder on that machine, without `..`: volume_id: /srv/models")
	}
	if v.Host != "" && v.Region != "" && string(v.Host) != v.Region {
		r.Add(n.Get("region"), "`host` and `region` name different machines", "remove `region`")
	}
}

// checkZone checks that only a new disk of a cloud has a zone.
func (r *reader) checkZone(n *strictyaml.Node, v *Volume) {
	zone := n.Get("availability_zone")
	switch {
	case v.Zone == "":
	case !v.IsInCloud() && (v.IsOnOwnMachine() || v.IsInCluster()):
		r.Add(zone, "`availability_zone` can only be used with a cloud, such as backend: aws", "remove it")
	case v.VolumeID != "":
		r.Add(zone, "`availability_zone` and `volume_id` cannot be used together: an existing disk stays in its zone", "remove `availability_zone`")
	}
}

// isPlainPath reports whether a text is an absolute path below /, without .. and control characters.
func isPlainPath(text string) bool {
	return mountPath.MatchString(text) && path.Clean(text) != "/" && !slices.Contains(strings.Split(text, "/"), "..")
}

func (r *reader) checkRegion(n *strictyaml.Node, v *Volume) {
	if v.Region != "" || slices.Contains(backendsWithoutRegion, v.Backend) || r.IsMisspelled("region") {
		return
	}
	region := n.Get("region")
	if region == nil {
		at := *n
		at.Path = "region"
		r.Add(&at, "`region` is missing", "add region: eu-west-1")
	} else if region.IsNull() || region.IsScalar() {
		r.Add(region, "`region` has no value", "write region: eu-west-1")
	}
}
