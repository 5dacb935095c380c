package kubernetes_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/backend/kubernetes"
	"dstack/internal/dstack"
	"dstack/internal/kubeclient/kubetest"
)

// The right to list nodes is taken away while a replica is on one: the nodes are not known any more, which is not the same as removed. The
// replica is still managed, and once it has gone, the cluster has any node only.
func TestBackend_NodesBecomeHidden(t *testing.T) {
	cluster := kubetest.Need(t)
	t.Parallel()
	namespace := cluster.NewNamespace(t)
	all := kubernetes.Rights()
	file := filepath.Join(t.TempDir(), "config")
	use := func(kubeconfig string) {
		text, err := os.ReadFile(kubeconfig)
		if err == nil {
			err = os.WriteFile(file, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	use(cluster.NewAccount(t, namespace, rulesFor(all, false), rulesFor(all, true)))
	least := cluster.NewAccount(t, namespace, rulesFor(all, false), nil)
	b := open(t, kubernetes.Settings{KubeconfigFile: file})
	machines, err := b.Machines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var id dstack.InstanceID
	for i, m := range machines {
		if m.Ref == "k1" {
			id = i
		}
	}
	eng, err := b.Engine(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	attempt := dstack.AttemptSpec{Attempt: "hidden-1", Replica: "r", Run: "web", Project: "main", Image: kubetest.Busybox, WorkingDir: ".",
		Argv: []string{"sleep", "1000"}, Port: 8080, StopGracePeriod: time.Second}
	if err := eng.Start(t.Context(), attempt); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 20*time.Second, func() error {
		reports, err := eng.ListReports(t.Context())
		if err == nil && (len(reports) != 1 || reports[0].State != dstack.AttemptRunning) {
			err = fmt.Errorf("%+v", reports)
		}
		return err
	})

	use(least)
	waitFor(t, 15*time.Second, func() error { // until the server has read the other kubeconfig
		if offers, err := b.Offers(t.Context(), dstack.Requirements{}); err != nil || len(offers) != 1 {
			return fmt.Errorf("%+v, %w", offers, err)
		}
		return nil
	})
	restarted := open(t, kubernetes.Settings{KubeconfigFile: least})
	for name, b := range map[string]*kubernetes.Backend{"the same server": b, "a restarted server": restarted} {
		waitFor(t, 5*time.Second, func() error {
			machines, err := b.Machines(t.Context())
			if err == nil {
				t.Fatalf("%s lists %+v", name, machines)
			}
			if !strings.Contains(err.Error(), "1 replica of it was placed on nodes by name") {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
		if eng, err := b.Engine(t.Context(), id); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if reports, err := eng.ListReports(t.Context()); err != nil || len(reports) != 1 {
			t.Errorf("%s has the reports %+v, %v", name, reports, err)
		}
	}
	if eng, err = restarted.Engine(t.Context(), id); err == nil {
		err = eng.Remove(t.Context(), attempt.Attempt)
	}
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, 20*time.Second, func() error {
		machines, err := restarted.Machines(t.Context())
		if err == nil && len(machines) != 1 {
			t.Fatalf("%+v", machines)
		}
		return err
	})
}
