package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"dstack/internal/api"
	"dstack/internal/backend"
	"dstack/internal/decide/volume"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server/wire"
	"dstack/internal/server/wire/v018"
	"dstack/internal/spec"
)

// listProjectVolumes lists the volumes of a project by name.
func (s *Server) listProjectVolumes(c *apiCall, _ wire.Null) ([]dstack.Volume, error) {
	return s.store.Volumes(c.ctx, c.project.ID)
}

// listVolumes lists a page of the volumes that the caller may see, newest first.
func (s *Server) listVolumes(c *apiCall, in api.ListVolumes) ([]dstack.Volume, error) {
	projects, err := s.listVisibleProjects(c)
	if err != nil {
		return nil, err
	}
	var ids []dstack.ProjectID
	for _, p := range projects {
		if in.ProjectName == nil || strings.EqualFold(p.Name, *in.ProjectName) {
			ids = append(ids, p.ID)
		}
	}
	found, err := s.store.VolumesOf(c.ctx, ids...)
	if err != nil {
		return nil, err
	}
	return selectVolumes(found, in), nil
}

// selectVolumes returns the page of volumes, the newest of which comes first, that a query asks for.
func selectVolumes(found []dstack.Volume, in api.ListVolumes) []dstack.Volume {
	limit := 100
	if in.Limit != nil {
		limit = *in.Limit
	}
	if in.Ascending {
		slices.Reverse(found)
	}
	page := []dstack.Volume{}
	for _, v := range found {
		if in.OnlyActive && v.Status == dstack.VolumeFailed || !isBeyond(v, in) || len(page) == limit {
			continue
		}
		page = append(page, v)
	}
	return page
}

// isBeyond reports whether a volume comes after the last one of the page before.
func isBeyond(v dstack.Volume, in api.ListVolumes) bool {
	if in.PrevCreatedAt == nil {
		return true
	}
	order := v.CreatedAt.Compare(*in.PrevCreatedAt)
	if in.Ascending {
		return order > 0 || order == 0 && in.PrevID != nil && string(v.ID) < *in.PrevID
	}
	return order < 0 || order == 0 && in.PrevID != nil && string(v.ID) > *in.PrevID
}

func (s *Server) getVolume(c *apiCall, in api.VolumeName) (dstack.Volume, error) {
	found, err := s.store.Volumes(c.ctx, c.project.ID)
	if err != nil {
		return dstack.Volume{}, err
	}
	var names []string
	for _, v := range found {
		if v.Name == in.Name {
			return v, nil
		}
		names = append(names, v.Name)
	}
	hint := "list them: dstack volume list"
	if near := human.Nearest(in.Name, names); near != "" {
		hint = "did you mean " + near + "?"
	}
	return dstack.Volume{}, wire.Error{Msg: "Volume not found", Err: &dstack.Error{Kind: dstack.NotFound, Hint: hint,
		Message: fmt.Sprintf("there is no volume %s in project %s", quote(in.Name), c.project.Name)}}
}

// createVolume creates a volume. It fails if the project has one of the name.
func (s *Server) createVolume(c *apiCall, in api.CreateVolume) (dstack.Volume, error) {
	v, err := s.newVolume(c, in.Configuration)
	if err != nil {
		return dstack.Volume{}, err
	}
	err = s.store.CreateVolume(c.ctx, v, now())
	if dstack.KindOf(err) == dstack.Conflict {
		return dstack.Volume{}, wire.Error{Code: "resource_exists", Msg: "Resource exists", Err: err}
	}
	if err != nil {
		return dstack.Volume{}, err
	}
	s.notifyChange()
	return s.store.Volume(c.ctx, v.ID)
}

// applyVolume creates a volume, unless it exists with the same configuration.
func (s *Server) applyVolume(c *apiCall, in api.CreateVolume) (api.AppliedVolume, error) {
	if name := string(in.Configuration.Name); name != "" {
		found, err := s.getVolume(c, api.VolumeName{Name: name})
		if err == nil {
			return s.applyExisting(c, found, in.Configuration)
		}
		if dstack.KindOf(err) != dstack.NotFound {
			return api.AppliedVolume{}, err
		}
	}
	created, err := s.createVolume(c, in)
	return api.AppliedVolume{Volume: v018.BuildVolume(created), Created: true}, err
}

// applyExisting applies the configuration of a volume that exists. A failed volume is created again, or looked for if it was
// created before.
func (s *Server) applyExisting(c *apiCall, v dstack.Volume, conf spec.Volume) (api.AppliedVolume, error) {
	if err := checkUnchanged(v, conf); err != nil || v.Status != dstack.VolumeFailed {
		return api.AppliedVolume{Volume: v018.BuildVolume(v)}, err
	}
	if err := checkMayRegister(c, conf); err != nil { // the machine may be another one than before
		return api.AppliedVolume{}, err
	}
	machine, err := s.chooseMachine(c, conf)
	if err != nil {
		return api.AppliedVolume{}, err
	}
	if again, ok := volume.ApplyAgain(v, machine); ok {
		if err := s.store.ResubmitVolume(c.ctx, again, now()); err != nil {
			return api.AppliedVolume{}, err
		}
		s.notifyChange()
	}
	v, err = s.store.Volume(c.ctx, v.ID)
	return api.AppliedVolume{Volume: v018.BuildVolume(v), Created: true}, err
}

// chooseMachine returns the machine that a configuration asks for. In a cluster or a cloud it is none: the offer has only
// the backend.
func (s *Server) chooseMachine(c *apiCall, conf spec.Volume) (dstack.Offer, error) {
	if conf.IsInCloud() {
		cloud, err := volume.ChooseCloud(conf, s.listVolumeClouds(c.project.Name, conf.Backend))
		return dstack.Offer{Key: cloud.Key, Type: cloud.Key, Region: conf.Region}, err
	}
	if conf.IsInCluster() {
		cluster, err := volume.ChooseCluster(conf, s.listVolumeClusters(c.project.Name))
		return dstack.Offer{Key: cluster.Key, Type: cluster.Key, Region: cluster.Key}, err
	}
	offers, _, notes := s.collectOffers(c.ctx, c.project, dstack.Requirements{}, maxPreviewPlacements)
	machine, err := volume.ChooseMachine(conf, offers)
	if err != nil && len(notes) > 0 && dstack.KindOf(err) == dstack.NotFound {
		return machine, &dstack.Error{Kind: dstack.Unavailable, Message: err.Error() + ": " + strings.Join(notes, "; "), Hint: "try again later"}
	}
	return machine, err
}

// defaultCluster is the name of a cluster that has none in config.yml: the region of its nodes.
const defaultCluster = "cluster"

// listVolumeClusters returns the clusters of a project that have volumes.
func (s *Server) listVolumeClusters(project string) (clusters []volume.Cluster) {
	for _, key := range s.backends.Of(project) {
		name, hasName := strings.CutPrefix(key, spec.BackendKubernetes+"-")
		if !hasName && key != spec.BackendKubernetes {
			continue
		}
		if b, err := s.backends.Get(key); err == nil {
			if _, ok := b.(backend.Volumes); ok {
				if !hasName {
					name = defaultCluster
				}
				clusters = append(clusters, volume.Cluster{Key: key, Name: name})
			}
		}
	}
	return clusters
}

// listVolumeClouds returns the backends of a project that are of a type of cloud, in the order of config.yml.
func (s *Server) listVolumeClouds(project, cloudType string) (clouds []volume.Cloud) {
	for _, key := range s.backends.Of(project) {
		if key != cloudType && !strings.HasPrefix(key, cloudType+"-") {
			continue
		}
		b, err := s.backends.Get(key)
		if _, ok := b.(backend.Volumes); err != nil || !ok {
			continue
		}
		cloud := volume.Cloud{Key: key}
		if regional, ok := b.(backend.Regional); ok {
			cloud.Regions = regional.ListRegions()
		}
		clouds = append(clouds, cloud)
	}
	return clouds
}

// newVolume returns a new volume on the machine that its configuration asks for.
func (s *Server) newVolume(c *apiCall, conf spec.Volume) (dstack.Volume, error) {
	if problems := conf.Unsupported(); len(problems) > 0 {
		return dstack.Volume{}, newUnsupportedError(problems)
	}
	if conf.Name == "" {
		name, err := s.nameVolume(c)
		if err != nil {
			return dstack.Volume{}, err
		}
		conf.Name = spec.Text(name)
	}
	if err := spec.CheckName(string(conf.Name)); err != nil {
		return dstack.Volume{}, wire.Error{Msg: formatNameError(string(conf.Name)), Err: toInvalidError(err)}
	}
	if err := checkMayRegister(c, conf); err != nil {
		return dstack.Volume{}, err
	}
	machine, err := s.chooseMachine(c, conf)
	if err != nil {
		return dstack.Volume{}, err
	}
	v := dstack.Volume{
		ID: dstack.VolumeID(uuid.NewString()), Project: c.project.ID, Name: string(conf.Name), User: c.user.Name, Configuration: conf,
		Backend: machine.Key, Instance: machine.OwnedInstance, Machine: machine.Type, Fleet: machine.Fleet, Host: machine.Host,
		Region: machine.Region, Status: dstack.VolumeSubmitted,
	}
	if existing := findExistingData(conf); existing != "" {
		v.IsExternal, v.ExternalID = true, existing
	} else if conf.Size != nil {
		v.SizeMiB = int64(*conf.Size) * 1024
	}
	return v, nil
}

// findExistingData returns the folder or claim that a volume is; empty: a new one is made.
func findExistingData(conf spec.Volume) string {
	if conf.IsInCluster() {
		return conf.ExistingClaim()
	}
	return string(conf.VolumeID)
}

// checkMayRegister returns an error if the caller may not make an existing folder, claim or disk a volume: whoever can mount
// folders of a machine can read and change everything on it, and claims and disks may have the data of others who use the
// cluster or the account.
func checkMayRegister(c *apiCall, conf spec.Volume) error {
	const hint = "use size in place of volume_id, or ask one of them to apply the volume"
	switch {
	case findExistingData(conf) == "":
		return nil
	case conf.IsInCluster():
		if c.isGlobalAdmin() {
			return nil
		}
		return &dstack.Error{Kind: dstack.Forbidden, Message: "only global admins may register existing claims of a cluster as volumes",
			Hint: "use size in place of claim_name, or ask one of them to apply the volume"}
	case conf.IsInCloud():
		if c.isGlobalAdmin() {
			return nil
		}
		return &dstack.Error{Kind: dstack.Forbidden, Message: "only global admins may register existing disks of a cloud as volumes",
			Hint: "use size in place of volume_id, or ask one of them to apply the volume"}
	case conf.Backend == spec.BackendLocal && !c.isGlobalAdmin():
		return &dstack.Error{Kind: dstack.Forbidden, Hint: hint,
			Message: "only global admins may register folders of the server's own machine as volumes"}
	case !c.isProjectAdmin():
		return &dstack.Error{Kind: dstack.Forbidden, Hint: hint,
			Message: "only admins of the project may register folders of its hosts as volumes"}
	}
	return nil
}

// checkMayMount returns an error if the caller may not mount folders of hosts; see checkMayRegister. Folders of the
// server's own machine are a question of placement.
func checkMayMount(c *apiCall, conf spec.Service) error {
	for _, m := range conf.Volumes {
		if m.InstancePath != "" && !c.isProjectAdmin() {
			return &dstack.Error{Kind: dstack.Forbidden, Message: "only admins of the project may mount folders of its machines, such as " + m.InstancePath,
				Hint: "use a volume: type: volume; or ask one of them to apply the service"}
		}
	}
	return nil
}

// nameVolume returns a generated name that no volume of the project has.
func (s *Server) nameVolume(c *apiCall) (string, error) {
	found, err := s.store.ReadVolumes(c.ctx, c.project.ID)
	taken := map[string]bool{}
	for _, v := range found {
		taken[v.Name] = true
	}
	return generateName(taken), err
}

// checkUnchanged returns an error if a volume exists with another configuration. Nothing of a volume can be changed: its
// data stays as it is.
func checkUnchanged(v dstack.Volume, conf spec.Volume) error {
	is := v.Configuration
	var differ []string
	compare := func(what, now, wanted string) {
		if now != wanted {
			differ = append(differ, fmt.Sprintf("%s is %s, not %s", what, cmp.Or(now, "none"), cmp.Or(wanted, "none")))
		}
	}
	compare("backend", is.Backend, conf.Backend)
	if !conf.IsInCluster() || conf.ExistingClaim() == "" {
		compare("size", formatSize(is.Size), formatSize(conf.Size))
	}
	if is.IsInCluster() && conf.IsInCluster() {
		compareClaims(is, conf, compare)
	} else {
		compare("volume_id", string(is.VolumeID), string(conf.VolumeID))
	}
	if is.IsInCloud() && conf.IsInCloud() {
		compare("region", is.Region, conf.Region)
		if conf.Zone != "" {
			compare("availability_zone", cmp.Or(v.Zone, string(is.Zone)), string(conf.Zone))
		}
	} else if wanted := conf.Machine(); wanted != "" && wanted != is.Machine() && !isMachineOf(v, wanted) {
		compare(map[bool]string{false: "host", true: "region"}[conf.IsInCluster()], v.Machine, wanted)
	}
	if v.Status == dstack.VolumeDeleting {
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the volume %s is being deleted: %s", v.Name, v.Reason),
			Hint: "apply it again when it is gone: dstack volume list"}
	}
	if len(differ) == 0 {
		return nil
	}
	return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the volume %s exists with another configuration: %s", v.Name, strings.Join(differ, ", ")),
		Hint: "a volume cannot be changed, because its data would have to move: use another name, or delete it with its data first: " +
			"dstack volume delete " + v.Name}
}

// compareClaims compares what only volumes of clusters have. What a registered claim ignores does not matter.
func compareClaims(is, conf spec.Volume, compare func(what, now, wanted string)) {
	compare("claim_name", is.ExistingClaim(), conf.ExistingClaim())
	compare("read_only", strconv.FormatBool(is.ReadOnly), strconv.FormatBool(conf.ReadOnly))
	if conf.ExistingClaim() == "" {
		compare("storage_class_name", string(is.StorageClass), string(conf.StorageClass))
		compare("access_modes", strings.Join(is.NewClaimModes(), ", "), strings.Join(conf.NewClaimModes(), ", "))
	}
}

// isMachineOf reports whether a name is one of the machine of a volume.
func isMachineOf(v dstack.Volume, name string) bool {
	return strings.EqualFold(name, v.Machine) || strings.EqualFold(name, v.Fleet+"/"+v.Machine) || v.Fleet == "" && strings.EqualFold(name, v.Region) ||
		v.Configuration.IsInCluster() && strings.EqualFold(spec.BackendKubernetes+"-"+name, v.Backend)
}

func formatSize(size *spec.GB) string {
	if size == nil {
		return ""
	}
	return fmt.Sprintf("%gGB", float64(*size))
}

// maxDeletionWait limits how long volumes/delete waits until the volumes are gone: clients create them again at once.
const maxDeletionWait = 20 * time.Second

// deletionPoll is how often the volumes are read meanwhile: another server may delete them.
const deletionPoll = time.Second

// deleteVolumes deletes volumes with their data, and waits until they are gone.
func (s *Server) deleteVolumes(c *apiCall, in api.DeleteVolumes) (wire.Null, error) {
	names := slices.Compact(slices.Sorted(slices.Values(in.Names)))
	err := s.store.DeleteVolumes(c.ctx, c.project.ID, names, c.user.Name, now())
	if dstack.KindOf(err) == dstack.Conflict {
		return wire.Null{}, wire.Error{Msg: fmt.Sprintf("Failed to delete volume %s. Volume is in use.", strings.Join(names, ", ")), Err: err}
	}
	if err != nil {
		return wire.Null{}, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, maxDeletionWait)
	defer cancel()
	s.notifyChange()
	for {
		changed := s.broadcast.Changed()
		left, err := s.store.ReadVolumes(ctx, c.project.ID)
		if err != nil || !slices.ContainsFunc(left, func(v dstack.Volume) bool { return slices.Contains(names, v.Name) }) {
			return wire.Null{}, nil // it is deleted in any case
		}
		select {
		case <-changed:
		case <-time.After(deletionPoll):
		case <-ctx.Done():
			return wire.Null{}, nil
		}
	}
}

// readMountedVolumes returns the volumes of the project with the runs that name them, if a service mounts any. It returns an error if no machine can
// have all that the service mounts.
func (s *Server) readMountedVolumes(c *apiCall, conf spec.Service) ([]dstack.Volume, error) {
	if len(conf.Volumes) == 0 {
		return nil, nil
	}
	if err := checkMayMount(c, conf); err != nil {
		return nil, err
	}
	volumes, err := s.store.Volumes(c.ctx, c.project.ID)
	if err != nil {
		return nil, err
	}
	return volumes, volume.CheckMounts(conf, c.project.Name, volumes)
}
