package volume

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// offeredBackends maps the backends of configurations to those of offers.
var offeredBackends = map[string]string{spec.BackendLocal: "local", spec.BackendSSH: "ssh"}

// titles are the names of backends for users.
var titles = map[string]string{spec.BackendLocal: "the server's machine", spec.BackendSSH: "a host of a fleet"}

// ChooseMachine returns the machine that a new volume is on: the one that its configuration names, or the only one.
// local and the machine's region are names of the server's machine, too.
func ChooseMachine(v spec.Volume, offers []dstack.Offer) (dstack.Offer, error) {
	var machines []dstack.Offer
	for _, o := range offers {
		if o.OwnedInstance != "" && strings.EqualFold(o.Backend, offeredBackends[v.Backend]) {
			machines = append(machines, o)
		}
	}
	if len(machines) == 0 {
		return dstack.Offer{}, &dstack.Error{Kind: dstack.NotFound,
			Message: fmt.Sprintf("there is no machine for the volume: this project has not got %s that can be used now", titles[v.Backend]),
			Hint:    noMachineHint(v.Backend)}
	}
	wanted := v.Machine()
	if wanted == "" && len(machines) > 1 {
		return dstack.Offer{}, &dstack.Error{Kind: dstack.Invalid,
			Message: "several hosts could have the volume, and it stays on one: " + listMachines(machines),
			Hint:    "add host: followed by one of them"}
	}
	var found []dstack.Offer
	for _, o := range machines {
		if wanted == "" || isNamed(o, wanted) {
			found = append(found, o)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		hint := "there is: " + listMachines(machines)
		if near := human.Nearest(wanted, machineNames(machines)); near != "" {
			hint = "did you mean " + near + "?"
		}
		return dstack.Offer{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no host %s that can be used now", wanted), Hint: hint}
	}
	return dstack.Offer{}, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("several fleets have a host %s", wanted),
		Hint: "write FLEET/HOST: " + listMachines(found)}
}

func noMachineHint(backend string) string {
	if backend == spec.BackendSSH {
		return "apply a fleet with ssh_config first, or see what is wrong with its hosts: dstack fleet list -v"
	}
	return "add the local backend to the server's config.yml"
}

// isNamed reports whether a machine has a name: its own, FLEET/HOST, or for the server's machine its region.
func isNamed(o dstack.Offer, name string) bool {
	return strings.EqualFold(o.Type, name) || o.Fleet != "" && strings.EqualFold(o.Fleet+"/"+o.Type, name) ||
		o.Fleet == "" && strings.EqualFold(o.Region, name)
}

func machineNames(machines []dstack.Offer) (names []string) {
	for _, o := range machines {
		names = append(names, o.Type)
	}
	return names
}

// listMachines names machines, with their fleets where two have the same name.
func listMachines(machines []dstack.Offer) string {
	var names []string
	for _, o := range machines {
		name := o.Type
		isSame := func(other dstack.Offer) bool { return other.OwnedInstance != o.OwnedInstance && other.Type == o.Type }
		if o.Fleet != "" && slices.ContainsFunc(machines, isSame) {
			name = o.Fleet + "/" + o.Type
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return joinNames(names)
}

// joinNames joins names as in a sentence, and counts those beyond ten.
func joinNames(names []string) string {
	const maxNames = 10
	if len(names) > maxNames {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ", "), len(names)-maxNames)
	}
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " and " + names[last]
	}
	return strings.Join(names, "")
}
