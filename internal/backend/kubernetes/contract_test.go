package kubernetes_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/backend/kubernetes"
	"dstack/internal/dstack"
	"dstack/internal/kubeclient/kubetest"
	"dstack/internal/loop"
	"dstack/internal/spec"
)

// open opens the backend of a cluster, and runs its tasks until the test ends.
func open(t *testing.T, settings kubernetes.Settings) *kubernetes.Backend {
	t.Helper()
	b := kubernetes.New(kubernetes.Options{Settings: settings, Installation: "contract"})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx, b.Tasks()...) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestBackend_Contract(t *testing.T) {
	cluster := kubetest.Need(t)
	namespace := cluster.NewNamespace(t)
	class := newStorageClass(t, cluster, namespace, "WaitForFirstConsumer")
	claims := 0
	backendtest.Run(t, func(*testing.T) backendtest.Fixture {
		return backendtest.Fixture{
			Open: func(t *testing.T) backend.Backend {
				return open(t, kubernetes.Settings{KubeconfigFile: cluster.Kubeconfig, Namespace: namespace})
			},
			Timeout: 5 * time.Second,
			Volume: dstack.Volume{Region: "cluster", Configuration: spec.Volume{Backend: "kubernetes",
				LaterVolume: spec.LaterVolume{StorageClass: spec.Text(class)}}},
			CreateDisk: func(t *testing.T) string {
				claims++
				name := fmt.Sprintf("existing-%d", claims)
				cluster.MustCall(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/persistentvolumeclaims", object{
					"metadata": object{"name": name}, "spec": object{"storageClassName": class, "accessModes": []string{"ReadWriteOnce"},
						"resources": object{"requests": object{"storage": "1Gi"}}}}, nil)
				return name
			},
			Lacks: []backendtest.Feature{backendtest.RentedMachines, backendtest.Refusals, backendtest.Attachments},
		}
	})
}
