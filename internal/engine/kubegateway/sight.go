package kubegateway

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"dstack/internal/dstack"
)

// sight is the objects of a gateway as the API server has them.
type sight struct {
	deployment *appsv1.Deployment // nil: there is none
	service    *corev1.Service    // nil: there is none
	pods       []*corev1.Pod
	hasToken   bool
	route      routeSight
}

// routeSight is the route of a Gateway.
type routeSight struct {
	parent  string // NAMESPACE/NAME; empty: none is asked for
	isThere bool
	object  map[string]any
}

func (s sight) describe() dstack.ClusterGateway {
	found := dstack.ClusterGateway{Exists: s.deployment != nil || s.service != nil || len(s.pods) > 0}
	if d := s.deployment; d != nil {
		found.Wanted = 1
		if d.Spec.Replicas != nil {
			found.Wanted = int(*d.Spec.Replicas)
		}
		if d.Status.ObservedGeneration >= d.Generation { // otherwise the status is that of an earlier launch
			found.Updated, found.Ready = int(d.Status.UpdatedReplicas), int(d.Status.AvailableReplicas)
			found.Problem = describeDeployment(d)
		}
		if s.service != nil && s.hasToken && (s.route.parent == "" || s.route.isThere) && d.DeletionTimestamp == nil {
			found.Applied = d.Annotations[annotationApplied]
		}
	}
	for _, pod := range s.pods {
		found.Pods = append(found.Pods, describePod(pod))
		if address := pod.Status.HostIP; address != "" && !slices.Contains(found.NodeAddresses, address) {
			found.NodeAddresses = append(found.NodeAddresses, address)
		}
	}
	s.describeService(&found)
	found.RouteProblem = s.route.describe()
	return found
}

func (s sight) describeService(found *dstack.ClusterGateway) {
	if s.service == nil {
		return
	}
	found.HasBalancer = s.service.Spec.Type == corev1.ServiceTypeLoadBalancer
	found.ServiceSince = s.service.CreationTimestamp.Time
	if found.HasBalancer {
		for _, ingress := range s.service.Status.LoadBalancer.Ingress {
			if address := ingress.IP + ingress.Hostname; address != "" {
				found.Addresses = append(found.Addresses, address)
			}
		}
	}
	for _, port := range s.service.Spec.Ports {
		switch port.Name {
		case "https":
			found.HTTPSNodePort = int(port.NodePort)
		case "http":
			found.HTTPNodePort = int(port.NodePort)
		}
	}
}

// describeDeployment returns why the pods of a deployment are not made; empty: they are.
func describeDeployment(d *appsv1.Deployment) string {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return c.Message
		}
	}
	return ""
}

func describePod(pod *corev1.Pod) dstack.ClusterGatewayPod {
	described := dstack.ClusterGatewayPod{Name: pod.Name}
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Type == corev1.PodReady:
			described.IsReady = c.Status == corev1.ConditionTrue
		case c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse:
			described.Message = "waits for a node: " + c.Message
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if text := describeContainer(c); text != "" {
			described.Message = text
		}
	}
	if pod.DeletionTimestamp != nil {
		described.IsReady, described.Message = false, "finishes its requests"
	}
	return described
}

// describeContainer returns why a container does not run; empty: it does, or is being started. The API server tells the last
// lines of its output.
func describeContainer(c corev1.ContainerStatus) string {
	ended := c.State.Terminated
	if ended == nil && c.RestartCount > 0 && !c.Ready {
		ended = c.LastTerminationState.Terminated
	}
	switch waiting := c.State.Waiting; {
	case ended != nil:
		return strings.TrimSuffix(fmt.Sprintf("its process ended with exit code %d: %s", ended.ExitCode, findLastWords(ended.Message)), ": ")
	case waiting != nil && waiting.Reason != "ContainerCreating" && waiting.Reason != "PodInitializing":
		return strings.TrimSuffix(waiting.Reason+": "+waiting.Message, ": ")
	}
	return ""
}

const errorMark = "error: " // begins the line with which the program says why it ends

// findLastWords returns the line with which the program said why it ended, or else the last line.
func findLastWords(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for _, line := range slices.Backward(lines) {
		if reason, ok := strings.CutPrefix(line, errorMark); ok {
			return reason
		}
	}
	return lines[len(lines)-1]
}

// describe returns why the Gateway does not lead to the service; empty: it does.
func (r routeSight) describe() string {
	switch {
	case r.parent == "":
		return ""
	case !r.isThere:
		return "the HTTPRoute for the Gateway " + r.parent + " does not exist"
	}
	parents, _, _ := unstructured.NestedSlice(r.object, "status", "parents") // absent or malformed: nobody has looked at it
	for _, p := range parents {
		parent, _ := p.(map[string]any)
		conditions, _, _ := unstructured.NestedSlice(parent, "conditions")
		for _, c := range conditions {
			condition, _ := c.(map[string]any)
			if condition["status"] != "True" {
				return fmt.Sprintf("the Gateway %s does not lead to it: %v: %v", r.parent, condition["reason"], condition["message"])
			}
		}
	}
	if len(parents) == 0 {
		return "no controller has taken up the HTTPRoute for the Gateway " + r.parent + ": see kubectl get gateways.gateway.networking.k8s.io -A"
	}
	return ""
}
