package kubernetes

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func newTestSpec(change ...func(*dstack.AttemptSpec)) dstack.AttemptSpec {
	spec := dstack.AttemptSpec{
		Attempt: "3ad7c9f3-0c0e-4e43-9e6c-9f6b34fba3b0", AttemptNum: 2, Replica: "r", ReplicaNum: 1, Run: "llama", Project: "main",
		Image: "registry:5000/llama:1", Argv: []string{"/bin/sh", "-i", "-c", "echo $HOME $$"}, WorkingDir: "app", Port: 8000,
		Env: map[string]string{"A": "$(B) $$"}, StopGracePeriod: 10 * time.Second,
	}
	for _, f := range change {
		f(&spec)
	}
	return spec
}

func mustManifest(t *testing.T, p place, spec dstack.AttemptSpec) *manifest {
	t.Helper()
	m, err := newManifest(p, spec)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var here = place{installation: "here", instance: "i1", node: "gpu-1"}

// Rules 26 and 13: names and labels of at most 63 characters, and the texts themselves in annotations.
func TestManifest_Names(t *testing.T) {
	long := strings.Repeat("a-very-long-name-", 10)
	m := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) { s.Run, s.Project = long, "Team/x" }))
	if len(m.pod.Name) > 63 || !strings.HasPrefix(m.pod.Name, "a-very-long-name-") {
		t.Errorf("the name is %q", m.pod.Name)
	}
	for name, value := range m.pod.Labels {
		if len(value) > 63 {
			t.Errorf("the label %s is %q", name, value)
		}
	}
	if m.pod.Annotations[AnnotationRun] != long || m.pod.Annotations[AnnotationProject] != "Team/x" {
		t.Errorf("the annotations are %v", m.pod.Annotations)
	}
	plain := mustManifest(t, here, newTestSpec())
	if !strings.HasPrefix(plain.pod.Name, "llama-1-2-") || plain.env.Name != plain.pod.Name {
		t.Errorf("the names are %q, %q", plain.pod.Name, plain.env.Name)
	}
	elsewhere := mustManifest(t, place{installation: "there", instance: "i1"}, newTestSpec())
	if elsewhere.pod.Name == plain.pod.Name || elsewhere.pod.Labels[LabelInstallation] == plain.pod.Labels[LabelInstallation] {
		t.Error("two installations use the same names")
	}
}

// No name that a user chooses makes a pod one of another application of the namespace, whose Services would send requests to it.
func TestManifest_LabelsOfOthers(t *testing.T) {
	m := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) { s.Run = "redis" }))
	for name, value := range m.pod.Labels {
		if value == "redis" && !strings.HasPrefix(name, "dstack.ai/") {
			t.Errorf("the label %s is the name of the run", name)
		}
	}
}

// Rule 28: $ arrives as it was written, in commands by doubling and in the environment because Secrets are not expanded.
func TestManifest_Dollars(t *testing.T) {
	m := mustManifest(t, here, newTestSpec())
	main := m.pod.Spec.Containers[0]
	if last := main.Command[len(main.Command)-1]; !strings.Contains(last, "echo $$HOME $$$$") {
		t.Errorf("the command is %q", main.Command)
	}
	if len(main.Env) > 0 || string(m.env.Data["A"]) != "$(B) $$" || main.EnvFrom[0].SecretRef.Name != m.env.Name {
		t.Errorf("the environment is %v, %v", main.Env, m.env.Data)
	}
	text, _ := json.Marshal(m.pod)
	if strings.Contains(string(text), "$(B)") {
		t.Error("the pod shows the environment")
	}
}

// Rules 10 to 12: a hook before SIGTERM that is shorter than the grace period, which is never zero.
func TestManifest_GracePeriod(t *testing.T) {
	for name, argv := range map[string][]string{"commands": {"/bin/sh", "-i", "-c", "x"}, "entrypoint": {"server", "--port"}, "image's own": nil} {
		m := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) { s.Argv, s.StopGracePeriod = argv, 0 }))
		grace, hook := *m.pod.Spec.TerminationGracePeriodSeconds, m.pod.Spec.Containers[0].Lifecycle.PreStop
		if grace <= int64(preStopTime.Seconds()) {
			t.Errorf("%s: the grace period is %d s", name, grace)
		}
		if isShell := name == "commands"; isShell != (hook.Exec != nil) || isShell == (hook.Sleep != nil) {
			t.Errorf("%s: the hook is %+v", name, hook)
		}
	}
	for drain, want := range map[time.Duration]int64{0: 32, 5 * time.Second: 32, 30 * time.Second: 42, 5 * time.Minute: 312} {
		m := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) { s.StopGracePeriod, s.DrainTimeout = 10*time.Second, drain }))
		if got := *m.pod.Spec.TerminationGracePeriodSeconds; got != want {
			t.Errorf("with %s to drain, the grace period is %d s, not %d", drain, got, want)
		}
	}
}

// Rule 15: the kubelet probes each second until the port opens, and never ends a container.
func TestManifest_Probes(t *testing.T) {
	main := mustManifest(t, here, newTestSpec()).pod.Spec.Containers[0]
	if p := main.StartupProbe; p.PeriodSeconds != 1 || p.FailureThreshold < 1<<30 || p.TCPSocket.Port.IntValue() != 8000 {
		t.Errorf("the startup probe is %+v", p)
	}
	if main.ReadinessProbe == nil || main.LivenessProbe != nil {
		t.Errorf("the probes are %+v, %+v", main.ReadinessProbe, main.LivenessProbe)
	}
}

// kubectl shows what the service's own probe says, by its rules: one failure takes a replica out.
func TestManifest_OwnProbe(t *testing.T) {
	own := spec.Probe{Method: "get", URL: "/health?deep=1", Interval: 20, Timeout: 4, ReadyAfter: 3}
	main := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) { s.ReadyProbe = &own })).pod.Spec.Containers[0]
	if p := main.ReadinessProbe; p.HTTPGet.Path != "/health?deep=1" || p.HTTPGet.Port.IntValue() != 8000 || p.TCPSocket != nil ||
		p.PeriodSeconds != 20 || p.TimeoutSeconds != 4 || p.SuccessThreshold != 3 || p.FailureThreshold != 1 {
		t.Errorf("the readiness probe is %+v", p)
	}
	if p := main.StartupProbe; p.HTTPGet == nil || p.TCPSocket != nil || p.PeriodSeconds != 1 || p.SuccessThreshold > 1 || p.FailureThreshold < 1<<30 {
		t.Errorf("the startup probe is %+v", p)
	}
	own = spec.Probe{Method: "get", URL: "/", Interval: 1 << 40, ReadyAfter: 0}
	huge := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) { s.ReadyProbe = &own })).pod.Spec.Containers[0].ReadinessProbe
	if huge.PeriodSeconds < 1 || huge.TimeoutSeconds != 1 || huge.SuccessThreshold != 1 {
		t.Errorf("the readiness probe is %+v", huge)
	}
}

// Rules 8, 20 and 27: shared memory counts in the memory, GPUs are limits, sizes are whole bytes.
func TestManifest_Resources(t *testing.T) {
	m := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) {
		s.ShmBytes, s.CPUs, s.MemoryMiB = 1<<30, 4, 2048
		s.Claim = dstack.Claim{CPUs: 2, MemoryMiB: 1024, DiskMiB: 10}
		s.GPUs = []dstack.GPU{{ID: "nvidia.com/gpu#0"}, {ID: "nvidia.com/gpu#3"}}
	}))
	r := m.pod.Spec.Containers[0].Resources
	for name, want := range map[string]string{
		"requests cpu": "2", "requests memory": "2147483648", "requests ephemeral-storage": "10485760",
		"limits cpu": "4", "limits memory": "3221225472", "limits nvidia.com/gpu": "2",
	} {
		kind, resource, _ := strings.Cut(name, " ")
		list := map[string]corev1.ResourceList{"requests": r.Requests, "limits": r.Limits}[kind]
		got := list[corev1.ResourceName(resource)]
		if got.AsDec().String() != want {
			t.Errorf("%s is %s, not %s", name, got.String(), want)
		}
	}
	if shm := m.pod.Spec.Volumes[0].EmptyDir; shm.Medium != corev1.StorageMediumMemory || shm.SizeLimit.Value() != 1<<30 {
		t.Errorf("the shared memory is %+v", shm)
	}
	if len(m.env.Data["NVIDIA_VISIBLE_DEVICES"]) > 0 {
		t.Error("the device plugin sets the visible devices, and not the environment")
	}
	none := mustManifest(t, here, newTestSpec())
	if len(none.pod.Spec.Containers[0].Resources.Limits) > 0 || string(none.env.Data["NVIDIA_VISIBLE_DEVICES"]) != "void" {
		t.Errorf("without GPUs: %+v, %s", none.pod.Spec.Containers[0].Resources, none.env.Data["NVIDIA_VISIBLE_DEVICES"])
	}
}

// GPUs of drivers are requested by a claim for their class.
func TestManifest_DeviceClasses(t *testing.T) {
	m := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) {
		s.GPUs = []dstack.GPU{{ID: "class:gpu.example.test#a"}, {ID: "class:gpu.example.test#b"}}
	}))
	request := m.devices.Spec.Devices.Requests[0].Exactly
	if request.DeviceClassName != "gpu.example.test" || request.Count != 2 || *m.pod.Spec.ResourceClaims[0].ResourceClaimName != m.devices.Name {
		t.Errorf("%+v, %+v", request, m.pod.Spec.ResourceClaims)
	}
	if len(m.pod.Spec.Containers[0].Resources.Claims) != 1 || len(m.pod.Spec.Containers[0].Resources.Limits) != 0 {
		t.Errorf("%+v", m.pod.Spec.Containers[0].Resources)
	}
}

// Rule 18: a node is chosen by affinity, so that the scheduler checks everything else.
func TestManifest_Node(t *testing.T) {
	m := mustManifest(t, here, newTestSpec())
	terms := m.pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if m.pod.Spec.NodeName != "" || terms[0].MatchFields[0].Key != "metadata.name" || terms[0].MatchFields[0].Values[0] != "gpu-1" || !isPinned(m.pod) {
		t.Errorf("%+v", terms)
	}
	selector := dstack.NodeSelector{{{Label: "zone", Operator: dstack.NodeIn, Values: []string{"a", "b"}}}}
	anywhere := mustManifest(t, place{installation: "here"}, newTestSpec(func(s *dstack.AttemptSpec) { s.Nodes = selector }))
	terms = anywhere.pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if e := terms[0].MatchExpressions[0]; e.Key != "zone" || e.Operator != "In" || len(e.Values) != 2 || isPinned(anywhere.pod) {
		t.Errorf("%+v", terms)
	}
	if free := mustManifest(t, place{}, newTestSpec()); free.pod.Spec.Affinity != nil {
		t.Errorf("%+v", free.pod.Spec.Affinity)
	}
}

// Rule 31: the login has the registry's port.
func TestManifest_PullSecret(t *testing.T) {
	m := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) { s.Auth = &dstack.RegistryAuth{Username: "u", Password: "p"} }))
	if m.pull.Type != corev1.SecretTypeDockerConfigJson || !strings.Contains(string(m.pull.Data[".dockerconfigjson"]), `{"registry:5000":{"auth":"dTpw"`) {
		t.Errorf("%s", m.pull.Data)
	}
	if m.pod.Spec.ImagePullSecrets[0].Name != m.pull.Name {
		t.Errorf("%+v", m.pod.Spec.ImagePullSecrets)
	}
	m.own(&corev1.Secret{})
	if len(m.pod.OwnerReferences) != 1 || !*m.pod.OwnerReferences[0].Controller || len(m.pull.OwnerReferences) != 1 {
		t.Error("the secret of the environment does not own the rest")
	}
	hub := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) {
		s.Image, s.Auth = "ann/llama", &dstack.RegistryAuth{Username: "u", Password: "p"}
	}))
	if !strings.Contains(string(hub.pull.Data[".dockerconfigjson"]), `"https://index.docker.io/v1/"`) {
		t.Errorf("%s", hub.pull.Data)
	}
}

// A pod has no more rights than a container of Docker: no token of the cluster, no privileges, no variables of other services.
func TestManifest_Rights(t *testing.T) {
	spec := mustManifest(t, here, newTestSpec()).pod.Spec
	main := spec.Containers[0]
	if *spec.AutomountServiceAccountToken || *spec.EnableServiceLinks || *main.SecurityContext.AllowPrivilegeEscalation || main.SecurityContext.Privileged != nil {
		t.Errorf("%+v", spec)
	}
	if spec.RestartPolicy != corev1.RestartPolicyNever || spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%+v", spec)
	}
}

// Rule 35: nothing but the server takes a pod off a node that is lost for a while.
func TestManifest_ToleratesLostNodes(t *testing.T) {
	for _, key := range []string{"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"} {
		if !slices.ContainsFunc(mustManifest(t, here, newTestSpec()).pod.Spec.Tolerations, func(o corev1.Toleration) bool {
			return o.Key == key && o.TolerationSeconds == nil && o.Effect == corev1.TaintEffectNoExecute
		}) {
			t.Errorf("%s is not tolerated", key)
		}
	}
}

func TestManifest_Refusals(t *testing.T) {
	for want, change := range map[string]func(*dstack.AttemptSpec){
		"is not an image name": func(s *dstack.AttemptSpec) { s.Image = "registry/UPPER:1" },
		"a zero byte":          func(s *dstack.AttemptSpec) { s.Env["A"] = "a\x00b" },
		"that others hold":     func(s *dstack.AttemptSpec) { s.Env["NVIDIA_VISIBLE_DEVICES"] = "all" },
		"GPUs of its node": func(s *dstack.AttemptSpec) {
			s.GPUs, s.Env["NVIDIA_VISIBLE_DEVICES"] = []dstack.GPU{{ID: "nvidia.com/gpu#0"}}, "0,1"
		},
		"is not a port number": func(s *dstack.AttemptSpec) { s.Port = 70000 },
		"a cluster has claims": func(s *dstack.AttemptSpec) {
			s.Mounts = []dstack.Mount{{Kind: dstack.MountVolume, Source: "data", Target: "/d"}}
		},
		"outside the uploaded": func(s *dstack.AttemptSpec) { s.WorkingDir = "../.." },
		"lower-case letters": func(s *dstack.AttemptSpec) {
			s.Mounts = []dstack.Mount{{Kind: dstack.MountClaim, Source: "Data", Target: "/d"}}
		},
		"the limit is 131071": func(s *dstack.AttemptSpec) { s.Env["A"] = strings.Repeat("x", 128<<10) },
		"to which folder the path": func(s *dstack.AttemptSpec) {
			s.Argv, s.WorkingDir, s.Files = nil, "", []dstack.FileArchive{{Path: "x"}}
		},
	} {
		if _, err := newManifest(here, newTestSpec(change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// A service that wants none of the GPUs of a node may say so.
func TestManifest_NoVisibleDevices(t *testing.T) {
	for _, value := range []string{"", "void", "none"} {
		m := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) { s.Env["NVIDIA_VISIBLE_DEVICES"] = value }))
		if got := string(m.env.Data["NVIDIA_VISIBLE_DEVICES"]); got != value {
			t.Errorf("%q became %q", value, got)
		}
	}
}

func TestManifest_Mounts(t *testing.T) {
	m := mustManifest(t, here, newTestSpec(func(s *dstack.AttemptSpec) {
		s.Mounts = []dstack.Mount{{Kind: dstack.MountClaim, Source: "models", Target: "/models", ReadOnly: true}, {Kind: dstack.MountHostPath, Source: "/srv", Target: "/srv"}}
	}))
	volumes, mounts := m.pod.Spec.Volumes, m.pod.Spec.Containers[0].VolumeMounts
	if volumes[0].PersistentVolumeClaim.ClaimName != "models" || !mounts[0].ReadOnly || *volumes[1].HostPath.Type != corev1.HostPathDirectory {
		t.Errorf("%+v, %+v", volumes, mounts)
	}
}

// Code goes into the container of the command, which waits for it; or, without a command to put off, into an init container.
func TestManifest_Uploads(t *testing.T) {
	withCode := func(s *dstack.AttemptSpec) { s.CodeHash = "c" }
	in := mustManifest(t, here, newTestSpec(withCode))
	if in.uploads.container != mainContainer || len(in.pod.Spec.InitContainers) > 0 || !awaitsUploads(in.pod) {
		t.Errorf("%+v", in.uploads)
	}
	none := mustManifest(t, here, newTestSpec())
	if none.uploads.container != "" || awaitsUploads(none.pod) {
		t.Errorf("%+v", none.uploads)
	}
	for name, p := range map[string]place{"init image": {initImage: "tools:1"}, "image's own command": {}} {
		spec := newTestSpec(withCode, func(s *dstack.AttemptSpec) {
			s.Files = []dstack.FileArchive{{Path: "/etc/app/old"}, {Path: "/etc/app"}, {Path: "~/x.sh"}, {Path: "here"}}
			if name != "init image" {
				s.Argv = nil
			}
		})
		m := mustManifest(t, p, spec)
		var targets []string
		for _, mount := range m.pod.Spec.Containers[0].VolumeMounts {
			targets = append(targets, mount.MountPath+"="+mount.SubPath)
		}
		if want := []string{"/etc/app=etc/app", "/root/x.sh=root/x.sh", "/workflow=workflow"}; !slices.Equal(targets, want) {
			t.Errorf("%s: mounted at %q", name, targets)
		}
		if c := m.pod.Spec.InitContainers[0]; c.SecurityContext.Privileged != nil || (c.Image == "tools:1") != (name == "init image") {
			t.Errorf("%s: %+v", name, c)
		}
	}
}
