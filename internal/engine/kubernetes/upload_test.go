package kubernetes_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient/kubetest"
)

// The published clients and ours upload each folder, also an empty one. No pod waits for that, in a container of its own or in
// that of the command.
func TestUpload_Empty(t *testing.T) {
	t.Parallel()
	c := kubetest.Need(t)
	namespace := c.NewNamespace(t)
	for name, initImage := range map[string]string{"in the image": "", "in an init image": kubetest.Busybox} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) {
				o.InitImage = initImage
				o.Code = func(context.Context, dstack.AttemptSpec) (io.ReadCloser, error) {
					return io.NopCloser(bytes.NewReader(make([]byte, 1024))), nil
				}
			})
			spec := newSpec("pwd; ls -A", func(s *dstack.AttemptSpec) { s.CodeHash = "c" })
			r.start(spec)
			if got := r.output(spec); got != "/workflow\n" {
				t.Errorf("the command printed %q", got)
			}
			pod := r.onlyPod()
			if _, waits := pod.Annotations["dstack.ai/uploads"]; waits || len(pod.Spec.InitContainers) > 0 {
				t.Errorf("the pod waited for uploads: %v, %+v", pod.Annotations, pod.Spec.InitContainers)
			}
		})
	}
}
