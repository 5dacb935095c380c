package spec

import (
	"dstack/internal/strictyaml"
)

// Volume is a configuration with `type: volume`: a disk that outlives runs.
type Volume struct {
	Name     Text
	Backend  string
	Region   string
	Size     *GB  // size of a new volume
	VolumeID Text // ID of an existing volume; overrides Size

	UnsupportedNotes []UnsupportedNote
}

// MarshalJSON writes the normal form of the wire format, with all keys in fixed
// order.
func (v Volume) MarshalJSON() ([]byte, error) {
	return marshalJSON(struct {
		Type     string `json:"type"`
		Name     Text   `json:"name"`
		Backend  string `json:"backend"`
		Region   string `json:"region"`
		Size     *GB    `json:"size"`
		VolumeID Text   `json:"volume_id"`
	}{"volume", v.Name, v.Backend, v.Region, v.Size, v.VolumeID})
}

var volumeMapping = newMapping("volume", "a volume", "A disk that outlives the runs that use it.", []field[Volume]{
	{Key: requiredKey("type", "type: volume"), description: "The type of this configuration.",
		shape: oneOfShape("volume"),
		read:  func(r *reader, n *strictyaml.Node, _ *Volume) { r.ReadOneOf(n, supportedTypes...) }},
	{Key: nullableKey("name"), description: "The name of the volume: 2 to 41 lowercase letters, digits and dashes, " +
		"beginning with a letter. If not set, a name is generated.", shape: textShape, examples: []string{"my-volume"},
		read: readTextInto(func(v *Volume) *Text { return &v.Name })},
	{Key: requiredKey("backend", "backend: aws"), description: "The backend of the volume.", shape: backendShape,
		examples: []string{"aws"},
		read:     func(r *reader, n *strictyaml.Node, v *Volume) { v.Backend = r.readBackend(n) }},
	{Key: requiredKey("region", "region: eu-west-1"), description: "The region.", shape: nonEmptyShape,
		examples: []string{"eu-west-1"},
		read:     func(r *reader, n *strictyaml.Node, v *Volume) { v.Region = r.readNonEmpty(n) }},
	{Key: nullableKey("size"), description: "The size of a new volume, rounded down to whole gigabytes.",
		shape: sizeShape, examples: []string{"100GB"},
		read: func(r *reader, n *strictyaml.Node, v *Volume) { v.Size = r.readSize(n) }},
	{Key: nullableKey("volume_id"), description: "The cloud's ID of an existing volume. Deleting the configuration " +
		"does not delete that volume.", shape: textShape, examples: []string{"vol-0123456789abcdef0"},
		read: readTextInto(func(v *Volume) *Text { return &v.VolumeID })},
	unsupportedField[Volume]("availability_zone", "The availability zone.", textShape, "remove it", usesText("", "")),
	unsupportedField[Volume]("auto_cleanup_duration", "How long the volume may be unused before it is deleted.",
		durationShape, "remove it", usesDuration),
	unsupportedField[Volume]("tags", "Tags for resources that are created in the cloud.",
		openMappingShape("mapping of text", textShape), "remove it", usesTags),
})

// readVolume reads a volume and checks that it has a size or an ID.
func (r *reader) readVolume(n *strictyaml.Node) *Volume {
	v := &Volume{}
	volumeMapping.read(r, n, v)
	id := n.Get("volume_id")
	if n.Get("size").IsNull() && (id.IsNull() || id.IsScalar() && id.Text == "") && !r.IsMisspelled("size") && !r.IsMisspelled("volume_id") {
		r.Add(n, "either `volume_id` or `size` must be set",
			"add size: 100GB for a new volume, or volume_id: followed by the cloud's ID of an existing one")
	}
	v.UnsupportedNotes = r.unsupported
	return v
}
