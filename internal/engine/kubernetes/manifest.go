package kubernetes

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"dstack/internal/decide/node"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
)

// Times of the end of a pod.
const (
	// preStopTime is how long a process that someone else ends goes on serving, until gateways have left it out: it gets
	// SIGTERM before they know.
	preStopTime = 2 * time.Second
	// minOuterGrace is the least grace period of pods that someone else deletes: Kubernetes' own default.
	minOuterGrace = 30 * time.Second
)

// Times of probes. The kubelet probes as soon as the container has started, and then after each period.
const (
	startupPeriod   = 1 // seconds
	readinessPeriod = 5
	probeTimeout    = 1
	maxReadyAfter   = 100 // as in configurations
)

// place is where an attempt runs.
type place struct {
	installation dstack.Installation
	instance     dstack.InstanceID
	node         string // empty: any node
	initImage    string // see Options.InitImage
}

// manifest is what an attempt is made of. The Secret of its environment owns everything else, so that everything goes with it.
type manifest struct {
	env     *corev1.Secret
	pull    *corev1.Secret // the login for the image; nil: none
	devices *devicesClaim  // GPUs of drivers; nil: none
	pod     *corev1.Pod
	uploads uploads
}

// own makes everything belong to the Secret of the environment, as the API server has it.
func (m *manifest) own(env *corev1.Secret) {
	isController := true
	owners := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: env.Name, UID: env.UID, Controller: &isController}}
	m.pod.OwnerReferences = owners
	if m.pull != nil {
		m.pull.OwnerReferences = owners
	}
	if m.devices != nil {
		m.devices.OwnerReferences = owners
	}
}

// newManifest returns what an attempt is made of. The error is of kind Invalid or Unsupported: the attempt can never start.
func newManifest(p place, spec dstack.AttemptSpec) (*manifest, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	up, err := planUploads(spec, p.initImage)
	if err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{
		Name: podName(p.installation, spec), Labels: newLabels(p.installation, p.instance, spec), Annotations: newAnnotations(spec),
	}
	m := &manifest{uploads: up}
	m.env = &corev1.Secret{ObjectMeta: *meta.DeepCopy(), Type: corev1.SecretTypeOpaque, Data: newEnvironment(spec)}
	m.pod = &corev1.Pod{ObjectMeta: *meta.DeepCopy(), Spec: newPodSpec(p, spec)}
	main := newContainer(spec, m.env.Name)
	m.devices = newDevicesClaim(meta, spec.GPUs)
	m.devices.addTo(&m.pod.Spec, &main)
	if m.pull, err = newPullSecret(meta, spec); err != nil {
		return nil, err
	}
	if m.pull != nil {
		m.pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: m.pull.Name}}
	}
	addMounts(&m.pod.Spec, &main, spec)
	keepTogether(m.pod, p.node == "", spec.Mounts)
	up.addTo(m.pod, &main)
	m.pod.Spec.Containers = []corev1.Container{main}
	return m, nil
}

// checkSpec refuses what no pod can do.
func checkSpec(spec dstack.AttemptSpec) error {
	if spec.Port < 1 || spec.Port > math.MaxUint16 {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%d is not a port number", spec.Port), Hint: "choose a port from 1 to 65535"}
	}
	if _, err := reference.ParseNormalizedNamed(spec.Image); err != nil {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%q is not an image name: %v", spec.Image, err),
			Hint: "write it as registry/name:tag, with lower-case letters", Cause: err}
	}
	if err := engine.ValidateMounts(spec); err != nil {
		return err
	}
	for _, m := range spec.Mounts {
		if m.Kind == dstack.MountVolume {
			return &dstack.Error{Kind: dstack.Unsupported, Message: fmt.Sprintf("cannot mount the volume %q: it is kept by machines, and a cluster has claims", m.Source),
				Hint: "make it with type: volume and backend: kubernetes"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Env)) {
		if strings.ContainsRune(name+spec.Env[name], 0) {
			return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the environment variable %s has a zero byte, which no program can get", name)}
		}
	}
	if err := checkVisibleDevices(spec.Env); err != nil {
		return err
	}
	return engine.ValidateLaunch(spec)
}

// visibleDevices is the variable by which NVIDIA's container runtime chooses the GPUs of a container. It believes the pod rather than the
// device plugin, so that a pod with it would get GPUs that others hold.
const visibleDevices = "NVIDIA_VISIBLE_DEVICES"

// noDevices are the values of visibleDevices that give a container no GPU.
var noDevices = []string{"", "void", "none"}

// checkVisibleDevices refuses an environment that chooses GPUs of the node.
func checkVisibleDevices(env map[string]string) error {
	if value, ok := env[visibleDevices]; !ok || slices.Contains(noDevices, value) {
		return nil
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: "the environment variable " + visibleDevices + " would give the pod GPUs of its node that others hold",
		Hint: "remove it: `gpu` in resources asks for GPUs; CUDA_VISIBLE_DEVICES chooses among those of the replica"}
}

// newEnvironment returns the environment as the data of a Secret: the kubelet expands no $ in it.
func newEnvironment(spec dstack.AttemptSpec) map[string][]byte {
	data := map[string][]byte{"HOME": []byte("/root")}
	if len(spec.GPUs) == 0 { // an image may set it to all
		data[visibleDevices] = []byte("void")
	}
	for name, value := range spec.Env {
		data[name] = []byte(value)
	}
	return data
}

func newPodSpec(p place, spec dstack.AttemptSpec) corev1.PodSpec {
	no, root := false, int64(0)
	grace := int64((max(spec.DrainTimeout+spec.StopGracePeriod, minOuterGrace) + preStopTime).Seconds())
	return corev1.PodSpec{
		RestartPolicy:                 corev1.RestartPolicyNever,
		AutomountServiceAccountToken:  &no,
		EnableServiceLinks:            &no,
		TerminationGracePeriodSeconds: &grace,
		Affinity:                      newAffinity(p.node, spec.Nodes),
		Tolerations:                   newTolerations(spec.GPUs),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsUser: &root, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

// newAffinity limits a pod to a node, or to the nodes of a selector. The scheduler still checks everything else.
func newAffinity(nodeName string, nodes dstack.NodeSelector) *corev1.Affinity {
	var terms []corev1.NodeSelectorTerm
	if nodeName != "" {
		terms = append(terms, corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{nodeName}}}})
	} else {
		for _, term := range nodes {
			var t corev1.NodeSelectorTerm
			for _, r := range term {
				t.MatchExpressions = append(t.MatchExpressions, corev1.NodeSelectorRequirement{
					Key: r.Label, Operator: corev1.NodeSelectorOperator(r.Operator), Values: r.Values})
			}
			terms = append(terms, t)
		}
	}
	if len(terms) == 0 {
		return nil
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms}}}
}

// newTolerations lets pods stay on a node that is lost for a while: the server decides when a replica is placed elsewhere, by
// the same rule as for hosts, and a node that comes back finds its pods as they were. Clusters taint nodes with GPUs by the
// resource, to keep other pods away.
func newTolerations(gpus []dstack.GPU) []corev1.Toleration {
	all := []corev1.Toleration{
		{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
		{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	}
	for _, t := range node.Tolerations(len(gpus) > 0) {
		all = append(all, corev1.Toleration{Key: t.Key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffect(t.Effect)})
	}
	return all
}

// newContainer returns the container of an attempt's command.
func newContainer(spec dstack.AttemptSpec, envSecret string) corev1.Container {
	no := false
	c := corev1.Container{
		Name: mainContainer, Image: spec.Image, Command: escapeAll(newCommand(spec.Argv)),
		EnvFrom:                  []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: envSecret}}}},
		Ports:                    []corev1.ContainerPort{{ContainerPort: int32(spec.Port)}},
		Resources:                newResources(spec),
		Lifecycle:                &corev1.Lifecycle{PreStop: newPreStop(spec.Argv)},
		SecurityContext:          &corev1.SecurityContext{AllowPrivilegeEscalation: &no},
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}
	c.StartupProbe, c.ReadinessProbe = newProbes(spec)
	if spec.WorkingDir != "" {
		c.WorkingDir, _ = engine.ResolveContainerDir(spec) // planUploads has refused what is wrong
	}
	return c
}

// newProbes returns what kubectl shows as the readiness: a probe of the service, by its own rules, or whether the port accepts
// connections. Readiness alone would be found out up to a whole period late. Neither ever ends the container.
func newProbes(spec dstack.AttemptSpec) (startup, readiness *corev1.Probe) {
	port := intstr.FromInt32(int32(spec.Port)) // checkSpec
	startup = &corev1.Probe{PeriodSeconds: startupPeriod, TimeoutSeconds: probeTimeout, FailureThreshold: math.MaxInt32}
	readiness = &corev1.Probe{PeriodSeconds: readinessPeriod, TimeoutSeconds: probeTimeout, FailureThreshold: 3}
	startup.TCPSocket = &corev1.TCPSocketAction{Port: port}
	if p := spec.ReadyProbe; p != nil {
		startup.TCPSocket, startup.HTTPGet = nil, &corev1.HTTPGetAction{Path: p.URL, Port: port, Scheme: corev1.URISchemeHTTP}
		startup.TimeoutSeconds = clampSeconds(p.Timeout)
		readiness.PeriodSeconds, readiness.TimeoutSeconds = clampSeconds(p.Interval), clampSeconds(p.Timeout)
		readiness.FailureThreshold, readiness.SuccessThreshold = 1, int32(max(1, min(p.ReadyAfter, maxReadyAfter)))
	}
	readiness.ProbeHandler = startup.ProbeHandler
	return startup, readiness
}

// clampSeconds returns a duration as a probe of Kubernetes may have it.
func clampSeconds[T ~int64](seconds T) int32 { return int32(max(1, min(seconds, math.MaxInt32))) }

// newCommand returns the command of a container; empty: the image's own. The first process of a container ignores every
// signal that it has not asked for, and orphans are its children: for commands it is a shell that only waits. What it says itself about
// a process that a signal ended goes nowhere.
func newCommand(argv []string) []string {
	if !engine.IsShellCommand(argv) {
		return argv
	}
	return append([]string{"/bin/sh", "-c", `exec 3>&2 2>/dev/null; (exec "$@" 2>&3 3>&-); exit $?`, "sh"}, engine.BuildEntrypoint(argv)...)
}

// newPreStop returns what happens before a process gets SIGTERM. Of commands, the kubelet sends it to the first process alone,
// which waits for the others: so they get it from the hook.
func newPreStop(argv []string) *corev1.LifecycleHandler {
	seconds := int64(preStopTime.Seconds())
	if !engine.IsShellCommand(argv) {
		return &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: seconds}}
	}
	// The hook has ended before the signal: it would fail if the container ended first.
	script := fmt.Sprintf("sleep %d; (sleep 1; kill -TERM -1) >/dev/null 2>&1 &", seconds-1)
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", script}}}
}

// escapeAll doubles each $, which the kubelet would expand.
func escapeAll(texts []string) []string {
	var escaped []string
	for _, t := range texts {
		escaped = append(escaped, kubeclient.EscapeDollars(t))
	}
	return escaped
}

// newPullSecret returns the login for the image; nil: none.
func newPullSecret(meta metav1.ObjectMeta, spec dstack.AttemptSpec) (*corev1.Secret, error) {
	if spec.Auth == nil || spec.Auth.Username == "" && spec.Auth.Password == "" {
		return nil, nil
	}
	named, err := reference.ParseNormalizedNamed(spec.Image)
	if err != nil {
		return nil, err
	}
	registry := reference.Domain(named)
	if registry == "docker.io" {
		registry = "https://index.docker.io/v1/"
	}
	login := base64.StdEncoding.EncodeToString([]byte(spec.Auth.Username + ":" + spec.Auth.Password))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{
		registry: map[string]string{"username": spec.Auth.Username, "password": spec.Auth.Password, "auth": login}}})
	if err != nil {
		return nil, err
	}
	pull := &corev1.Secret{ObjectMeta: *meta.DeepCopy(), Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: config}}
	pull.Name += "-pull"
	return pull, nil
}
