package computetest

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxMetadata is the most that one value of a machine's metadata may have.
const maxMetadata = 256 << 10

// newInstance returns the machine that a request describes. It has the rules that the document lacks.
func (s *Server) newInstance(r *request) (*instance, error) {
	zone := r.params["zone"]
	i := &instance{
		id: s.newID(), project: r.project, body: r.body, shownAt: s.now().Add(s.options.Steps.Lag), isPreempted: make(chan struct{}),
		Instance: Instance{
			Name: r.text("name"), Zone: zone, Type: lastPart(r.text("machineType")), Status: "PROVISIONING", CreatedAt: s.now(),
			Spot: r.text("scheduling", "provisioningModel") == "SPOT", Labels: textMap(r.body["labels"]), RequestID: r.query["requestId"],
		},
	}
	for _, field := range []string{"name", "machineType", "disks", "networkInterfaces"} {
		if r.body[field] == nil {
			return nil, fail(http.StatusBadRequest, "required", "Invalid value for field 'resource.%s': ''. The value is required.", field)
		}
	}
	for _, check := range []func(*request, *instance) error{s.readType, s.readDisk, s.readNetwork, s.readScheduling, s.readMetadata, s.readPolicies, checkLabels} {
		if err := check(r, i); err != nil {
			return nil, err
		}
	}
	if accounts, _ := r.body["serviceAccounts"].([]any); len(accounts) > 0 {
		account := accounts[0].(map[string]any)
		i.Account, _ = account["email"].(string)
		if slices.Contains(s.options.Accounts[r.account].Denied, "iam.serviceAccounts.actAs") {
			return nil, fail(http.StatusBadRequest, "badRequest", "The user does not have access to service account '%s'.  User: '%s'.", i.Account, r.account)
		}
	}
	return i, nil
}

func textMap(value any) map[string]string {
	object, _ := value.(map[string]any)
	texts := map[string]string{}
	for k, v := range object {
		texts[k], _ = v.(string)
	}
	return texts
}

func noReference(field, value string) error {
	return invalid("Invalid value for field 'resource.%s': '%s'. The referenced resource does not exist.", field, value)
}

// readType checks the type and the GPUs that are added to it.
func (s *Server) readType(r *request, i *instance) error {
	t := s.findType(i.Type, i.Zone)
	if path := r.text("machineType"); t == nil || !strings.HasSuffix("/"+path, "/zones/"+i.Zone+"/machineTypes/"+i.Type) {
		return noReference("machineType", "https://www.googleapis.com/compute/v1/projects/"+i.project+"/zones/"+i.Zone+"/machineTypes/"+i.Type)
	}
	added, _ := r.body["guestAccelerators"].([]any)
	if len(added) == 0 {
		return nil
	}
	one := added[0].(map[string]any)
	path, _ := one["acceleratorType"].(string)
	count, _ := one["acceleratorCount"].(float64)
	i.GPU, i.GPUs = lastPart(path), int(count)
	switch {
	case !slices.Contains(s.options.Regions[regionOf(i.Zone)].GPUs[i.GPU], i.Zone):
		return noReference("guestAccelerators[0].acceleratorType", "https://www.googleapis.com/compute/v1/projects/"+i.project+"/"+path)
	case !strings.HasPrefix(i.Type, "n1-"):
		return invalid("[%s, %s] features are not compatible for creating instance.", i.GPU, i.Type)
	}
	return nil
}

// readDisk checks the disk that the machine boots from.
func (s *Server) readDisk(r *request, i *instance) error {
	disks, _ := r.body["disks"].([]any)
	if len(disks) != 1 {
		return fail(http.StatusBadRequest, "required", "a machine of dstack has one disk when it is made")
	}
	boot := disks[0].(map[string]any)
	params, _ := boot["initializeParams"].(map[string]any)
	image, _ := params["sourceImage"].(string)
	kind, _ := params["diskType"].(string)
	size, _ := params["diskSizeGb"].(string)
	i.Image = image
	i.DiskGB, _ = strconv.Atoi(size)
	isARM := s.findType(i.Type, i.Zone).IsARM
	switch {
	case boot["boot"] != true:
		return invalid("Invalid value for field 'resource.disks': ''. Boot disk must be specified.")
	case !slices.Contains(s.options.Images, image):
		return noReference("disks[0].initializeParams.sourceImage", image)
	case boot["autoDelete"] != true:
		return invalid("the disk would stay, and cost money, when its machine is gone")
	case isARM != strings.Contains(image, "arm64"):
		return invalid("Requested boot disk architecture (%s) is not compatible with machine type architecture.", image)
	case strings.HasPrefix(i.Type, "c4a-") != strings.HasPrefix(lastPart(kind), "hyperdisk"):
		return invalid("[%s] features are not compatible for creating instance of type %s.", lastPart(kind), i.Type)
	case size != "" && i.DiskGB < 10:
		return invalid("Requested disk size cannot be smaller than the image size (10 GB)")
	}
	path := "projects/" + i.project + "/zones/" + i.Zone + "/disks/" + i.Name
	i.boot = &disk{Disk: Disk{Name: i.Name, Zone: i.Zone, SizeGB: i.DiskGB, Labels: textMap(params["labels"]), CreatedAt: s.now()}, path: path, user: i, device: "persistent-disk-0", isBoot: true, isReady: true}
	return nil
}

func (s *Server) readNetwork(r *request, i *instance) error {
	interfaces, _ := r.body["networkInterfaces"].([]any)
	if len(interfaces) == 0 {
		return fail(http.StatusBadRequest, "required", "At least one network interface is required.")
	}
	first := interfaces[0].(map[string]any)
	path, _ := first["subnetwork"].(string)
	parts := strings.Split(path, "/") // projects/p/regions/r/subnetworks/s
	if len(parts) != 6 || parts[3] != regionOf(i.Zone) {
		return noReference("networkInterfaces[0].subnetwork", path)
	}
	found := slices.ContainsFunc(s.options.Networks, func(n Network) bool {
		return n.Project == parts[1] && n.Subnets[parts[3]] == parts[5]
	})
	if !found {
		return noReference("networkInterfaces[0].subnetwork", path)
	}
	access, _ := first["accessConfigs"].([]any)
	i.wantsPublic = len(access) > 0
	if tags, _ := r.body["tags"].(map[string]any); tags != nil {
		list, _ := tags["items"].([]any)
		for _, tag := range list {
			i.Tags = append(i.Tags, tag.(string))
		}
	}
	return nil
}

// readScheduling checks what happens at the end of a spot machine, and of one with GPUs.
func (s *Server) readScheduling(r *request, i *instance) error {
	t := s.findType(i.Type, i.Zone)
	scheduling, _ := r.body["scheduling"].(map[string]any)
	cannotMove := i.Spot || t.GPUs > 0 || i.GPUs > 0 || r.body["resourcePolicies"] != nil
	switch {
	case cannotMove && scheduling["onHostMaintenance"] != "TERMINATE":
		return invalid("Invalid value for field 'scheduling.onHostMaintenance': 'MIGRATE'. Instances with guest accelerators or of model SPOT do not support live migration.")
	case i.Spot && scheduling["automaticRestart"] != false:
		return invalid("Invalid value for field 'scheduling.automaticRestart': 'true'. Scheduling must have automaticRestart be false when the model is SPOT.")
	case i.Spot && scheduling["instanceTerminationAction"] != "DELETE":
		return invalid("a spot machine would be stopped, and its disk would cost money")
	}
	return nil
}

func (s *Server) readMetadata(r *request, i *instance) error {
	metadata, _ := r.body["metadata"].(map[string]any)
	items, _ := metadata["items"].([]any)
	for _, item := range items {
		entry := item.(map[string]any)
		key, _ := entry["key"].(string)
		value, _ := entry["value"].(string)
		if len(value) > maxMetadata {
			return invalid("Value for field 'metadata.items[].value' is too large: maximum size 262144 character(s); actual size %d.", len(value))
		}
		if key == "user-data" {
			i.UserData = []byte(value)
		}
	}
	return nil
}

func (s *Server) readPolicies(r *request, i *instance) error {
	policies, _ := r.body["resourcePolicies"].([]any)
	for _, p := range policies {
		path, _ := p.(string)
		if s.objects[path] == nil {
			return noReference("resourcePolicies[0]", path)
		}
		i.policies = append(i.policies, path)
	}
	return nil
}

// checkLabels checks the labels of a machine: the document has no patterns for them.
func checkLabels(_ *request, i *instance) error {
	for _, key := range slices.Sorted(maps.Keys(i.Labels)) {
		if !isLabel(key) || key == "" || key[0] < 'a' || key[0] > 'z' || !isLabel(i.Labels[key]) {
			return invalid("Invalid value for field 'resource.labels': ''. Label '%s: %s' violates format constraints.", key, i.Labels[key])
		}
	}
	if len(i.Labels) > 64 {
		return invalid("Invalid value for field 'resource.labels': ''. Number of labels exceeds 64.")
	}
	return nil
}

func isLabel(text string) bool {
	return len(text) <= 63 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}
