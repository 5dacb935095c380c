package kubernetes

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"dstack/internal/decide/node"
	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
)

// newResources returns the requests and limits of an attempt: what its replica holds is requested, and limits are those of
// the configuration. Shared memory counts in the memory of the container that writes it.
func newResources(spec dstack.AttemptSpec) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	cpus, memory := spec.Claim.CPUs, spec.Claim.MemoryMiB<<20
	if spec.CPUs > 0 {
		r.Limits[corev1.ResourceCPU] = kubeclient.Count(spec.CPUs)
		cpus = min(cpus, spec.CPUs)
	}
	if limit := spec.MemoryMiB << 20; limit > 0 {
		r.Limits[corev1.ResourceMemory] = kubeclient.Bytes(limit + spec.ShmBytes)
		memory = min(memory, limit)
	}
	if cpus > 0 {
		r.Requests[corev1.ResourceCPU] = kubeclient.Count(cpus)
	}
	if memory > 0 {
		r.Requests[corev1.ResourceMemory] = kubeclient.Bytes(memory + spec.ShmBytes)
	}
	if spec.Claim.DiskMiB > 0 {
		r.Requests[corev1.ResourceEphemeralStorage] = kubeclient.MiB(spec.Claim.DiskMiB)
	}
	byResource, _ := node.CountGPUs(spec.GPUs)
	for name, count := range byResource { // a limit is a request, and the only way to ask for these
		r.Limits[corev1.ResourceName(name)] = kubeclient.Count(count)
	}
	return r
}

// devicesClaim is a claim for GPUs that drivers offer through device classes.
type devicesClaim struct{ resourcev1.ResourceClaim }

// newDevicesClaim returns the claim for the GPUs of device classes; nil: there are none.
func newDevicesClaim(meta metav1.ObjectMeta, gpus []dstack.GPU) *devicesClaim {
	_, byClass := node.CountGPUs(gpus)
	if len(byClass) == 0 {
		return nil
	}
	claim := &devicesClaim{resourcev1.ResourceClaim{ObjectMeta: *meta.DeepCopy()}}
	claim.Name += "-gpus"
	for i, class := range slices.Sorted(maps.Keys(byClass)) {
		claim.Spec.Devices.Requests = append(claim.Spec.Devices.Requests, resourcev1.DeviceRequest{
			Name: fmt.Sprintf("gpus-%d", i),
			Exactly: &resourcev1.ExactDeviceRequest{
				DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: int64(byClass[class]),
			},
		})
	}
	return claim
}

// addTo gives the devices to a container.
func (d *devicesClaim) addTo(pod *corev1.PodSpec, main *corev1.Container) {
	if d == nil {
		return
	}
	pod.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpus", ResourceClaimName: &d.Name}}
	main.Resources.Claims = []corev1.ResourceClaim{{Name: "gpus"}}
}

// addMounts adds the shared memory, the claims and the folders of the node that an attempt sees.
func addMounts(pod *corev1.PodSpec, main *corev1.Container, spec dstack.AttemptSpec) {
	add := func(name string, source corev1.VolumeSource, target string, readOnly bool) {
		pod.Volumes = append(pod.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: target, ReadOnly: readOnly})
	}
	if spec.ShmBytes > 0 {
		size := kubeclient.Bytes(spec.ShmBytes)
		add("shm", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}}, "/dev/shm", false)
	}
	for i, m := range spec.Mounts {
		name := fmt.Sprintf("mount-%d", i)
		switch m.Kind {
		case dstack.MountClaim:
			add(name, corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: m.Source, ReadOnly: m.ReadOnly}},
				m.Target, m.ReadOnly)
		case dstack.MountHostPath:
			kind := corev1.HostPathDirectory
			if m.Optional { // nothing tells before whether it exists
				kind = corev1.HostPathDirectoryOrCreate
			}
			add(name, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: m.Source, Type: &kind}}, m.Target, m.ReadOnly)
		case dstack.MountVolume: // checkSpec has refused it
		}
	}
}

// keepTogether labels a pod by its claims that only one node can mount at a time. Where the scheduler chooses the node, it gets the one
// that has the other pods of the claim; the first pod gets any.
func keepTogether(pod *corev1.Pod, isAny bool, mounts []dstack.Mount) {
	var terms []corev1.PodAffinityTerm
	for _, m := range mounts {
		if m.Kind != dstack.MountClaim || !m.OneNode {
			continue
		}
		label := claimLabelPrefix + kubeclient.HashLabel(m.Source)
		pod.Labels[label] = ""
		terms = append(terms, corev1.PodAffinityTerm{
			TopologyKey:   corev1.LabelHostname,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{label: ""}},
		})
	}
	if !isAny || len(terms) == 0 {
		return
	}
	if pod.Spec.Affinity == nil {
		pod.Spec.Affinity = &corev1.Affinity{}
	}
	pod.Spec.Affinity.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}
}
