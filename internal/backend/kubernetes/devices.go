package kubernetes

import (
	"context"
	"slices"
	"strconv"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"

	"dstack/internal/decide/node"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// allDeviceClaims are the claims for devices of all namespaces.
var allDeviceClaims = kubeclient.Resource[resourcev1.ResourceClaim]{
	Group: "resource.k8s.io", Version: "v1", Plural: "resourceclaims", Kind: "ResourceClaim", Word: "device claim", IsClusterWide: true,
}

// devices follows what drivers for dynamic resource allocation publish and what is allocated of it.
type devices struct {
	published *kubeclient.Mirror[resourcev1.ResourceSlice]
	classes   *kubeclient.Mirror[resourcev1.DeviceClass]
	claims    *kubeclient.Mirror[resourcev1.ResourceClaim]
}

func newDevices(client *kubeclient.Client) devices {
	return devices{
		published: kubeclient.NewMirror(client, kubeclient.ResourceSlices, kubeclient.MirrorOptions{}),
		classes:   kubeclient.NewMirror(client, kubeclient.DeviceClasses, kubeclient.MirrorOptions{}),
		claims:    kubeclient.NewMirror(client, allDeviceClaims, kubeclient.MirrorOptions{}),
	}
}

// tasks returns what follows the devices. Classes and claims are not asked for before a driver publishes GPUs.
func (d devices) tasks() []loop.Task {
	return append(d.published.Tasks(), loop.Task{Name: "classes and claims of devices", Run: func(ctx context.Context) error {
		for {
			next := d.published.Changed()
			if slices.ContainsFunc(d.published.List(), func(s *resourcev1.ResourceSlice) bool { return gpuDrivers[s.Spec.Driver] }) {
				return loop.Run(ctx, append(d.classes.Tasks(), d.claims.Tasks()...)...)
			}
			select {
			case <-next:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}})
}

// gpuDrivers are the drivers for dynamic resource allocation whose devices are GPUs. By convention, each has a class of its own name.
var gpuDrivers = map[string]bool{"gpu.nvidia.com": true, "gpu.amd.com": true, "gpu.intel.com": true}

// deviceKey identifies a device in the results of an allocation.
type deviceKey struct{ driver, pool, device string }

// readDevices returns the whole GPUs that drivers publish, by node, of those classes that the cluster has. A pool may have slices of earlier
// generations, which count no more.
func readDevices(published []*resourcev1.ResourceSlice, classes []*resourcev1.DeviceClass, taken map[deviceKey]bool) map[string][]node.Device {
	hasClass := map[string]bool{}
	for _, c := range classes {
		hasClass[c.Name] = true
	}
	newest := map[[2]string]int64{}
	for _, s := range published {
		pool := [2]string{s.Spec.Driver, s.Spec.Pool.Name}
		newest[pool] = max(newest[pool], s.Spec.Pool.Generation)
	}
	byNode := map[string][]node.Device{}
	for _, s := range published {
		driver, pool := s.Spec.Driver, s.Spec.Pool
		if !gpuDrivers[driver] || !hasClass[driver] || s.Spec.NodeName == nil || pool.Generation < newest[[2]string{driver, pool.Name}] {
			continue
		}
		for _, d := range s.Spec.Devices {
			if device, ok := readDevice(driver, pool.Name, d); ok {
				device.IsTaken = taken[deviceKey{driver, pool.Name, d.Name}]
				byNode[*s.Spec.NodeName] = append(byNode[*s.Spec.NodeName], device)
			}
		}
	}
	return byNode
}

// readDevice reads what a driver says about a device. Parts of a card and devices that are tainted are left out.
func readDevice(driver, pool string, d resourcev1.Device) (node.Device, bool) {
	text := func(name string) string {
		for _, key := range []resourcev1.QualifiedName{resourcev1.QualifiedName(name), resourcev1.QualifiedName(driver + "/" + name)} {
			if a, ok := d.Attributes[key]; ok && a.StringValue != nil {
				return *a.StringValue
			} else if ok && a.VersionValue != nil {
				return *a.VersionValue
			}
		}
		return ""
	}
	if kind := text("type"); kind != "" && kind != "gpu" && !strings.HasPrefix(kind, "amdgpu") || len(d.Taints) > 0 {
		return node.Device{}, false
	}
	device := node.Device{Class: driver, Name: pool + "/" + d.Name, Product: text("productName")}
	if device.Product == "" {
		device.Product = text("model") // Intel's
	}
	for _, key := range []resourcev1.QualifiedName{"memory", resourcev1.QualifiedName(driver + "/memory")} {
		if c, ok := d.Capacity[key]; ok {
			device.MemoryMiB = readQuantity(c.Value, 0) >> 20
		}
	}
	major, minor, _ := strings.Cut(text("cudaComputeCapability"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	device.Capability[0], _ = strconv.Atoi(major)
	device.Capability[1], _ = strconv.Atoi(minor)
	return device, true
}

// readTakenDevices returns the devices that claims hold which are not those of replicas of this installation.
func readTakenDevices(claims []*resourcev1.ResourceClaim, isOurs func(labels map[string]string) bool) map[deviceKey]bool {
	taken := map[deviceKey]bool{}
	for _, c := range claims {
		if c.Status.Allocation == nil || isOurs(c.Labels) {
			continue
		}
		for _, r := range c.Status.Allocation.Devices.Results {
			taken[deviceKey{r.Driver, r.Pool, r.Device}] = true
		}
	}
	return taken
}
