package kubetest

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

type object struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Status struct {
		Token string `json:"token"`
	} `json:"status"`
}

// NewNamespace makes a namespace for one test, which is deleted with all that is in it at the end. Pods can be created in it
// when it returns: before it has its service account, the API server refuses them.
func (c *Cluster) NewNamespace(t testing.TB) string {
	t.Helper()
	var made object
	c.MustCall(t, http.MethodPost, "/api/v1/namespaces", map[string]any{"metadata": map[string]any{"generateName": "test-"}}, &made)
	name := made.Metadata.Name
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("events of the namespace %s:\n%s", name, c.describeEvents(name))
		}
		if err := c.call(context.Background(), http.MethodDelete, "/api/v1/namespaces/"+name, nil, nil); err != nil {
			t.Errorf("the namespace is left: %v", err)
		}
	})
	c.waitFor(t, "/api/v1/namespaces/"+name+"/serviceaccounts/default")
	return name
}

// waitFor waits until an object exists.
func (c *Cluster) waitFor(t testing.TB, path string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		status, _, err := c.Call(t.Context(), http.MethodGet, path, nil)
		if err == nil && status == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not exist: status %d, %v", path, status, err)
		}
	}
}

// describeEvents returns the last events of a namespace, one a line.
func (c *Cluster) describeEvents(namespace string) string {
	var list struct {
		Items []struct {
			Type, Reason, Message string
			InvolvedObject        struct{ Kind, Name string }
		}
	}
	if err := c.call(context.Background(), http.MethodGet, "/api/v1/namespaces/"+namespace+"/events?limit=200", nil, &list); err != nil {
		return err.Error()
	}
	text := ""
	for _, e := range list.Items {
		text += fmt.Sprintf("%s %s/%s %s: %s\n", e.Type, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
	return text
}

// Rule is a rule of a role, as in RBAC.
type Rule struct {
	APIGroups []string `json:"apiGroups"`
	Resources []string `json:"resources"`
	Verbs     []string `json:"verbs"`
}

// NewAccount makes a service account that may do in its namespace what the rules say, and in the whole cluster what the
// cluster's rules say, and returns the path of a kubeconfig for it.
func (c *Cluster) NewAccount(t testing.TB, namespace string, rules, clusterRules []Rule) (kubeconfig string) {
	t.Helper()
	const rbac = "/apis/rbac.authorization.k8s.io/v1"
	var made, token object
	accounts := "/api/v1/namespaces/" + namespace + "/serviceaccounts"
	c.MustCall(t, http.MethodPost, accounts, map[string]any{"metadata": map[string]any{"generateName": "account-"}}, &made)
	name := made.Metadata.Name
	metadata := map[string]any{"name": namespace + "-" + name}
	subjects := []any{map[string]any{"kind": "ServiceAccount", "name": name, "namespace": namespace}}
	bind := func(base, kind string, rules []Rule) {
		if len(rules) == 0 {
			return
		}
		roles := map[string]string{"Role": "/roles", "ClusterRole": "/clusterroles"}[kind]
		c.MustCall(t, http.MethodPost, base+roles, map[string]any{"metadata": metadata, "rules": rules}, nil)
		c.MustCall(t, http.MethodPost, base+roles[:len(roles)-1]+"bindings", map[string]any{"metadata": metadata, "subjects": subjects,
			"roleRef": map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": metadata["name"]}}, nil)
		if kind == "ClusterRole" {
			t.Cleanup(func() {
				for _, path := range []string{"/clusterrolebindings/", "/clusterroles/"} {
					_, _, _ = c.Call(context.Background(), http.MethodDelete, rbac+path+namespace+"-"+name, nil)
				}
			})
		}
	}
	bind(rbac+"/namespaces/"+namespace, "Role", rules)
	bind(rbac, "ClusterRole", clusterRules)
	c.MustCall(t, http.MethodPost, accounts+"/"+name+"/token", map[string]any{"spec": map[string]any{"expirationSeconds": 3600}}, &token)
	return c.writeKubeconfig(t, namespace, token.Status.Token)
}

func (c *Cluster) writeKubeconfig(t testing.TB, namespace, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: account, user: {token: %q}}]
contexts: [{name: test, context: {cluster: test, user: account, namespace: %s}}]
current-context: test
`, c.address, base64.StdEncoding.EncodeToString([]byte(c.readCA(t))), token, namespace)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
