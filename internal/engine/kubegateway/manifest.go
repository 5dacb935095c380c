package kubegateway

import (
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// Labels and annotations of the objects of gateways. They have none of replicas, so that nothing takes them for those.
const (
	labelInstallation = "dstack.ai/gateway-installation"
	labelID           = "dstack.ai/gateway-id"
	labelName         = "dstack.ai/gateway"
	annotationApplied = "dstack.ai/gateway-applied" // the digest of the launch
	annotationParent  = "dstack.ai/gateway-parent"  // the Gateway that leads to it
	annotationProject = "dstack.ai/project"
)

// What a pod listens on, and where its files are.
const (
	httpPort    = 80
	httpsPort   = 443
	tokenFolder = "/token"
	// clusterFolder has the authority of the cluster, where the kubelet puts it in pods with a service account: see netplace.
	clusterFolder = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenKey      = "join-token"
	user          = 65532 // of the image
)

// Times of a pod's end, in seconds. The process drains for five minutes at most.
const (
	preStopSeconds = 10 // in which balancers and nodes learn that the pod ends
	graceSeconds   = preStopSeconds + 5*60 + 20
)

// manifest makes the objects of a gateway.
type manifest struct {
	installation dstack.Installation
	launch       engine.ClusterGatewayLaunch
}

func selectGateway(installation dstack.Installation, id dstack.GatewayID) string {
	return labelInstallation + "=" + string(installation) + "," + labelID + "=" + string(id)
}

// name returns the name of all objects of the gateway: at most 60 letters, digits and dashes.
func (m manifest) name() string {
	id := strings.ReplaceAll(string(m.launch.ID), "-", "")
	return "dstack-gw-" + m.launch.Gateway[:min(41, len(m.launch.Gateway))] + "-" + id[:min(8, len(id))]
}

func (m manifest) selector() map[string]string {
	return map[string]string{labelInstallation: string(m.installation), labelID: string(m.launch.ID)}
}

func (m manifest) metadata() metav1.ObjectMeta {
	labels := m.selector()
	labels[labelName] = m.launch.Gateway
	labels["app.kubernetes.io/name"], labels["app.kubernetes.io/managed-by"] = "dstack-gateway", "dstack"
	return metav1.ObjectMeta{Name: m.name(), Labels: labels, Annotations: map[string]string{annotationProject: m.launch.Project}}
}

// secret returns the token by which pods join. It is not in their environment, which everybody who may list pods sees.
func (m manifest) secret(token string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: m.metadata(), Type: corev1.SecretTypeOpaque, Data: map[string][]byte{tokenKey: []byte(token)}}
}

func (m manifest) service() *corev1.Service {
	s := &corev1.Service{ObjectMeta: m.metadata()}
	s.Spec.Selector = m.selector()
	if m.launch.HasTLS {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "https", Protocol: corev1.ProtocolTCP, Port: httpsPort, TargetPort: intstr.FromString("https")})
	}
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "http", Protocol: corev1.ProtocolTCP, Port: httpPort, TargetPort: intstr.FromString("http")})
	switch {
	case m.launch.ParentRef != "" || !m.launch.IsPublic:
		s.Spec.Type = corev1.ServiceTypeClusterIP
	case m.launch.UsesNodePorts:
		s.Spec.Type, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyCluster
	default:
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal // keeps the addresses of clients
	}
	return s
}

// budget lets one pod at a time be evicted, also one that is not ready.
func (m manifest) budget() *policyv1.PodDisruptionBudget {
	one, always := intstr.FromInt32(1), policyv1.AlwaysAllow
	return &policyv1.PodDisruptionBudget{ObjectMeta: m.metadata(), Spec: policyv1.PodDisruptionBudgetSpec{
		MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: m.selector()}, UnhealthyPodEvictionPolicy: &always}}
}

func (m manifest) deployment() *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: m.metadata()}
	d.Annotations[annotationApplied] = m.launch.Digest
	if m.launch.ParentRef != "" {
		d.Annotations[annotationParent] = m.launch.ParentRef
	}
	none, one := intstr.FromInt32(0), intstr.FromInt32(1)
	d.Spec = appsv1.DeploymentSpec{
		Replicas: new(int32(m.launch.Replicas)), RevisionHistoryLimit: new(int32(1)), //nolint:gosec // at most 9
		Selector: &metav1.LabelSelector{MatchLabels: m.selector()},
		Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none, MaxSurge: &one}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: m.metadata().Labels}, Spec: m.podSpec()},
	}
	return d
}

// podSpec returns a pod that the restricted Pod Security standard admits. It has no token of the cluster's API.
func (m manifest) podSpec() corev1.PodSpec {
	spec := corev1.PodSpec{
		AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false), TerminationGracePeriodSeconds: new(int64(graceSeconds)),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: new(int64(user)), RunAsGroup: new(int64(user)), FSGroup: new(int64(user)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			Sysctls:        []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}, // for ports 80 and 443
		},
		TopologySpreadConstraints: m.spread(),
		Tolerations:               tolerateLostNode(),
		Containers:                []corev1.Container{m.container()},
		Volumes: []corev1.Volume{
			{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(1<<30, resource.BinarySI)}}},
			{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(64<<20, resource.BinarySI)}}},
			// Without the token of the service account: it tells only in which cluster the process is.
			{Name: "cluster", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Optional: new(true)}}},
			{Name: "token", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: m.name(), DefaultMode: new(int32(0o440))}}},
		},
	}
	if m.launch.PullSecret != "" {
		spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: m.launch.PullSecret}}
	}
	return spec
}

// spread keeps the pods of one rollout on different nodes and in different zones, if there are several.
func (m manifest) spread() []corev1.TopologySpreadConstraint {
	constraint := func(key string) corev1.TopologySpreadConstraint {
		return corev1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: m.selector()}, MatchLabelKeys: []string{"pod-template-hash"}}
	}
	return []corev1.TopologySpreadConstraint{constraint("kubernetes.io/hostname"), constraint("topology.kubernetes.io/zone")}
}

const lostNodeSeconds = 30 // after which pods of a lost node are replaced; the default is 300

func tolerateLostNode() []corev1.Toleration {
	var all []corev1.Toleration
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		all = append(all, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(lostNodeSeconds))})
	}
	return all
}

func (m manifest) container() corev1.Container {
	return corev1.Container{
		Name: "gateway", Image: m.launch.Image, Args: []string{"gateway", "serve"}, Env: m.env(), TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		Ports: []corev1.ContainerPort{
			{Name: "https", ContainerPort: httpsPort, Protocol: corev1.ProtocolTCP},
			{Name: "http", ContainerPort: httpPort, Protocol: corev1.ProtocolTCP},
		},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: *resource.NewQuantity(128<<20, resource.BinarySI)},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(1<<30, resource.BinarySI)},
		},
		SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
		// The port is open once the process has the routes, and closes when it drains.
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("http")}},
			PeriodSeconds: 1, FailureThreshold: 3, TimeoutSeconds: 1},
		Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: preStopSeconds}}},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "state", MountPath: engine.GatewayStateFolder}, {Name: "tmp", MountPath: "/tmp"}, {Name: "token", MountPath: tokenFolder, ReadOnly: true},
			{Name: "cluster", MountPath: clusterFolder, ReadOnly: true},
		},
	}
}

func (m manifest) env() []corev1.EnvVar {
	env := map[string]string{
		"HOME": engine.GatewayStateFolder, "DSTACK_GATEWAY_DIR": engine.GatewayStateFolder + "/gateway",
		"DSTACK_GATEWAY_TOKEN_FILE": tokenFolder + "/" + tokenKey,
	}
	maps.Copy(env, m.launch.Env)
	all := make([]corev1.EnvVar, 0, len(env)+1)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		all = append(all, corev1.EnvVar{Name: name, Value: strings.ReplaceAll(env[name], "$", "$$")})
	}
	return append(all, corev1.EnvVar{Name: "DSTACK_GATEWAY_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}})
}

// route returns the HTTPRoute by which a Gateway of the Gateway API leads the domain to the service.
func (m manifest) route() *unstructured.Unstructured {
	namespace, name, _ := strings.Cut(m.launch.ParentRef, "/")
	meta := m.metadata()
	route := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
		"spec": map[string]any{
			"parentRefs": []any{map[string]any{"namespace": namespace, "name": name}},
			"hostnames":  []any{"*." + m.launch.Domain}, // without any, the route would take every name of the Gateway
			"rules":      []any{map[string]any{"backendRefs": []any{map[string]any{"name": m.name(), "port": int64(httpPort)}}}},
		},
	}}
	route.SetName(meta.Name)
	route.SetLabels(meta.Labels)
	route.SetAnnotations(meta.Annotations)
	return route
}
