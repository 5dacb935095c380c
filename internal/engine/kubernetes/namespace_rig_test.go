package kubernetes_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient/kubetest"
)

// rig is an engine in a namespace, for one test.
type rig struct {
	t         *testing.T
	kube      *kubetest.Cluster
	namespace string
	options   kubernetes.Options
	testEngine
}

// onlyPod returns the only pod of the engine.
func (r *rig) onlyPod() *corev1.Pod {
	r.t.Helper()
	all := r.cluster.Pods().List()
	if len(all) != 1 {
		r.t.Fatalf("there are %d pods", len(all))
	}
	return all[0]
}

func newRig(t *testing.T, c *kubetest.Cluster, namespace, node string, change ...func(*kubernetes.Options)) *rig {
	t.Helper()
	o := kubernetes.Options{Installation: dstack.Installation(uuid.NewString()), Client: newClient(t, c, namespace)}
	for _, f := range change {
		f(&o)
	}
	r := &rig{t, c, namespace, o, openEngine(t, o, node)}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func newSpec(script string, change ...func(*dstack.AttemptSpec)) dstack.AttemptSpec {
	spec := dstack.AttemptSpec{
		Attempt: dstack.AttemptID(uuid.NewString()), Replica: "r", Run: "rules", Project: "main", Image: kubetest.Busybox,
		Argv: []string{"/bin/sh", "-i", "-c", script}, WorkingDir: ".", Port: 8080, StopGracePeriod: 5 * time.Second, Env: map[string]string{},
	}
	for _, f := range change {
		f(&spec)
	}
	return spec
}

// start starts an attempt, which is removed at the end of the test.
func (r *rig) start(spec dstack.AttemptSpec) {
	r.t.Helper()
	r.t.Cleanup(func() {
		if err := r.Remove(context.Background(), spec.Attempt); err != nil {
			r.t.Errorf("remove: %v", err)
		}
		if left := listObjects(r.t, r.kube, r.namespace, spec.Attempt); len(left) > 0 {
			r.t.Errorf("left: %v", left)
		}
	})
	if err := r.Start(r.t.Context(), spec); err != nil {
		r.t.Fatal(err)
	}
}

// waitFor waits for a report.
func (r *rig) waitFor(spec dstack.AttemptSpec, what string, accept func(dstack.Report) bool) dstack.Report {
	r.t.Helper()
	var last dstack.Report
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		all, err := r.ListReports(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(rep dstack.Report) bool { return rep.Attempt == spec.Attempt })
		if last = (dstack.Report{State: dstack.AttemptAbsent}); i >= 0 {
			last = all[i]
		}
		if accept(last) {
			return last
		}
		if last.State.IsOver() && last.State != dstack.AttemptAbsent {
			break
		}
	}
	r.t.Fatalf("the attempt is not %s: %+v", what, last)
	return last
}

func isRunning(rep dstack.Report) bool { return rep.State == dstack.AttemptRunning }

func isOver(rep dstack.Report) bool { return rep.State.IsOver() && rep.State != dstack.AttemptAbsent }

// expectRefusal starts an attempt that never runs.
func (r *rig) expectRefusal(spec dstack.AttemptSpec, isPermanent, otherMachine bool, texts ...string) {
	r.t.Helper()
	r.start(spec)
	rep := r.waitFor(spec, "over", isOver)
	if rep.State != dstack.AttemptRefused || rep.Permanent != isPermanent || rep.OtherMachine != otherMachine {
		r.t.Errorf("%+v", rep)
	}
	for _, text := range texts {
		if !strings.Contains(rep.Error, text) {
			r.t.Errorf("%q is not in %q", text, rep.Error)
		}
	}
}

// output returns the output of an attempt that ends.
func (r *rig) output(spec dstack.AttemptSpec) string {
	r.t.Helper()
	r.waitFor(spec, "over", isOver)
	var text strings.Builder
	for l, err := range r.Logs(r.t.Context(), spec.Attempt, time.Time{}) {
		if err != nil {
			r.t.Fatal(err)
		}
		text.Write(append(l.Text, '\n'))
	}
	return text.String()
}

// exec runs a script beside an attempt and returns its output.
func (r *rig) exec(spec dstack.AttemptSpec, script string) string {
	r.t.Helper()
	var out, problems bytes.Buffer
	code, err := r.Exec(r.t.Context(), spec, engine.Command{Argv: []string{"sh", "-c", script}, Stdout: &out, Stderr: &problems})
	if code != 0 || err != nil {
		r.t.Fatalf("exit code %d, %v: %s", code, err, problems.String())
	}
	return out.String()
}
