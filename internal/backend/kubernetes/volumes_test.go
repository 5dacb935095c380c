package kubernetes_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/backend/kubernetes"
	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
	"dstack/internal/spec"
)

type object = map[string]any

// newStorageClass makes a storage class without a provisioner, whose claims are bound when a pod mounts them, or at once.
func newStorageClass(t *testing.T, cluster *kubetest.Cluster, name, mode string) string {
	t.Helper()
	path := "/apis/storage.k8s.io/v1/storageclasses"
	cluster.MustCall(t, http.MethodPost, path, object{"metadata": object{"name": name}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": mode}, nil)
	t.Cleanup(func() { remove(t, cluster, path+"/"+name) })
	return name
}

// newDisk makes a persistent volume of a class: a folder of a node.
func newDisk(t *testing.T, cluster *kubetest.Cluster, name, class, node string) {
	t.Helper()
	path := "/api/v1/persistentvolumes"
	terms := []object{{"matchExpressions": []object{{"key": "kubernetes.io/hostname", "operator": "In", "values": []string{node}}}}}
	cluster.MustCall(t, http.MethodPost, path, object{"metadata": object{"name": name}, "spec": object{
		"capacity": object{"storage": "2Gi"}, "accessModes": []string{"ReadWriteOnce"}, "storageClassName": class,
		"persistentVolumeReclaimPolicy": "Retain", "hostPath": object{"path": "/tmp/" + name, "type": "DirectoryOrCreate"},
		"nodeAffinity": object{"required": object{"nodeSelectorTerms": terms}},
	}}, nil)
	t.Cleanup(func() { remove(t, cluster, path+"/"+name) })
}

func remove(t *testing.T, cluster *kubetest.Cluster, path string) {
	t.Helper()
	if status, answer, err := cluster.Call(context.Background(), http.MethodDelete, path, nil); err != nil || status >= 300 && status != 404 {
		t.Errorf("delete %s: %d %s %v", path, status, answer, err)
	}
}

// volumeRig is a backend with volumes on the real cluster.
type volumeRig struct {
	*kubernetes.Backend
	t         *testing.T
	cluster   *kubetest.Cluster
	namespace string
}

func newVolumeRig(t *testing.T) *volumeRig {
	cluster := kubetest.Need(t)
	r := &volumeRig{t: t, cluster: cluster, namespace: cluster.NewNamespace(t)}
	r.Backend = open(t, kubernetes.Settings{KubeconfigFile: cluster.Kubeconfig, Namespace: r.namespace})
	return r
}

func (r *volumeRig) newVolume(id, class string) dstack.Volume {
	return dstack.Volume{ID: dstack.VolumeID(id), Name: id, ProjectName: "main", User: "ann", SizeMiB: 1024,
		Configuration: spec.Volume{Backend: "kubernetes", LaterVolume: spec.LaterVolume{StorageClass: spec.Text(class)}}}
}

func (r *volumeRig) create(v dstack.Volume) {
	r.t.Helper()
	if err := r.CreateVolume(r.t.Context(), v); err != nil {
		r.t.Fatal(err)
	}
}

// An account that may not use, create or delete claims is told the right by name, and what is there stays.
func TestVolumes_Rights(t *testing.T) {
	t.Parallel()
	r := newVolumeRig(t)
	class := newStorageClass(t, r.cluster, r.namespace, "WaitForFirstConsumer")
	v := r.newVolume("kept", class)
	r.create(v)
	for verb, do := range map[string]func(b *kubernetes.Backend) error{
		"create": func(b *kubernetes.Backend) error { return b.CreateVolume(t.Context(), r.newVolume("new", class)) },
		"delete": func(b *kubernetes.Backend) error { return b.DeleteVolume(t.Context(), v) },
		"get":    func(b *kubernetes.Backend) error { return b.DeleteVolume(t.Context(), v) },
		"list":   func(b *kubernetes.Backend) error { _, err := b.ListVolumes(t.Context()); return err },
	} {
		fewer := without(kubernetes.Rights(), func(right kubeclient.Right) bool {
			return right.Resource == "persistentvolumeclaims" && right.Verb == verb
		})
		b := open(t, kubernetes.Settings{KubeconfigFile: r.cluster.NewAccount(t, r.namespace, rulesFor(fewer, false), rulesFor(fewer, true))})
		if err := do(b); dstack.KindOf(err) != dstack.Forbidden || !strings.Contains(err.Error(), verb+" persistentvolumeclaims") {
			t.Errorf("without the right to %s: %v", verb, err)
		}
		if notice := b.Notice(); !strings.Contains(notice, verb+" persistentvolumeclaims") {
			t.Errorf("without the right to %s: %s", verb, notice)
		}
	}
	if all, err := r.ListVolumes(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
}

// until waits until a volume is listed as wanted.
func (r *volumeRig) until(id dstack.VolumeID, what string, ok func(v dstack.Volume, listed bool) bool) (v dstack.Volume) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		listed, err := r.ListVolumes(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		v, isListed := listed[id]
		if ok(v, isListed) {
			return v
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not %s: %+v", what, v)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// mount starts a pod that mounts a claim and writes into it.
func (r *volumeRig) mount(pod, claim string) {
	r.t.Helper()
	path := "/api/v1/namespaces/" + r.namespace + "/pods"
	r.cluster.MustCall(r.t, http.MethodPost, path, object{"metadata": object{"name": pod}, "spec": object{
		"terminationGracePeriodSeconds": 1,
		"containers": []object{{"name": "main", "image": kubetest.Busybox, "command": []string{"sh", "-c", "echo here > /d/file; sleep 1000"},
			"volumeMounts": []object{{"name": "data", "mountPath": "/d"}}}},
		"volumes": []object{{"name": "data", "persistentVolumeClaim": object{"claimName": claim}}},
	}}, nil)
}

// A new claim gets its disk with its first pod, is then pinned to the nodes of that disk, and is deleted when no pod mounts it.
func TestVolumes_Life(t *testing.T) {
	r := newVolumeRig(t)
	class := newStorageClass(t, r.cluster, r.namespace, "WaitForFirstConsumer")
	newDisk(t, r.cluster, r.namespace+"-disk", class, "k2")
	v := r.newVolume("data", class)
	r.create(v)
	created := r.until("data", "active", func(v dstack.Volume, _ bool) bool { return v.Status == dstack.VolumeActive })
	if created.Reach.IsLimited || !strings.Contains(created.Warning, "when the first replica starts") || !strings.HasPrefix(created.ExternalID, "data-") {
		t.Errorf("before a pod mounts it: %+v", created)
	}
	r.create(v) // again
	r.mount("writer", created.ExternalID)
	bound := r.until("data", "bound", func(v dstack.Volume, _ bool) bool { return v.Reach.IsLimited })
	if len(bound.Reach.Machines) != 1 || bound.Reach.Place != "k2" || bound.SizeMiB != 2048 || bound.Warning != "" || bound.Status != dstack.VolumeActive {
		t.Errorf("bound: %+v", bound)
	}
	err := r.DeleteVolume(t.Context(), bound)
	if dstack.KindOf(err) != dstack.Conflict || !strings.Contains(err.Error(), "the pod writer of the namespace "+r.namespace+" mounts it") {
		t.Errorf("while a pod mounts it: %v", err)
	}
	other := r.newVolume("other", class)
	other.IsExternal, other.ExternalID = true, created.ExternalID
	if err := r.CreateVolume(t.Context(), other); dstack.KindOf(err) != dstack.Conflict || !strings.Contains(err.Error(), "belongs to the volume data of the project main") {
		t.Errorf("registered by another volume: %v", err)
	}
	remove(t, r.cluster, "/api/v1/namespaces/"+r.namespace+"/pods/writer")
	r.until("data", "gone", func(_ dstack.Volume, listed bool) bool {
		if err := r.DeleteVolume(t.Context(), bound); err != nil && dstack.KindOf(err) != dstack.Conflict {
			t.Fatal(err)
		}
		return !listed
	})
}

// Only the events of a claim tell why it gets no disk (rule 56).
func TestVolumes_WithoutDisk(t *testing.T) {
	r := newVolumeRig(t)
	class := newStorageClass(t, r.cluster, r.namespace, "Immediate")
	for id, want := range map[string]string{
		"unknown":   "the cluster has no storage class nosuch, and no persistent volume of that class suits; there is: ",
		"immediate": "makes no disks, and no free persistent volume of it suits",
	} {
		v := r.newVolume(id, map[string]string{"unknown": "nosuch", "immediate": class}[id])
		r.create(v)
		waiting := r.until(v.ID, "explained", func(v dstack.Volume, _ bool) bool { return strings.Contains(string(v.Reason), want) })
		if waiting.Status != dstack.VolumeProvisioning {
			t.Errorf("%+v", waiting)
		}
	}
	newDisk(t, r.cluster, r.namespace+"-disk", class, "k1")
	r.until("immediate", "bound", func(v dstack.Volume, _ bool) bool { return v.Status == dstack.VolumeActive && v.Reach.Place == "k1" })
	missing := r.newVolume("missing", "")
	missing.IsExternal, missing.ExternalID = true, "nothing"
	if err := r.CreateVolume(t.Context(), missing); dstack.KindOf(err) != dstack.NotFound || !strings.Contains(err.Error(), "has no claim nothing") {
		t.Errorf("a claim that does not exist: %v", err)
	}
}
