package kubernetes_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine/enginetest"
	"dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient/kubetest"
)

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
		"a pod that ends late leaves time for its secret":     removesSlowly,
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
