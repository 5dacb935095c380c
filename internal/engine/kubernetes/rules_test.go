package kubernetes_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/enginetest"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient"
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
func isOver(rep dstack.Report) bool    { return rep.State.IsOver() && rep.State != dstack.AttemptAbsent }

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

// Every promise here needs a real kubelet, scheduler and API server.
func TestCluster(t *testing.T) {
	c := kubetest.Need(t)
	shared := c.NewNamespace(t)
	for name, run := range map[string]func(t *testing.T, c *kubetest.Cluster, namespace string){
		"a command that does not exist is refused":            refusesUnknownCommand,
		"a memory limit below what a container needs":         refusesTinyMemory,
		"a pod sees no token and no other services":           seesNothingOfCluster,
		"shared memory has its size":                          hasSharedMemory,
		"the image's own command gets files":                  givesFilesToImage,
		"an init image unpacks for images without tar":        unpacksByInitImage,
		"long and foreign names arrive":                       keepsFileNames,
		"a node without room is left":                         leavesFullNode,
		"a failure of the scheduler is told":                  namesSchedulerError,
		"any node is waited for":                              waitsForAnyNode,
		"pods of a claim of one node are together":            keepsTogether,
		"a selector chooses the node":                         choosesNode,
		"a pod that someone deletes is no crash":              survivesDeletion,
		"a pod that someone deletes is reported at once":      reportsDeletion,
		"no hook before SIGTERM fails":                        hooksSucceed,
		"an eviction waits for the server":                    blocksEviction,
		"two installations leave each other alone":            separatesInstallations,
		"a secret of somebody else is left alone":             leavesForeignSecret,
		"a killed server's upload is resumed":                 resumesUpload,
		"a pod that may not be started is not made":           asksBeforeStart,
		"a killed server's secrets are deleted":               sweepsLeftovers,
		"a secret whose pod is not seen yet stays":            sweepsNothingOfUnseenPods,
		"a disruption budget that was deleted is made again":  restoresBudget,
		"an eviction that the kubelet forgets is told":        explainsEvictionOfObedient,
		"another server's start is not swept":                 sparesOthersStart,
		"an image that cannot be pulled is waited for":        waitsForRegistry,
		"a process that the kubelet stops gets time to drain": servesBeforeEnd,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, c, shared)
		})
	}
	for name, run := range map[string]func(t *testing.T, c *kubetest.Cluster, namespace string){
		"a quota is no missing right":           refusesOverQuota,
		"a policy of the namespace is named":    refusesByPolicy,
		"a namespace that is deleted is called": refusesDeletedNamespace,
		"a pod gets one disruption budget":      leavesOtherBudget,
		"the rights that are listed suffice":    needsListedRights,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, c, c.NewNamespace(t))
		})
	}
}

func refusesUnknownCommand(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	r.expectRefusal(newSpec("", func(s *dstack.AttemptSpec) { s.Argv = []string{"/no/such"} }), true, false, "the command cannot be run in image", "/no/such")
}

func refusesTinyMemory(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	r.expectRefusal(newSpec("true", func(s *dstack.AttemptSpec) { s.MemoryMiB = 1 }), true, false, "the limit on memory is too low")
}

func seesNothingOfCluster(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	c.MustCall(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/services",
		`{"metadata":{"name":"other"},"spec":{"ports":[{"port":80}],"selector":{"a":"b"}}}`, nil)
	spec := newSpec(`ls /var/run/secrets 2>/dev/null; env | grep OTHER_; echo "$MONEY"; grep NoNewPrivs /proc/self/status`, func(s *dstack.AttemptSpec) { s.Env["MONEY"] = "pa$$word $(HOME)" })
	r.start(spec)
	if got := r.output(spec); got != "pa$$word $(HOME)\nNoNewPrivs:\t1\n" {
		t.Errorf("%q", got)
	}
}

func hasSharedMemory(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("df -m /dev/shm | tail -1; head -c 30000000 /dev/zero > /dev/shm/x && echo written", func(s *dstack.AttemptSpec) { s.ShmBytes, s.MemoryMiB = 40<<20, 16 })
	r.start(spec)
	if got := r.output(spec); !strings.Contains(got, " 40 ") || !strings.Contains(got, "written") {
		t.Errorf("%q", got)
	}
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

func givesFilesToImage(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("", func(s *dstack.AttemptSpec) {
		s.Argv, s.WorkingDir = nil, ""
		s.Files = []dstack.FileArchive{{ID: "file", Path: "/etc/one/x.sh"}, {ID: "folder", Path: "/opt/conf"}}
	})
	r.start(spec)
	r.waitFor(spec, "ready", func(rep dstack.Report) bool { return isRunning(rep) && rep.Ready })
	if got := r.exec(spec, "/etc/one/x.sh; /opt/conf/link"); got != "run by /etc/one/x.sh\nrun by /opt/conf/link\n" {
		t.Errorf("%q", got)
	}
}

func unpacksByInitImage(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) { o.InitImage = kubetest.Busybox })
	spec := newSpec("cat app/hello.txt; echo; /etc/extra/x.sh", func(s *dstack.AttemptSpec) {
		s.CodeHash, s.Files = "code-of-enginetest", []dstack.FileArchive{{ID: "file", Path: "/etc/extra/x.sh"}}
	})
	r.start(spec)
	if got := r.output(spec); got != "hello from the folder\nrun by /etc/extra/x.sh\n" {
		t.Errorf("%q", got)
	}
}

func keepsFileNames(t *testing.T, c *kubetest.Cluster, namespace string) {
	names := []string{"größe.txt", strings.Repeat("long-name-", 20) + ".txt", strings.Repeat("deep/", 40) + "file"}
	r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) {
		o.Files = enginetest.Files
		o.Code = func(context.Context, dstack.AttemptSpec) (io.ReadCloser, error) {
			var buf bytes.Buffer
			w := tar.NewWriter(&buf)
			for _, name := range names {
				if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 2, Typeflag: tar.TypeReg, ModTime: time.Now()}); err != nil {
					return nil, err
				}
				_, _ = io.WriteString(w, "ok")
			}
			return io.NopCloser(&buf), w.Close()
		}
	})
	script := ""
	for _, name := range names {
		script += fmt.Sprintf("cat '%s'; echo; ", name)
	}
	spec := newSpec(script, func(s *dstack.AttemptSpec) { s.CodeHash = "c" })
	r.start(spec)
	if got := r.output(spec); got != "ok\nok\nok\n" {
		t.Errorf("%q", got)
	}
}

func leavesFullNode(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	r.expectRefusal(newSpec("true", func(s *dstack.AttemptSpec) { s.Claim.CPUs = 1000 }), false, true, "its node does not take the pod", "Insufficient cpu")
}

// namesSchedulerError asks for a device whose class reads an attribute that a device of some driver lacks: rule 25. The scheduler fails then
// on every pod that asks for the class, and the attempt is refused in its words.
func namesSchedulerError(t *testing.T, c *kubetest.Cluster, namespace string) {
	const api = "/apis/resource.k8s.io/v1"
	driver := namespace + ".example.test"
	c.MustCall(t, http.MethodPost, api+"/deviceclasses", map[string]any{"metadata": map[string]any{"name": driver}, "spec": map[string]any{
		"selectors": []any{map[string]any{"cel": map[string]string{
			"expression": fmt.Sprintf("device.driver == %q && device.attributes[%[1]q].nosuch == 'x'", driver)}}}}}, nil)
	c.MustCall(t, http.MethodPost, api+"/resourceslices", map[string]any{"metadata": map[string]any{"name": namespace}, "spec": map[string]any{
		"driver": driver, "nodeName": "k1", "pool": map[string]any{"name": namespace, "generation": 1, "resourceSliceCount": 1},
		"devices": []any{map[string]any{"name": "gpu-0", "attributes": map[string]any{"kind": map[string]string{"string": "gpu"}}}}}}, nil)
	t.Cleanup(func() {
		for _, path := range []string{"/deviceclasses/" + driver, "/resourceslices/" + namespace} {
			_, _, _ = c.Call(context.Background(), http.MethodDelete, api+path, nil)
		}
	})
	r := newRig(t, c, namespace, "", func(o *kubernetes.Options) { o.NodeWait = 2 * time.Second })
	r.expectRefusal(newSpec("true", func(s *dstack.AttemptSpec) { s.GPUs = []dstack.GPU{{ID: "class:" + driver + "#0"}} }), false, true,
		"the cluster had no node for the pod within 2s", "no such key: nosuch")
}

func waitsForAnyNode(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "", func(o *kubernetes.Options) { o.NodeWait = 6 * time.Second })
	spec := newSpec("true", func(s *dstack.AttemptSpec) { s.GPUs = []dstack.GPU{{ID: "nvidia.com/gpu#0"}} })
	r.start(spec)
	rep := r.waitFor(spec, "waiting", func(rep dstack.Report) bool { return strings.HasPrefix(rep.Progress, "waits for a node: ") })
	if !strings.Contains(rep.Progress, "Insufficient nvidia.com/gpu") || strings.Contains(rep.Progress, "preemption") {
		t.Errorf("%q", rep.Progress)
	}
	rep = r.waitFor(spec, "over", isOver)
	if !rep.OtherMachine || !strings.Contains(rep.Error, "within 6s") {
		t.Errorf("%+v", rep)
	}
}

// keepsTogether starts pods with a claim that one node mounts at a time where the scheduler chooses: it spreads pods otherwise.
func keepsTogether(t *testing.T, c *kubetest.Cluster, namespace string) {
	for _, object := range []struct{ path, text string }{
		{"/api/v1/persistentvolumes", `{"metadata": {"name": %[1]q}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": %[1]q,
			"hostPath": {"path": "/var/tmp/%[1]s", "type": "DirectoryOrCreate"}}}`},
		{"/api/v1/namespaces/" + namespace + "/persistentvolumeclaims", `{"metadata": {"name": "together"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": %[1]q,
			"resources": {"requests": {"storage": "1Gi"}}}}`},
	} {
		c.MustCall(t, http.MethodPost, object.path, fmt.Sprintf(object.text, namespace), nil)
	}
	t.Cleanup(func() {
		_, _, _ = c.Call(context.Background(), http.MethodDelete, "/api/v1/persistentvolumes/"+namespace, nil)
	})
	r := newRig(t, c, namespace, "")
	var specs []dstack.AttemptSpec
	for range 4 {
		specs = append(specs, newSpec("sleep 600", func(s *dstack.AttemptSpec) {
			s.Mounts = []dstack.Mount{{Kind: dstack.MountClaim, Source: "together", Target: "/data", OneNode: true}}
		}))
		r.start(specs[len(specs)-1])
	}
	for _, spec := range specs {
		r.waitFor(spec, "running", isRunning)
	}
	first := r.cluster.Pods().List()[0].Spec.NodeName
	for _, p := range r.cluster.Pods().List() {
		if p.Spec.NodeName != first {
			t.Errorf("pods are on %s and %s", first, p.Spec.NodeName)
		}
	}
}

func choosesNode(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "")
	spec := newSpec("hostname; sleep 600", func(s *dstack.AttemptSpec) {
		s.Nodes = dstack.NodeSelector{{{Label: "kubernetes.io/hostname", Operator: dstack.NodeIn, Values: []string{"k2"}}}}
	})
	r.start(spec)
	r.waitFor(spec, "running", isRunning)
	if got := r.onlyPod().Spec.NodeName; got != "k2" {
		t.Errorf("it runs on %s", got)
	}
}

// survivesDeletion deletes a pod as kubectl does. Its secret goes with the next sweep.
func survivesDeletion(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("trap 'echo ends; exit 5' TERM; while :; do sleep 0.1; done")
	r.start(spec)
	r.waitFor(spec, "running", isRunning)
	pod := r.onlyPod().Name
	c.MustCall(t, http.MethodDelete, "/api/v1/namespaces/"+namespace+"/pods/"+pod, nil, nil)
	rep := r.waitFor(spec, "over", isOver)
	if rep.State != dstack.AttemptExited || rep.ExitCode != 5 && !rep.Disrupted || !slices.Contains(rep.LastOutput, "ends") {
		t.Errorf("%+v", rep)
	}
	other := newSpec("true")
	other.Attempt = spec.Attempt
	if err := r.Start(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if got := r.waitFor(spec, "still over", isOver); got.ExitCode != rep.ExitCode {
		t.Errorf("it was started again: %+v", got)
	}
}

// reportsDeletion deletes the pod of a process that ignores SIGTERM: it is reported at once, and not when the process ends. What the
// server itself ends is not reported so.
func reportsDeletion(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("trap '' TERM; exec httpd -f -p 8080")
	r.start(spec)
	r.waitFor(spec, "ready", func(rep dstack.Report) bool { return rep.Ready })
	began, pod := time.Now(), r.onlyPod().Name
	c.MustCall(t, http.MethodDelete, "/api/v1/namespaces/"+namespace+"/pods/"+pod, nil, nil)
	rep := r.waitFor(spec, "ending", func(rep dstack.Report) bool { return rep.Ending != "" })
	if took := time.Since(began); took > 5*time.Second || !isRunning(rep) || rep.Ready || rep.Disrupted || !strings.Contains(rep.Ending, pod+" is being deleted, and not by this server") {
		t.Errorf("after %s: %+v", took, rep)
	}
	if err := r.Stop(t.Context(), spec.Attempt, 5*time.Second); err != nil { // it has drained
		t.Fatal(err)
	}
	if rep = r.waitFor(spec, "over", isOver); rep.Disrupted || time.Since(began) > 25*time.Second {
		t.Errorf("after %s: %+v", time.Since(began), rep)
	}
	own := newSpec("trap '' TERM; exec sleep 600")
	r.start(own)
	r.waitFor(own, "running", isRunning)
	if err := r.Stop(t.Context(), own.Attempt, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	if rep = r.waitFor(own, "over", func(rep dstack.Report) bool { return isOver(rep) || rep.Ending != "" }); rep.Ending != "" || rep.Disrupted {
		t.Errorf("it was stopped by the server: %+v", rep)
	}
}

// hooksSucceed ends pods in each way: none of their hooks before SIGTERM fails.
func hooksSucceed(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	for _, end := range []func(id dstack.AttemptID) error{
		func(id dstack.AttemptID) error { return r.Stop(t.Context(), id, 5*time.Second) },
		func(id dstack.AttemptID) error { return r.Stop(t.Context(), id, 0) },
		func(id dstack.AttemptID) error { return r.Remove(t.Context(), id) },
		func(id dstack.AttemptID) error { return r.Remove(t.Context(), id) },
	} {
		spec := newSpec("exec httpd -f -p 8080")
		r.start(spec)
		r.waitFor(spec, "running", isRunning)
		if err := end(spec.Attempt); err != nil {
			t.Fatal(err)
		}
		r.waitFor(spec, "over", func(rep dstack.Report) bool { return rep.State.IsOver() })
	}
	var events struct {
		Items []struct{ Reason, Message string }
	}
	c.MustCall(t, http.MethodGet, "/api/v1/namespaces/"+namespace+"/events", nil, &events)
	for _, e := range events.Items {
		if e.Reason == "FailedPreStopHook" {
			t.Errorf("%s: %s", e.Reason, e.Message)
		}
	}
}

func blocksEviction(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("exec httpd -f -p 8080")
	r.start(spec)
	r.waitFor(spec, "ready", func(rep dstack.Report) bool { return rep.Ready })
	pod := r.onlyPod().Name
	eviction := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q}}`, pod)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		status, text, err := c.Call(t.Context(), http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods/"+pod+"/eviction", eviction)
		if err == nil && status == http.StatusTooManyRequests && strings.Contains(string(text), "disruption budget") {
			break
		}
		if status == http.StatusCreated || time.Now().After(end) {
			t.Fatalf("status %d, %v: %s", status, err, text)
		}
	}
}

func separatesInstallations(t *testing.T, c *kubetest.Cluster, namespace string) {
	one, two := newRig(t, c, namespace, "k1"), newRig(t, c, namespace, "k1")
	spec := newSpec("sleep 600")
	one.start(spec)
	one.waitFor(spec, "running", isRunning)
	if err := two.Remove(t.Context(), spec.Attempt); err != nil {
		t.Fatal(err)
	}
	if err := two.cluster.DeleteLeftovers(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if all, err := two.ListReports(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if other := one.cluster.Engine("another-instance", "k2"); other != nil {
		if all, err := other.ListReports(t.Context()); err != nil || len(all) > 0 {
			t.Errorf("another instance reports %+v, %v", all, err)
		}
	}
	one.waitFor(spec, "running", isRunning)
}

// A secret that somebody else has made is neither used nor deleted, also where it has the name of an attempt's.
func leavesForeignSecret(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("sleep 600")
	name := kubernetes.PodName(r.options, spec)
	secrets := "/api/v1/namespaces/" + namespace + "/secrets"
	c.MustCall(t, http.MethodPost, secrets, map[string]any{"metadata": map[string]any{"name": name}}, nil)
	r.expectRefusal(spec, true, false, "this server did not create it")
	if err := r.Remove(t.Context(), spec.Attempt); err != nil {
		t.Fatal(err)
	}
	c.MustCall(t, http.MethodGet, secrets+"/"+name, nil, nil)
}

// resumesUpload ends a server while it sends the code: the pod is not reported, so that the next server starts it again.
func resumesUpload(t *testing.T, c *kubetest.Cluster, namespace string) {
	var isBlocked atomic.Bool
	var opened atomic.Int32
	isBlocked.Store(true)
	block := func(o *kubernetes.Options) {
		o.Files = enginetest.Files
		o.Code = func(ctx context.Context, spec dstack.AttemptSpec) (io.ReadCloser, error) {
			if opened.Add(1) > 1 && isBlocked.Load() { // the first time, the engine looks whether there is anything to send
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return enginetest.Code(ctx, spec)
		}
	}
	r := newRig(t, c, namespace, "k1", block)
	spec := newSpec("cat app/hello.txt; echo; sleep 600", func(s *dstack.AttemptSpec) { s.CodeHash = "code-of-enginetest" })
	r.start(spec)
	r.waitFor(spec, "being filled", func(rep dstack.Report) bool { return rep.Progress == "sending the code" })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	isBlocked.Store(false)
	r.testEngine = openEngine(t, r.options, "k1")
	r.waitFor(spec, "absent", func(rep dstack.Report) bool { return rep.State == dstack.AttemptAbsent })
	if err := r.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	r.waitFor(spec, "running", isRunning)
	if got := r.exec(spec, "cat app/hello.txt"); got != "hello from the folder" {
		t.Errorf("%q", got)
	}
}

func asksBeforeStart(t *testing.T, c *kubetest.Cluster, namespace string) {
	var asked atomic.Int32
	r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) {
		o.MayStart = func(context.Context, dstack.AttemptID) error {
			if asked.Add(1) >= 2 {
				return errors.New("another server goes on")
			}
			return nil
		}
	})
	spec := newSpec("true")
	r.start(spec)
	for end := time.Now().Add(20 * time.Second); asked.Load() < 2 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	r.waitFor(spec, "absent", func(rep dstack.Report) bool { return rep.State == dstack.AttemptAbsent })
	if left := listObjects(t, c, namespace, spec.Attempt); slices.ContainsFunc(left, func(name string) bool { return strings.HasPrefix(name, "pod") }) {
		t.Errorf("there is a pod: %v", left)
	}
	sweep(t, r.cluster.Cluster)
	if left := listObjects(t, c, namespace, spec.Attempt); len(left) > 0 {
		t.Errorf("the sweep leaves %v", left)
	}
}

// sweep sweeps twice, as long apart as a secret may be without its pod.
func sweep(t *testing.T, c *kubernetes.Cluster) {
	t.Helper()
	for _, after := range []time.Duration{0, 4 * time.Minute} {
		if err := c.DeleteLeftovers(t.Context(), after); err != nil {
			t.Fatal(err)
		}
	}
}

// sparesOthersStart lets another server sweep while this one is between the secret and the pod, whatever its clock says; and once the pod
// runs, which the other one does not know.
func sparesOthersStart(t *testing.T, c *kubetest.Cluster, namespace string) {
	var asked atomic.Int32
	atPod, mayGoOn := make(chan struct{}), make(chan struct{})
	r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) {
		o.MayStart = func(context.Context, dstack.AttemptID) error {
			if asked.Add(1) == 2 {
				close(atPod)
				<-mayGoOn
			}
			return nil
		}
	})
	other := kubernetes.New(kubernetes.Options{Client: newClient(t, c, namespace), Key: "kubernetes", Installation: r.options.Installation})
	spec := newSpec("exec httpd -f -p 8080")
	r.start(spec)
	<-atPod
	secrets := readObjects(t, c, namespace, spec.Attempt)
	if err := other.DeleteLeftovers(t.Context(), 30*time.Minute); err != nil {
		t.Error(err)
	}
	if left := readObjects(t, c, namespace, spec.Attempt); !slices.Equal(left, secrets) || len(left) == 0 {
		t.Errorf("of %v, another server leaves %v", secrets, left)
	}
	close(mayGoOn)
	r.waitFor(spec, "running", isRunning)
	for range 2 {
		if err := other.DeleteLeftovers(t.Context(), time.Hour); err != nil {
			t.Error(err)
		}
	}
	if err := other.DeleteLeftovers(t.Context(), 2*time.Hour); err != nil {
		t.Error(err)
	}
	if left := readObjects(t, c, namespace, spec.Attempt); len(left) != 1+len(secrets) {
		t.Errorf("of a pod that runs, another server leaves %v", left)
	}
}

func waitsForRegistry(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("true", func(s *dstack.AttemptSpec) { s.Image = c.Network(t) + ".1:1/no/registry:1" })
	r.start(spec)
	r.waitFor(spec, "waiting", func(rep dstack.Report) bool {
		return rep.State == dstack.AttemptPulling && strings.Contains(rep.Progress, "is tried again")
	})
}

// servesBeforeEnd checks that a process goes on for a while after its pod was deleted: gateways learn of that meanwhile.
func servesBeforeEnd(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("trap 'exit 0' TERM; while :; do date +%s%N; sleep 0.1; done")
	r.start(spec)
	r.waitFor(spec, "running", isRunning)
	began := time.Now()
	if err := r.Stop(t.Context(), spec.Attempt, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	rep := r.waitFor(spec, "over", isOver)
	if took := rep.EndedAt.Sub(began); took < time.Second || rep.ExitCode != 0 {
		t.Errorf("it ended after %v: %+v", took, rep)
	}
}

func refusesOverQuota(t *testing.T, c *kubetest.Cluster, namespace string) {
	c.MustCall(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/resourcequotas", `{"metadata":{"name":"q"},"spec":{"hard":{"requests.nvidia.com/gpu":"1"}}}`, nil)
	r := newRig(t, c, namespace, "k1")
	two := func(s *dstack.AttemptSpec) { s.GPUs = []dstack.GPU{{ID: "nvidia.com/gpu#0"}, {ID: "nvidia.com/gpu#1"}} }
	time.Sleep(time.Second) // the quota counts from a moment after its creation on
	r.expectRefusal(newSpec("true", two), false, true, "quota")
}

func refusesByPolicy(t *testing.T, c *kubetest.Cluster, namespace string) {
	c.MustCall(t, http.MethodPatch, "/api/v1/namespaces/"+namespace, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`, nil)
	time.Sleep(time.Second) // the API server's copy of the namespace
	r := newRig(t, c, namespace, "k1")
	r.expectRefusal(newSpec("true"), true, false, "PodSecurity")
}

func refusesDeletedNamespace(t *testing.T, c *kubetest.Cluster, namespace string) {
	r := newRig(t, c, namespace, "k1")
	keeps := newSpec("trap '' TERM; sleep 600")
	r.start(keeps)
	r.waitFor(keeps, "running", isRunning)
	c.MustCall(t, http.MethodDelete, "/api/v1/namespaces/"+namespace, nil, nil)
	spec := newSpec("true")
	r.start(spec)
	if rep := r.waitFor(spec, "over", isOver); !strings.Contains(rep.Error, "namespace") {
		t.Errorf("%+v", rep)
	}
}

// Rule 19: with two budgets, a pod can never be evicted.
func leavesOtherBudget(t *testing.T, c *kubetest.Cluster, namespace string) {
	budgets := "/apis/policy/v1/namespaces/" + namespace + "/poddisruptionbudgets"
	c.MustCall(t, http.MethodPost, budgets, `{"metadata":{"name":"mine"},"spec":{"maxUnavailable":1,"selector":{}}}`, nil)
	r := newRig(t, c, namespace, "k1")
	spec := newSpec("true")
	r.start(spec)
	r.waitFor(spec, "over", isOver)
	var list struct{ Items []struct{} }
	if c.MustCall(t, http.MethodGet, budgets, nil, &list); len(list.Items) != 1 {
		t.Errorf("there are %d budgets", len(list.Items))
	}
}

// needsListedRights runs an attempt, its code, a command and its output with exactly the rights of the list.
func needsListedRights(t *testing.T, c *kubetest.Cluster, namespace string) {
	var rules []kubetest.Rule
	for _, right := range kubernetes.Rights() {
		resource := right.Resource
		if right.Subresource != "" {
			resource += "/" + right.Subresource
		}
		rules = append(rules, kubetest.Rule{APIGroups: []string{right.Group}, Resources: []string{resource}, Verbs: []string{right.Verb}})
	}
	client, err := kubeclient.New(kubeclient.Options{KubeconfigFile: c.NewAccount(t, namespace, rules, nil)})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, c, namespace, "k1", func(o *kubernetes.Options) { o.Client = client })
	spec := newSpec("cat app/hello.txt; echo; exec httpd -f -p 8080", func(s *dstack.AttemptSpec) {
		s.CodeHash, s.Auth = "code-of-enginetest", &dstack.RegistryAuth{Username: "u", Password: "p"}
	})
	r.start(spec)
	r.waitFor(spec, "ready", func(rep dstack.Report) bool { return rep.Ready })
	if got := r.exec(spec, "cat app/hello.txt"); got != "hello from the folder" {
		t.Errorf("%q", got)
	}
	if err := r.Stop(t.Context(), spec.Attempt, time.Second); err != nil {
		t.Fatal(err)
	}
	if got := r.output(spec); !strings.HasPrefix(got, "hello from the folder") {
		t.Errorf("%q", got)
	}
	if err := r.cluster.DeleteLeftovers(t.Context(), time.Hour); err != nil {
		t.Error(err)
	}
}
