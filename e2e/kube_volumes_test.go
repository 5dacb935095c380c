package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// addDisk makes a persistent volume on a node: a folder of it, as a local provisioner makes them. It makes the storage class, too.
func (s *clusterSet) addDisk(node string) (class string) {
	s.t.Helper()
	class = s.namespace
	s.addClusterObject("/apis/storage.k8s.io/v1/storageclasses", class, map[string]any{
		"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"})
	expression := map[string]any{"key": "kubernetes.io/hostname", "operator": "In", "values": []string{node}}
	s.addClusterObject("/api/v1/persistentvolumes", s.namespace+"-disk", map[string]any{"spec": map[string]any{
		"capacity": map[string]any{"storage": "2Gi"}, "accessModes": []string{"ReadWriteOnce"}, "storageClassName": class,
		"persistentVolumeReclaimPolicy": "Retain", "hostPath": map[string]any{"path": "/tmp/" + s.namespace, "type": "DirectoryOrCreate"},
		"nodeAffinity": map[string]any{"required": map[string]any{"nodeSelectorTerms": []any{map[string]any{"matchExpressions": []any{expression}}}}},
	}})
	return class
}

// addClusterObject creates an object outside of namespaces, and deletes it at the end of the test.
func (s *clusterSet) addClusterObject(path, name string, object map[string]any) {
	s.t.Helper()
	object["metadata"] = map[string]any{"name": name}
	s.cluster.MustCall(s.t, http.MethodPost, path, object, nil)
	s.t.Cleanup(func() { _, _, _ = s.cluster.Call(context.Background(), http.MethodDelete, path+"/"+name, nil) })
}

// The data of a claim survives the run that wrote it, and the server; replicas run where its disk is; and it is deleted with its claim
// once no run uses it. Published clients list it.
func TestCluster_Volumes(t *testing.T) {
	s := newClusterSet(t)
	class := s.addDisk("k2")
	volume := "type: volume\nname: data\nbackend: kubernetes\nsize: 1GB\nstorage_class_name: " + class + "\n"
	v := s.applyVolume(volume)
	if v.State != dstack.VolumeActive || !strings.Contains(v.Warning, "when the first replica starts") {
		t.Errorf("before its first replica: %+v", v)
	}
	s.tryVolume(strings.Replace(volume, "1GB", "2GB", 1)).expectError(1, "size is 1GB, not 2GB")
	s.tryVolume("type: volume\nname: other\nbackend: kubernetes\nclaim_name: "+*v.VolumeID+"\n").expectError(1, "belongs to the volume data of the project main")
	config := s.serviceConfig("web", 2, "volumes: [data:/data]")
	config = strings.Replace(config, "resources: {cpu: 0.1.., memory: 64MB.., disk: 0GB..}\n", "", 1)
	config = strings.Replace(config, "- exec ./workload", "- echo started >> /data/log\n- exec ./workload", 1)
	dir := s.newFolder(config)
	s.runCLIIn(dir, "apply", "-f", "service.dstack.yml").expectError(2, "all replicas run on one node, because nodes mount the volume data one at a time (ReadWriteOnce)")
	s.applyAndWait(dir)
	if count := s.countByNode(); count["k1"] != 0 || count["k2"] != 2 {
		t.Errorf("two replicas are on these nodes: %v", count)
	}
	s.runCLI("volume", "delete", "data", "-y").expectError(1, "it is used by web")
	s.waitUntil(time.Minute, "the volume is on its node", func() error {
		if out := s.runCLI("volume", "get", "data").expectExit(0).out; !strings.Contains(out, "kubernetes, k2") || !strings.Contains(out, "2GB") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	s.stopRun("web")
	s.killServer()
	s.startServer()
	s.writeFile(filepath.Join(dir, "service.dstack.yml"), strings.Replace(config, "replicas: 2", "replicas: 1", 1))
	s.applyAndWait(dir, "-n", "again")
	if got := s.runCLI("exec", "again", "--", "cat", "/data/log").expectExit(0).out; strings.Count(got, "started") != 3 {
		t.Errorf("after three starts the volume has %q", got)
	}
	s.stopRun("again")
	newest := newNewestClient(s.harness)
	newest.run(newest.ownHome, "volume", "list", "-v").expectExit(0).expectText("data", "active")
	old := newPublishedClient(s.harness)
	old.run(old.ownHome, "volume", "list").expectExit(0).expectText("data", "active")
	s.runCLI("volume", "delete", "data", "-y").expectExit(0).expectText("data is deleted")
	if status, answer, err := s.cluster.Call(t.Context(), http.MethodGet, "/api/v1/namespaces/"+s.namespace+"/persistentvolumeclaims/"+*v.VolumeID, nil); status != 404 {
		t.Errorf("the claim is still there: %d %s %v", status, answer, err)
	}
}
