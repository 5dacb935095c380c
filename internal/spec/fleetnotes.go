package spec

import "slices"

// choiceFields are the fields of a fleet that choose the machines to rent, and that a service
// has, too.
var choiceFields = []string{"backends", "regions", "instance_types", "spot_policy", "retry", "max_price"}

// rentedFields are all fields of a fleet about the machines to rent.
var rentedFields = append([]string{"placement", "termination_policy", "termination_idle_time", "idle_duration"}, choiceFields...)

// FindNotes returns what is probably meant otherwise in a fleet: GPUs that this version does
// not know, and fields for rented machines beside `ssh_config`. written says which fields its
// file sets, see WrittenFields: clients also send fields that no file contains.
func (f *Fleet) FindNotes(written map[string]bool) Problems {
	notes := f.Resources.GPU.findNotes("resources.gpu")
	if f.SSH == nil {
		return notes
	}
	for _, name := range rentedFields {
		if written[name] && !f.isTrueOfOwnMachines(name) {
			note := Problem{Path: name, Message: "`" + name + "` has no effect with `ssh_config`: it is about rented machines", Hint: "remove it"}
			if slices.Contains(choiceFields, name) {
				note.Hint = "remove it, or set it in the service"
			}
			notes = append(notes, note)
		}
	}
	return notes
}

// isTrueOfOwnMachines reports whether a field says what is so anyway.
func (f *Fleet) isTrueOfOwnMachines(field string) bool {
	switch field {
	case "placement":
		return f.Placement != "cluster"
	case "backends":
		return slices.Contains(f.Backends, "ssh") || slices.Contains(f.Backends, "remote")
	case "spot_policy":
		return f.SpotPolicy == "auto" || f.SpotPolicy == "on-demand"
	}
	return false
}
