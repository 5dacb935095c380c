package kubernetes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/decide/node"
	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
)

// maxNamedNodes is how many nodes the place of a volume names.
const maxNamedNodes = 3

// folderWarning is shown for a disk that is a folder of each node.
const folderWarning = "its disk is a folder of each node (hostPath), so nodes have different data"

// addReach says which nodes can mount the disk of a bound claim. Without the right to read disks, the scheduler alone knows.
func (l *claimLook) addReach(v *dstack.Volume, claim *corev1.PersistentVolumeClaim) error {
	disk, ok, err := l.findDisk(claim)
	if !ok || err != nil {
		return err
	}
	nodes, isComplete := l.nodes()
	if disk.Spec.NodeAffinity == nil || disk.Spec.NodeAffinity.Required == nil {
		if disk.Spec.HostPath != nil && len(nodes) > 1 {
			v.Warning = folderWarning
		}
		return nil
	}
	if !isComplete {
		return nil
	}
	selector := disk.Spec.NodeAffinity.Required
	v.Reach.IsLimited = true
	var names []string
	for _, n := range nodes {
		if matchesNode(selector, n) {
			v.Reach.Machines = append(v.Reach.Machines, node.InstanceID(l.key, n.UID))
			names = append(names, n.Name)
		}
	}
	v.Reach.Place = describeReach(selector, names)
	if id := l.anyNode(); id != "" {
		v.Reach.Machines = append(v.Reach.Machines, id)
	}
	return nil
}

// findDisk returns the persistent volume of a bound claim; ok is false if it may not be read.
func (l *claimLook) findDisk(claim *corev1.PersistentVolumeClaim) (disk corev1.PersistentVolume, ok bool, err error) {
	l.mu.Lock()
	disk, ok = l.disks[claim.UID]
	l.mu.Unlock()
	if ok {
		return disk, true, nil
	}
	found, err := kubeclient.Get(l.ctx, l.client, kubeclient.PersistentVolumes, claim.Spec.VolumeName)
	if meaning := kubeclient.MeaningOf(err); meaning == kubeclient.NoRight || meaning == kubeclient.NotFound {
		return disk, false, nil // a disk that was deleted just now turns its claim Lost
	}
	if err != nil {
		return disk, false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.disks == nil {
		l.disks = map[types.UID]corev1.PersistentVolume{}
	}
	l.disks[claim.UID] = *found
	return *found, true, nil
}

// matchesNode reports whether a node suits one of the terms of a selector.
func matchesNode(selector *corev1.NodeSelector, n node.Facts) bool {
	return slices.ContainsFunc(selector.NodeSelectorTerms, func(term corev1.NodeSelectorTerm) bool {
		if len(term.MatchExpressions)+len(term.MatchFields) == 0 {
			return false // an empty term matches nothing
		}
		for _, r := range term.MatchExpressions {
			value, has := n.Labels[r.Key]
			if !matchesRequirement(r, value, has) {
				return false
			}
		}
		for _, r := range term.MatchFields { // metadata.name is the only field
			if !matchesRequirement(r, n.Name, true) {
				return false
			}
		}
		return true
	})
}

// matchesRequirement reports whether the value of a label, or its absence, meets a requirement.
func matchesRequirement(r corev1.NodeSelectorRequirement, value string, has bool) bool {
	switch r.Operator {
	case corev1.NodeSelectorOpIn:
		return has && slices.Contains(r.Values, value)
	case corev1.NodeSelectorOpNotIn:
		return !has || !slices.Contains(r.Values, value)
	case corev1.NodeSelectorOpExists:
		return has
	case corev1.NodeSelectorOpDoesNotExist:
		return !has
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if !has || len(r.Values) != 1 {
			return false
		}
		number, err := strconv.ParseInt(value, 10, 64)
		bound, boundErr := strconv.ParseInt(r.Values[0], 10, 64)
		if err != nil || boundErr != nil {
			return false
		}
		return r.Operator == corev1.NodeSelectorOpGt && number > bound || r.Operator == corev1.NodeSelectorOpLt && number < bound
	}
	return false
}

// describeReach names the zones of a selector if it selects by nothing else, and otherwise nodes.
func describeReach(selector *corev1.NodeSelector, names []string) string {
	var zones []string
	for _, term := range selector.NodeSelectorTerms {
		for _, r := range term.MatchExpressions {
			if r.Operator != corev1.NodeSelectorOpIn || r.Key != corev1.LabelTopologyZone && r.Key != corev1.LabelTopologyRegion {
				return describeNodes(names)
			}
			if r.Key == corev1.LabelTopologyZone {
				zones = append(zones, r.Values...)
			}
		}
		if len(term.MatchFields) > 0 {
			return describeNodes(names)
		}
	}
	if len(zones) == 0 || len(names) == 0 {
		return describeNodes(names)
	}
	slices.Sort(zones)
	return "nodes of the zone " + strings.Join(slices.Compact(zones), " or ")
}

func describeNodes(names []string) string {
	if more := len(names) - maxNamedNodes; more > 0 {
		return fmt.Sprintf("%s and %d more nodes", strings.Join(names[:maxNamedNodes], ", "), more)
	}
	return strings.Join(names, ", ")
}
