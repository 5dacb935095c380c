package ec2test

import (
	"slices"
	"strconv"
)

func (s *Server) describeImages(r *request, reg *region) ([]node, error) {
	ids, owners, f := r.params.list("ImageId"), r.params.list("Owner"), r.params.readFilters()
	r.params.get("IncludeDeprecated")
	for _, id := range ids {
		if reg.findImage(id) == nil {
			return nil, fail("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", id)
		}
	}
	var items []node
	for _, i := range reg.images {
		ok, err := f.matches(nil, map[string][]string{
			"name": {i.Name}, "architecture": {i.Arch}, "state": {"available"}, "owner-id": {i.Owner}, "owner-alias": {i.Alias},
			"root-device-type": {"ebs"}, "virtualization-type": {"hvm"}, "image-id": {i.id}, "image-type": {"machine"},
		})
		if err != nil {
			return nil, err
		}
		isOwned := len(owners) == 0 || slices.Contains(owners, i.Owner) || i.Alias != "" && slices.Contains(owners, i.Alias)
		if ok && isOwned && (len(ids) == 0 || slices.Contains(ids, i.id)) {
			items = append(items, group("item", text("imageId", i.id), text("name", i.Name), text("imageOwnerId", i.Owner), optional("imageOwnerAlias", i.Alias),
				text("architecture", i.Arch), text("creationDate", i.CreatedAt), text("imageState", "available"), text("rootDeviceType", "ebs"),
				text("rootDeviceName", rootDevice), text("virtualizationType", "hvm"), boolean("isPublic", true), set("blockDeviceMapping", []node{
					group("item", text("deviceName", rootDevice), group("ebs", number("volumeSize", i.SizeGB), text("volumeType", "gp3"),
						boolean("deleteOnTermination", true), text("snapshotId", "snap-"+i.id[4:]))),
				})))
		}
	}
	from, to, next, err := s.readPage(r.params, len(items))
	if err != nil {
		return nil, err
	}
	return page("imagesSet", items[from:to], next), nil
}

func (s *Server) describeTypes(r *request, reg *region) ([]node, error) {
	names, f := r.params.list("InstanceType"), r.params.readFilters()
	for _, name := range names {
		if t := s.findType(name); t == nil || len(reg.zonesOf(t)) == 0 {
			return nil, fail("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", name)
		}
	}
	var items []node
	for i := range s.options.Types {
		t := &s.options.Types[i]
		if len(reg.zonesOf(t)) == 0 || len(names) > 0 && !slices.Contains(names, t.Name) {
			continue
		}
		ok, err := f.matches(nil, map[string][]string{
			"instance-type": {t.Name}, "processor-info.supported-architecture": {t.Arch}, "current-generation": {"true"}, "bare-metal": {"false"},
			"supported-usage-class": t.usage(), "hypervisor": {"nitro"}, "supported-virtualization-type": {"hvm"}, "supported-root-device-type": {"ebs"},
		})
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, t.node())
		}
	}
	from, to, next, err := s.readPage(r.params, len(items))
	if err != nil {
		return nil, err
	}
	return page("instanceTypeSet", items[from:to], next), nil
}

func (t *Type) usage() []string {
	if t.SpotPrice == 0 {
		return []string{"on-demand"}
	}
	return []string{"on-demand", "spot"}
}

func (t *Type) node() node {
	var usage []node
	for _, class := range t.usage() {
		usage = append(usage, text("item", class))
	}
	n := group("item", text("instanceType", t.Name), boolean("currentGeneration", true), set("supportedUsageClasses", usage),
		set("supportedRootDeviceTypes", []node{text("item", "ebs")}), set("supportedVirtualizationTypes", []node{text("item", "hvm")}),
		boolean("bareMetal", false), text("hypervisor", "nitro"),
		group("processorInfo", set("supportedArchitectures", []node{text("item", t.Arch)})),
		group("vCpuInfo", number("defaultVCpus", t.VCPUs)), group("memoryInfo", number("sizeInMiB", t.MemoryMiB)),
		boolean("instanceStorageSupported", t.StorageGB > 0),
		group("placementGroupInfo", set("supportedStrategies", []node{text("item", "cluster"), text("item", "partition"), text("item", "spread")})))
	if t.StorageGB > 0 {
		n.children = append(n.children, group("instanceStorageInfo", number("totalSizeInGB", t.StorageGB)))
	}
	if t.GPUName != "" {
		logical, partition := t.GPUs, 1.0
		if t.GPUPartition > 0 {
			logical, partition = 1, t.GPUPartition
		}
		n.children = append(n.children, group("gpuInfo", set("gpus", []node{group("item", text("name", t.GPUName), text("manufacturer", t.GPUMaker),
			number("count", t.GPUs), number("logicalGpuCount", logical), text("gpuPartitionSize", strconv.FormatFloat(partition, 'g', -1, 64)),
			group("memoryInfo", number("sizeInMiB", t.GPUMemoryMiB)))}), number("totalGpuMemoryInMiB", logical*t.GPUMemoryMiB)))
	}
	if t.NeuronCount > 0 { // the memory is as wrong as the real service's
		n.children = append(n.children, group("neuronInfo", set("neuronDevices", []node{group("item", number("count", t.NeuronCount), text("name", t.NeuronName),
			group("memoryInfo", number("sizeInMiB", 524288)))})))
	}
	return n
}

func (s *Server) describeOfferings(r *request, reg *region) ([]node, error) {
	location, f := r.params.get("LocationType"), r.params.readFilters()
	var items []node
	for i := range s.options.Types {
		t := &s.options.Types[i]
		places := reg.zonesOf(t)
		if location == "region" && len(places) > 0 {
			places = []string{reg.name}
		}
		for _, place := range places {
			ok, err := f.matches(nil, map[string][]string{"instance-type": {t.Name}, "location": {place}})
			if err != nil {
				return nil, err
			}
			if ok {
				items = append(items, group("item", text("instanceType", t.Name), text("locationType", location), text("location", place)))
			}
		}
	}
	from, to, next, err := s.readPage(r.params, len(items))
	if err != nil {
		return nil, err
	}
	return page("instanceTypeOfferingSet", items[from:to], next), nil
}

// describeSpotPrices shows one price for each zone: each zone is a little dearer than the one before it.
func (s *Server) describeSpotPrices(r *request, reg *region) ([]node, error) {
	p := r.params
	names, products, zone, f := p.list("InstanceType"), p.list("ProductDescription"), p.get("AvailabilityZone"), p.readFilters()
	p.get("StartTime")
	p.get("EndTime")
	if len(products) > 0 && !slices.Contains(products, "Linux/UNIX") {
		return []node{set("spotPriceHistorySet", nil)}, nil
	}
	var items []node
	for i := range s.options.Types {
		t := &s.options.Types[i]
		for n, place := range reg.zonesOf(t) {
			if t.SpotPrice == 0 || len(names) > 0 && !slices.Contains(names, t.Name) || zone != "" && zone != place {
				continue
			}
			ok, err := f.matches(nil, map[string][]string{"instance-type": {t.Name}, "availability-zone": {place}, "product-description": {"Linux/UNIX"}})
			if err != nil {
				return nil, err
			}
			if ok {
				items = append(items, group("item", text("instanceType", t.Name), text("productDescription", "Linux/UNIX"), text("availabilityZone", place),
					text("spotPrice", strconv.FormatFloat(t.SpotPrice*(1+0.05*float64(n)), 'f', 6, 64)), moment("timestamp", s.now())))
			}
		}
	}
	from, to, next, err := s.cutPage(p.get("NextToken"), p.getInt("MaxResults", 0), len(items))
	if err != nil {
		return nil, err
	}
	// The real service answers with an empty token at the end, not without one.
	return []node{set("spotPriceHistorySet", items[from:to]), text("nextToken", next)}, nil
}
