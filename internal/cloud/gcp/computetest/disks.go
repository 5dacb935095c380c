package computetest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Disk is a network disk.
type Disk struct {
	Name, Zone string
	SizeGB     int
	Labels     map[string]string
	User       string // name of the machine that it is attached to
	CreatedAt  time.Time
}

type disk struct {
	Disk
	path    string
	user    *instance
	device  string // its name on the machine
	isBoot  bool
	isReady bool
}

// Disks returns the disks that exist, ordered by name, those that machines boot from included.
func (s *Server) Disks() []Disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	var list []Disk
	for _, path := range slices.Sorted(maps.Keys(s.disks)) {
		d := s.disks[path].Disk
		if user := s.disks[path].user; user != nil {
			d.User = user.Name
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Disk) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// AddDisk makes a disk, as a user may.
func (s *Server) AddDisk(d Disk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := "projects/" + s.options.Project + "/zones/" + d.Zone + "/disks/" + d.Name
	d.CreatedAt = s.now()
	s.disks[path] = &disk{Disk: d, path: path, isReady: true}
}

func diskPath(r *request) string {
	return "projects/" + r.project + "/zones/" + r.params["zone"] + "/disks/" + r.params["disk"]
}

func (s *Server) insertDisk(r *request) (any, error) {
	r.params["disk"] = r.text("name")
	path, zone := diskPath(r), r.params["zone"]
	size, _ := strconv.Atoi(r.text("sizeGb"))
	switch {
	case r.text("name") == "":
		return nil, fail(http.StatusBadRequest, "required", "Invalid value for field 'resource.name': ''. The value is required.")
	case s.disks[path] != nil:
		return nil, fail(http.StatusConflict, "alreadyExists", "The resource '%s' already exists", path)
	case size < 10:
		return nil, invalid("Invalid value for field 'resource.sizeGb': '%d'. Disk size cannot be smaller than 10 GB for pd-balanced.", size)
	case r.text("type") != "zones/"+zone+"/diskTypes/pd-balanced":
		return nil, noReference("type", r.text("type"))
	}
	d := &disk{Disk: Disk{Name: r.text("name"), Zone: zone, SizeGB: size, Labels: textMap(r.body["labels"]), CreatedAt: s.now()}, path: path}
	o := s.newOperation(r, "insert", "zones/"+zone, path, s.options.Steps.Disk, func() { d.isReady = true })
	if o.failure == nil {
		s.disks[path] = d
	}
	return o, nil
}

func (s *Server) describeDisk(d *disk) map[string]any {
	body := map[string]any{
		"name": d.Name, "zone": link("projects/" + s.options.Project + "/zones/" + d.Zone), "status": "CREATING", "sizeGb": fmt.Sprint(d.SizeGB),
		"type": link("projects/" + s.options.Project + "/zones/" + d.Zone + "/diskTypes/pd-balanced"), "creationTimestamp": formatTime(d.CreatedAt),
	}
	if d.isReady {
		body["status"] = "READY"
	}
	labels := map[string]any{}
	for k, v := range d.Labels {
		labels[k] = v
	}
	body["labels"] = labels
	if d.user != nil {
		body["users"] = []any{link(d.user.path())}
	}
	return body
}

func (s *Server) getDisk(r *request) (any, error) {
	d := s.disks[diskPath(r)]
	if d == nil {
		return nil, notFound(diskPath(r))
	}
	return s.describeDisk(d), nil
}

func (s *Server) diskItems() (items []item) {
	for _, path := range slices.Sorted(maps.Keys(s.disks)) {
		d := s.disks[path]
		items = append(items, item{"zones/" + d.Zone, s.describeDisk(d)})
	}
	return items
}

func (s *Server) deleteDisk(r *request) (any, error) {
	path := diskPath(r)
	d := s.disks[path]
	switch {
	case d == nil:
		return nil, notFound(path)
	case d.user != nil:
		return nil, fail(http.StatusBadRequest, "resourceInUseByAnotherResource", "The disk resource '%s' is already being used by '%s'", path, d.user.path())
	}
	return s.newOperation(r, "delete", "zones/"+d.Zone, path, s.options.Steps.Disk, func() { delete(s.disks, path) }), nil
}

// attachDisk begins to attach a disk. That it is in use is told by the operation, as the API does it.
func (s *Server) attachDisk(r *request) (any, error) {
	path := "projects/" + r.project + "/zones/" + r.params["zone"] + "/instances/" + r.params["instance"]
	i, d := s.instances[path], s.disks["projects/"+r.project+"/zones/"+r.params["zone"]+"/disks/"+lastPart(r.text("source"))]
	switch {
	case i == nil:
		return nil, notFound(path)
	case d == nil:
		return nil, noReference("source", r.text("source"))
	case r.text("deviceName") == "":
		return nil, invalid("a machine would not find the disk: it has no name there")
	}
	o := s.newOperation(r, "attachDisk", "zones/"+i.Zone, path, s.options.Steps.Disk, func() {})
	if d.user != nil {
		return s.failLater(o, &operationError{code: "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", status: http.StatusBadRequest,
			message: "The disk resource '" + d.path + "' is already being used by '" + d.user.path() + "'"}), nil
	}
	if o.failure != nil {
		return o, nil
	}
	shown, holder := d.Disk, i.Instance
	o.finish = func() {
		if o.failure == nil && s.instances[path] == i && d.user == nil {
			d.user, d.device = i, r.text("deviceName")
		}
	}
	if s.options.OnAttach != nil {
		o.isHeld = true
		s.hooks.Go(func() {
			err := s.options.OnAttach(shown, holder)
			s.mu.Lock()
			defer s.mu.Unlock()
			if o.isHeld = false; err != nil {
				s.failLater(o, &operationError{code: "INTERNAL_ERROR", message: err.Error(), status: http.StatusInternalServerError})
			}
		})
	}
	return o, nil
}

func (s *Server) detachDisk(r *request) (any, error) {
	path := "projects/" + r.project + "/zones/" + r.params["zone"] + "/instances/" + r.params["instance"]
	i := s.instances[path]
	if i == nil {
		return nil, notFound(path)
	}
	for _, d := range s.disks {
		if d.user != i || d.device != r.query["deviceName"] || d.isBoot {
			continue
		}
		o := s.newOperation(r, "detachDisk", "zones/"+i.Zone, path, s.options.Steps.Disk, func() { d.user = nil })
		if s.options.OnDetach != nil {
			o.isHeld = true
			shown, holder := d.Disk, i.Instance
			s.hooks.Go(func() {
				s.options.OnDetach(shown, holder)
				s.mu.Lock()
				defer s.mu.Unlock()
				o.isHeld = false
			})
		}
		return o, nil
	}
	return nil, invalid("Invalid value for field 'deviceName': '%s'. No attached disk found with device name '%s'", r.query["deviceName"], r.query["deviceName"])
}
