package spec

import (
	"dstack/internal/strictyaml"
)

// Volume is one `type: volume` configuration: a disk that outlives runs.
type Volume struct {
	Name     Text
	Backend  string
	Region   string
	Size     *GB  // of a new volume
	VolumeID Text // of one that exists; it wins over Size

	NotYet []NotYet
}

// MarshalJSON writes the normalised wire form, every key in its order.
func (v Volume) MarshalJSON() ([]byte, error) {
	return marshal(struct {
		Type     string `json:"type"`
		Name     Text   `json:"name"`
		Backend  string `json:"backend"`
		Region   string `json:"region"`
		Size     *GB    `json:"size"`
		VolumeID Text   `json:"volume_id"`
	}{"volume", v.Name, v.Backend, v.Region, v.Size, v.VolumeID})
}

var volumeBlock = newBlock("volume", "a volume", "A disk that outlives the runs that use it.", []field[Volume]{
	{Key: required("type", "a line: type: volume"), about: "What this file is.", shape: oneOf("volume"),
		read: func(r *reader, n *strictyaml.Node, _ *Volume) { r.OneOf(n, kinds...) }},
	{Key: nullable("name"), about: "The volume's name: 2 to 41 lower-case letters, digits and dashes, a letter first. Without one, a name is made up.", shape: textShape, examples: []string{"my-volume"},
		read: into(func(v *Volume) *Text { return &v.Name })},
	{Key: required("backend", "backend: aws"), about: "Where it is.", shape: backendShape, examples: []string{"aws"},
		read: func(r *reader, n *strictyaml.Node, v *Volume) { v.Backend = r.backend(n) }},
	{Key: required("region", "region: eu-west-1"), about: "In which region.", shape: filledShape, examples: []string{"eu-west-1"},
		read: func(r *reader, n *strictyaml.Node, v *Volume) { v.Region = r.filled(n) }},
	{Key: nullable("size"), about: "The size of a new volume, in whole gigabytes; what is beyond them is cut off.", shape: sizeShape, examples: []string{"100GB"},
		read: func(r *reader, n *strictyaml.Node, v *Volume) { v.Size = r.size(n) }},
	{Key: nullable("volume_id"), about: "The cloud's own name of a volume that exists already. It is used, and not deleted with the configuration.", shape: textShape, examples: []string{"vol-0123456789abcdef0"},
		read: into(func(v *Volume) *Text { return &v.VolumeID })},
	later[Volume]("availability_zone", "In which zone.", textShape, "remove it", asText("", "")),
	later[Volume]("auto_cleanup_duration", "How long it may be unused before it is deleted.", durationShape, "remove it", asDuration),
	later[Volume]("tags", "Labels for what is made in the cloud.", mappingOf("mapping of text", textShape), "remove it", asTags),
})

func (r *reader) volume(n *strictyaml.Node) *Volume {
	v := &Volume{}
	volumeBlock.into(r, n, v)
	id := n.Get("volume_id")
	if n.Get("size").IsNull() && (id.IsNull() || id.IsScalar() && id.Text == "") && !r.Meant("size") && !r.Meant("volume_id") {
		r.At(n, "a volume must say either `volume_id` or `size`", "add size: 100GB for a new one, or volume_id: followed by the cloud's name of one that exists")
	}
	v.NotYet = r.notes
	return v
}
