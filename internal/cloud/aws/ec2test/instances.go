package ec2test

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Instance is a machine.
type Instance struct {
	ID, Region, Zone, Type, Arch string
	Spot                         bool
	State                        string // pending, running, shutting-down, terminated
	StateReason                  string // Server.SpotInstanceTermination; empty: none
	Token                        string
	Image, ImageName             string
	UserData                     []byte
	Tags                         map[string]string
	Subnet                       string
	SecurityGroups               []string
	PlacementGroup               string
	Profile                      string
	PublicIP, PrivateIP          string
	DiskGB                       int
	LaunchedAt, EndedAt          time.Time
}

// String returns the machine for messages of tests, without its user data, which has keys.
func (i Instance) String() string {
	return fmt.Sprintf("%s (%s, %s, spot: %t, %s, instance %s)", i.ID, i.Type, i.Zone, i.Spot, i.State, i.Tags["dstack-instance"])
}

type instance struct {
	Instance
	reservation   string
	message       string // of StateReason
	reason        string // of the transition
	wantsPublic   bool
	hooks         int // that run now
	isBooted      bool
	isClosed      bool // the hook at its end has run
	terminatingAt time.Time
	noticeAt      time.Time // when a spot machine is taken back, as its metadata says
	metadata      metadataSessions
	subnet        *subnet
	image         *image
	vcpus         int
	quota         string
}

// Instances returns the machines of all regions that are not forgotten yet, ordered by ID.
func (s *Server) Instances() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	var list []Instance
	for _, r := range s.regions {
		for _, i := range r.instances {
			list = append(list, i.Instance)
		}
	}
	slices.SortFunc(list, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Alive returns the machines that cost money.
func (s *Server) Alive() []Instance {
	return slices.DeleteFunc(s.Instances(), func(i Instance) bool { return i.State == "terminated" })
}

// AddInstance makes a running machine without a request, as the user or an earlier server may have, and returns its ID.
func (s *Server) AddInstance(regionName, zone, kind string, tags map[string]string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	reg := s.regions[regionName]
	l := &launch{image: reg.images[0], kind: s.findType(kind), zone: zone, subnet: reg.findDefaultSubnet(zone), tags: tags, diskGB: reg.images[0].SizeGB}
	i := s.addInstance(reg, l)
	i.isBooted, i.LaunchedAt = true, s.now().Add(-2*time.Hour)
	s.advance()
	return i.ID
}

// Interrupt takes a spot machine back at once, without a further notice.
func (s *Server) Interrupt(id string) {
	s.end(id, "Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination")
}

// Fail ends a machine for a reason such as Server.InternalError.
func (s *Server) Fail(id, code, message string) { s.end(id, code, message) }

func (s *Server) end(id, code, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, i := s.findInstance(id); i != nil && i.terminatingAt.IsZero() {
		i.StateReason, i.message, i.reason = code, message, "Server initiated ("+s.now().UTC().Format("2006-01-02 15:04:05 GMT")+")"
		s.terminate(r, i)
	}
	s.advance()
}

func (s *Server) findInstance(id string) (*region, *instance) {
	for _, r := range s.regions {
		if i := r.instances[id]; i != nil {
			return r, i
		}
	}
	return nil, nil
}

// terminate begins the end of a machine. The caller holds the lock.
func (s *Server) terminate(r *region, i *instance) {
	i.terminatingAt, i.State = s.now(), "shutting-down"
	if s.options.OnTerminate == nil {
		i.isClosed = true
		return
	}
	i.hooks++
	shown := i.Instance
	s.hooks.Go(func() {
		s.options.OnTerminate(shown)
		s.mu.Lock()
		defer s.mu.Unlock()
		i.hooks--
		i.isClosed = true
	})
}

// boot begins the life of a machine. The caller holds the lock.
func (s *Server) boot(r *region, i *instance, f *Fault) {
	if f != nil && f.StateReason != "" {
		i.StateReason, i.message, i.reason = f.StateReason, f.StateReason+": "+f.Message, "Server initiated"
		i.terminatingAt, i.isClosed, i.State = s.now(), true, "shutting-down"
		return
	}
	if s.options.OnRun == nil {
		i.isBooted = true
		if i.wantsPublic {
			i.PublicIP = fmt.Sprintf("203.0.113.%d", 1+s.serial%250)
		}
		return
	}
	i.hooks++
	shown := i.Instance
	s.hooks.Go(func() {
		address, err := s.options.OnRun(shown)
		s.mu.Lock()
		defer s.mu.Unlock()
		i.hooks--
		if err != nil && i.terminatingAt.IsZero() {
			i.StateReason, i.message = "Server.InternalError", "Server.InternalError: "+err.Error()
			s.terminate(r, i)
			return
		}
		i.isBooted, i.PrivateIP = true, address
		if i.wantsPublic {
			i.PublicIP = address
		}
	})
}

func (s *Server) advanceInstance(r *region, i *instance, now time.Time) {
	steps := s.options.Steps
	if i.State == "pending" && i.isBooted && isAfter(now, i.LaunchedAt, steps.Running) {
		i.State = "running"
	}
	if i.State == "shutting-down" && i.isClosed && isAfter(now, i.terminatingAt, steps.Terminated) {
		i.State, i.PublicIP, i.PrivateIP, i.EndedAt = "terminated", "", "", now
		i.subnet.Free++
		s.releaseVolumes(r, i)
	}
	if i.State == "terminated" && isAfter(now, i.EndedAt, steps.Shown) {
		delete(r.instances, i.ID)
	}
}

// shownState is the state that a description shows, which may be an old one. Empty: it is not shown at all.
func (s *Server) shownState(i *instance) string {
	now, lag := s.now(), s.options.Steps.Lag
	switch {
	case !isAfter(now, i.LaunchedAt, lag):
		return ""
	case !i.terminatingAt.IsZero() && !isAfter(now, i.terminatingAt, lag):
		return "running"
	}
	return i.State
}

func (s *Server) describeInstances(r *request, reg *region) ([]node, error) {
	ids, f := r.params.list("InstanceId"), r.params.readFilters()
	var missing []string
	for _, id := range ids {
		if i := reg.instances[id]; i == nil || s.shownState(i) == "" {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return nil, fail("InvalidInstanceID.NotFound", "The instance IDs '%s' do not exist", strings.Join(missing, ", "))
	}
	var items []node
	for _, id := range sortedKeys(reg.instances) {
		i := reg.instances[id]
		state := s.shownState(i)
		if state == "" || len(ids) > 0 && !slices.Contains(ids, id) {
			continue
		}
		lifecycle := []string{}
		if i.Spot {
			lifecycle = []string{"spot"}
		}
		ok, err := f.matches(i.Tags, map[string][]string{
			"instance-state-name": {state}, "instance-id": {id}, "instance-type": {i.Type}, "availability-zone": {i.Zone},
			"instance-lifecycle": lifecycle, "subnet-id": {i.Subnet}, "vpc-id": {i.subnet.vpc.ID}, "client-token": {i.Token},
			"instance.group-id": i.SecurityGroups, "placement-group-name": {i.PlacementGroup},
		})
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, s.reservationNode(i, state))
		}
	}
	from, to, next, err := s.readPage(r.params, len(items))
	if err != nil {
		return nil, err
	}
	return page("reservationSet", items[from:to], next), nil
}

func (s *Server) reservationNode(i *instance, state string) node {
	return group("item", text("reservationId", i.reservation), text("ownerId", s.options.Account), set("groupSet", nil),
		set("instancesSet", []node{s.instanceNode(i, state)}))
}

var stateCodes = map[string]int{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48}

func stateNode(name, state string) node {
	return group(name, number("code", stateCodes[state]), text("name", state))
}

func (s *Server) instanceNode(i *instance, state string) node {
	n := group("item", text("instanceId", i.ID), text("imageId", i.Image), stateNode("instanceState", state),
		text("instanceType", i.Type), moment("launchTime", i.LaunchedAt), text("clientToken", i.Token),
		group("placement", text("availabilityZone", i.Zone), text("groupName", i.PlacementGroup), text("tenancy", "default")),
		text("architecture", i.Arch), text("rootDeviceType", "ebs"), text("rootDeviceName", rootDevice),
		text("virtualizationType", "hvm"), text("hypervisor", "xen"), text("reason", i.reason), tagSet(i.Tags))
	if i.Spot {
		n.children = append(n.children, text("instanceLifecycle", "spot"), text("spotInstanceRequestId", "sir-"+i.ID[len(i.ID)-8:]))
	}
	if i.StateReason != "" && state != "running" && state != "pending" {
		n.children = append(n.children, group("stateReason", text("code", i.StateReason), text("message", i.message)))
	}
	if state == "terminated" {
		return n
	}
	var groups, disks []node
	for _, id := range i.SecurityGroups {
		groups = append(groups, group("item", text("groupId", id)))
	}
	volumes := s.regions[i.Region].volumes
	for _, id := range sortedKeys(volumes) {
		if v := volumes[id]; v.Instance == i.ID {
			disks = append(disks, group("item", text("deviceName", v.Device), group("ebs", text("volumeId", v.ID),
				text("status", v.attachment), boolean("deleteOnTermination", v.isRoot))))
		}
	}
	n.children = append(n.children, text("subnetId", i.Subnet), text("vpcId", i.subnet.vpc.ID), optional("privateIpAddress", i.PrivateIP),
		set("groupSet", groups), set("blockDeviceMapping", disks))
	if state == "running" {
		n.children = append(n.children, optional("ipAddress", i.PublicIP))
	}
	return n
}

func (s *Server) terminateInstances(r *request, reg *region) ([]node, error) {
	ids := r.params.list("InstanceId")
	if len(ids) == 0 {
		return nil, fail("MissingParameter", "The request must contain the parameter InstanceId")
	}
	var missing []string
	for _, id := range ids {
		if reg.instances[id] == nil {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return nil, fail("InvalidInstanceID.NotFound", "The instance IDs '%s' do not exist", strings.Join(missing, ", "))
	}
	if err := checkDryRun(r); err != nil {
		return nil, err
	}
	var items []node
	for _, id := range ids {
		i := reg.instances[id]
		before := i.State
		if i.terminatingAt.IsZero() {
			i.StateReason, i.message = "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"
			i.reason = "User initiated (" + s.now().UTC().Format("2006-01-02 15:04:05 GMT") + ")"
			s.terminate(reg, i)
		}
		items = append(items, group("item", text("instanceId", id), stateNode("currentState", i.State), stateNode("previousState", before)))
	}
	return []node{set("instancesSet", items)}, nil
}

// checkDryRun ends a request that only asks whether it would succeed.
func checkDryRun(r *request) error {
	if r.params.isTrue("DryRun") {
		return &apiError{412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set."}
	}
	return nil
}
