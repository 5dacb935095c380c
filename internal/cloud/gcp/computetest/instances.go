package computetest

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Instance is a machine.
type Instance struct {
	Name, Zone, Type string
	Spot             bool
	Status           string // PROVISIONING, RUNNING, STOPPING, TERMINATED
	Image            string
	UserData         []byte
	Labels           map[string]string
	Tags             []string
	DiskGB           int
	GPU              string // that was added: nvidia-tesla-t4
	GPUs             int
	Account          string // its service account
	PublicIP         string
	PrivateIP        string
	CreatedAt        time.Time
	RequestID        string
}

type instance struct {
	Instance
	id          string
	project     string
	shownAt     time.Time // when lists show it
	body        map[string]any
	policies    []string
	boot        *disk
	wantsPublic bool
	isDeleted   bool // an operation that deletes it goes on
	isWarned    bool
	isPreempted chan struct{} // closed at the notice
}

func (i *instance) path() string {
	return "projects/" + i.project + "/zones/" + i.Zone + "/instances/" + i.Name
}

// Instances returns the machines that exist, listed or not, ordered by name.
func (s *Server) Instances() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	var list []Instance
	for _, path := range slices.Sorted(maps.Keys(s.instances)) {
		list = append(list, s.instances[path].Instance)
	}
	slices.SortFunc(list, func(a, b Instance) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (s *Server) findInstance(name string) *instance {
	for _, i := range s.instances {
		if i.Name == name {
			return i
		}
	}
	return nil
}

// insertInstance begins to make a machine.
func (s *Server) insertInstance(r *request) (any, error) {
	i, err := s.newInstance(r)
	if err != nil {
		return nil, err
	}
	path := i.path()
	if s.instances[path] != nil {
		return nil, fail(http.StatusConflict, "alreadyExists", "The resource '%s' already exists", path)
	}
	o := s.newOperation(r, "insert", "zones/"+i.Zone, path, s.options.Steps.Running, func() {})
	if refusal := s.refuse(i); refusal != nil {
		s.failLater(o, refusal)
	}
	s.instances[path] = i // a machine that will fail is there for a moment
	o.finish = func() { s.finishInsert(o, i) }
	if o.failure == nil {
		s.take(i)
		s.disks[i.boot.path] = i.boot
		s.boot(o, i)
	}
	return o, nil
}

// finishInsert ends the operation that makes a machine.
func (s *Server) finishInsert(o *operation, i *instance) {
	switch {
	case o.failure != nil:
		if s.instances[i.path()] == i {
			delete(s.instances, i.path())
			delete(s.disks, i.boot.path)
		}
	case i.isDeleted:
	default:
		i.Status = "RUNNING"
	}
}

// boot calls the hook of a new machine, and gives it its addresses.
func (s *Server) boot(o *operation, i *instance) {
	if s.options.OnRun == nil {
		s.setAddress(i, "")
		return
	}
	o.isHeld = true
	shown := i.Instance
	s.hooks.Go(func() {
		address, err := s.options.OnRun(shown)
		s.mu.Lock()
		defer s.mu.Unlock()
		o.isHeld = false
		s.setAddress(i, address)
		if err != nil {
			s.failLater(o, &operationError{code: "INTERNAL_ERROR", message: err.Error(), status: http.StatusInternalServerError})
		}
	})
}

func (s *Server) setAddress(i *instance, address string) {
	s.serial++
	number := strconv.Itoa(s.serial%250 + 2)
	i.PrivateIP = "10.128.0." + number
	if i.wantsPublic {
		i.PublicIP = "192.0.2." + number
	}
	if address != "" && i.wantsPublic {
		i.PublicIP = address
	} else if address != "" {
		i.PrivateIP = address
	}
}

// refuse returns why there is no such machine now.
func (s *Server) refuse(i *instance) *operationError {
	left, isLimited := s.capacity[Place{i.Zone, i.Type, i.Spot}]
	if isLimited && left <= 0 {
		var others []string
		for _, zone := range s.options.Regions[regionOf(i.Zone)].Zones {
			if n, isLimited := s.capacity[Place{zone, i.Type, i.Spot}]; s.findType(i.Type, zone) != nil && (!isLimited || n > 0) {
				others = append(others, zone)
			}
		}
		return newStockout(i, others)
	}
	return s.exceededQuota(i)
}

func newStockout(i *instance, others []string) *operationError {
	return &operationError{
		code: "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", status: http.StatusServiceUnavailable,
		message: "The zone 'projects/" + i.project + "/zones/" + i.Zone + "' does not have enough resources available to fulfill the request.  '(resource type:compute)'.",
		details: []any{
			map[string]any{"errorInfo": map[string]any{"domain": "compute.googleapis.com", "reason": "resource_availability", "metadatas": map[string]any{
				"vmType": i.Type, "zone": i.Zone, "attachment": "", "zonesAvailable": strings.Join(others, ","),
			}}},
			map[string]any{"localizedMessage": map[string]any{"locale": "en-US", "message": "A " + i.Type + " VM instance is currently unavailable in the " + i.Zone + " zone."}},
		},
	}
}

// quotaOf returns the quotas that a machine counts against, with how much.
func (s *Server) quotaOf(i *instance) map[string]float64 {
	t := s.findType(i.Type, i.Zone)
	if t == nil {
		return nil
	}
	counts := map[string]float64{}
	family, _, _ := strings.Cut(i.Type, "-")
	metric := strings.ToUpper(family) + "_CPUS"
	region := s.quotas[regionOf(i.Zone)]
	if _, has := region[metric]; !has {
		metric = "CPUS"
	}
	if i.Spot && region["PREEMPTIBLE_CPUS"] > 0 {
		metric = "PREEMPTIBLE_CPUS"
	}
	counts[metric] = float64(t.CPUs)
	gpu, gpus := t.GPU, t.GPUs
	if i.GPU != "" {
		gpu, gpus = i.GPU, i.GPUs
	}
	if gpus > 0 {
		name := strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(gpu, "nvidia-"), "tesla-"), "-", "_"))
		metric := "NVIDIA_" + name + "_GPUS"
		if i.Spot && region["PREEMPTIBLE_"+metric] > 0 {
			metric = "PREEMPTIBLE_" + metric
		}
		counts[metric] = float64(gpus)
	}
	return counts
}

// usage returns how much of a quota of a region machines use.
func (s *Server) usage(region, metric string) (used float64) {
	for _, i := range s.instances {
		if region == "" || regionOf(i.Zone) == region {
			used += s.quotaOf(i)[metric]
		}
	}
	return used
}

func (s *Server) exceededQuota(i *instance) *operationError {
	region := regionOf(i.Zone)
	for metric, count := range s.quotaOf(i) {
		limit, has := s.quotas[region][metric]
		if !has || s.usage(region, metric)+count <= limit {
			continue
		}
		return &operationError{
			code: "QUOTA_EXCEEDED", status: http.StatusForbidden, message: "Quota '" + metric + "' exceeded.  Limit: " + strconv.FormatFloat(limit, 'f', 1, 64) + " in region " + region + ".",
			details: []any{map[string]any{"quotaInfo": map[string]any{
				"metricName": "compute.googleapis.com/" + strings.ToLower(metric), "limitName": strings.ReplaceAll(metric, "_", "-") + "-per-project-region",
				"limit": limit, "dimensions": map[string]any{"region": region},
			}}},
		}
	}
	return nil
}

// take counts a machine against the capacity of its place.
func (s *Server) take(i *instance) {
	if _, isLimited := s.capacity[Place{i.Zone, i.Type, i.Spot}]; isLimited {
		s.capacity[Place{i.Zone, i.Type, i.Spot}]--
	}
}

func (s *Server) getInstance(r *request) (any, error) {
	path := "projects/" + r.project + "/zones/" + r.params["zone"] + "/instances/" + r.params["instance"]
	i := s.instances[path]
	if i == nil {
		return nil, notFound(path)
	}
	return s.describe(i), nil
}

// describe returns a machine as the API shows it.
func (s *Server) describe(i *instance) map[string]any {
	body := maps.Clone(i.body)
	body["id"], body["status"], body["zone"], body["selfLink"] = i.id, i.Status, link("projects/"+i.project+"/zones/"+i.Zone), link(i.path())
	body["creationTimestamp"] = formatTime(i.CreatedAt)
	body["machineType"] = link("projects/" + i.project + "/zones/" + i.Zone + "/machineTypes/" + i.Type)
	access := map[string]any{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}
	network := map[string]any{"name": "nic0"}
	if i.PrivateIP != "" {
		network["networkIP"] = i.PrivateIP
	}
	if i.PublicIP != "" {
		access["natIP"] = i.PublicIP
	}
	if i.wantsPublic {
		network["accessConfigs"] = []any{access}
	}
	body["networkInterfaces"] = []any{network}
	disks := []any{}
	for _, path := range slices.Sorted(maps.Keys(s.disks)) {
		if d := s.disks[path]; d.user == i {
			disks = append(disks, map[string]any{"source": link(path), "deviceName": d.device, "boot": d.isBoot})
		}
	}
	body["disks"] = disks
	return body
}

func (s *Server) instanceItems() (items []item) {
	for _, path := range slices.Sorted(maps.Keys(s.instances)) {
		if i := s.instances[path]; !s.now().Before(i.shownAt) && !s.isHidden {
			items = append(items, item{"zones/" + i.Zone, s.describe(i)})
		}
	}
	return items
}

// deleteInstance begins to end a machine.
func (s *Server) deleteInstance(r *request) (any, error) {
	path := "projects/" + r.project + "/zones/" + r.params["zone"] + "/instances/" + r.params["instance"]
	i := s.instances[path]
	if i == nil {
		return nil, notFound(path)
	}
	return s.end(r, i, "delete"), nil
}

// end begins to end a machine. Its disks are freed, and the one that it booted from is deleted.
func (s *Server) end(r *request, i *instance, kind string) *operation {
	o := s.newOperation(r, kind, "zones/"+i.Zone, i.path(), s.options.Steps.Terminated, func() {})
	if o.failure != nil || i.isDeleted {
		return o
	}
	i.Status, i.isDeleted = "STOPPING", true
	o.finish = func() {
		for path, d := range s.disks {
			if d.user != i {
				continue
			}
			if d.user = nil; d.isBoot {
				delete(s.disks, path)
			}
		}
		delete(s.instances, i.path())
	}
	if s.options.OnTerminate != nil {
		o.isHeld = true
		shown := i.Instance
		s.hooks.Go(func() {
			s.options.OnTerminate(shown)
			s.mu.Lock()
			defer s.mu.Unlock()
			o.isHeld = false
		})
	}
	return o
}

// Warn announces that a spot machine is taken back, as its metadata service says from now on.
func (s *Server) Warn(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.findInstance(name); i != nil && !i.isWarned {
		i.isWarned = true
		close(i.isPreempted)
	}
}

// Interrupt takes a spot machine back.
func (s *Server) Interrupt(name string) {
	s.Warn(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.findInstance(name); i != nil {
		o := s.end(nil, i, "compute.instances.preempted")
		o.user = "system"
		s.advance()
	}
}

// Stop stops a machine, as a user may.
func (s *Server) Stop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.findInstance(name); i != nil {
		i.Status = "TERMINATED"
	}
}

// Remove deletes a machine, as another user may.
func (s *Server) Remove(name, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.findInstance(name); i != nil {
		s.end(nil, i, "delete").user = user
		s.advance()
	}
}

// AddInstance makes a running machine, as a user may.
func (s *Server) AddInstance(i Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.Status, i.CreatedAt = "RUNNING", s.now()
	labels := map[string]any{}
	for k, v := range i.Labels {
		labels[k] = v
	}
	made := &instance{Instance: i, id: s.newID(), project: s.options.Project, isPreempted: make(chan struct{}),
		body: map[string]any{"name": i.Name, "labels": labels}}
	s.instances[made.path()] = made
}
