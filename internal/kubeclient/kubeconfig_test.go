package kubeclient_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
)

const soundConfig = `apiVersion: v1
kind: Config
current-context: prod
clusters:
- name: one
  cluster: {server: "https://10.0.0.1:6443"}
users:
- name: ann
  user: {token: secret}
contexts:
- name: prod
  context: {cluster: one, user: ann, namespace: team}
- name: other
  context: {cluster: one, user: bob}
`

// A kubeconfig that cannot be used is refused with its place, the reason and what to do.
func TestNew_RefusesKubeconfig(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := func(name, content string) kubeclient.Options {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return kubeclient.Options{KubeconfigFile: path}
	}
	for _, c := range []struct {
		name          string
		options       kubeclient.Options
		message, hint string // FOLDER stands for the folder
	}{
		{"no way", kubeclient.Options{}, `the cluster "kubernetes" needs one way to sign in`,
			"set kubeconfig: {filename: …}, kubeconfig: {data: …} or in_cluster: true in config.yml"},
		{"two ways", kubeclient.Options{InCluster: true, KubeconfigData: soundConfig}, `the cluster "kubernetes" needs one way to sign in`,
			"set kubeconfig: {filename: …}, kubeconfig: {data: …} or in_cluster: true in config.yml"},
		{"no file", kubeclient.Options{Name: "kubernetes-eu", KubeconfigFile: folder + "/nosuch"},
			`the kubeconfig FOLDER/nosuch of the cluster "kubernetes-eu" does not exist`, "copy it there, or correct kubeconfig.filename in config.yml"},
		{"a folder", kubeclient.Options{KubeconfigFile: folder}, "cannot read the kubeconfig FOLDER: read FOLDER: is a directory",
			"let the user of the server read it"},
		{"not YAML", file("not-yaml", "clusters: [\n"), "the kubeconfig FOLDER/not-yaml is not a kubeconfig: yaml: line 1: did not find expected node content",
			"check it with: kubectl config view"},
		{"something else", file("else", "type: service\n"), "the kubeconfig FOLDER/else is not a kubeconfig: it has no contexts",
			"export one with: kubectl config view --flatten --minify"},
		{"no current context", file("no-current", strings.Replace(soundConfig, "current-context: prod\n", "", 1)),
			"the kubeconfig FOLDER/no-current has no current-context", "set context: in config.yml to one of other, prod"},
		{"another context", kubeclient.Options{KubeconfigData: soundConfig, Context: "prd"},
			`kubeconfig.data of the cluster "kubernetes" does not have the context "prd"`, "set context: in config.yml to one of other, prod"},
		{"a user that is not there", kubeclient.Options{KubeconfigData: soundConfig, Context: "other"},
			`kubeconfig.data of the cluster "kubernetes": the context "other" names the user "bob", which it does not have`, "users that it has: ann"},
		{"a cluster that is not there", file("no-cluster", strings.Replace(soundConfig, "name: one", "name: two", 1)),
			`the kubeconfig FOLDER/no-cluster: the context "prod" names the cluster "one", which it does not have`, "clusters that it has: two"},
		{"files and programs in data", kubeclient.Options{KubeconfigData: strings.Replace(strings.Replace(soundConfig, "token: secret",
			"tokenFile: /etc/shadow, exec: {command: id, apiVersion: client.authentication.k8s.io/v1}", 1), "server:", "certificate-authority: /etc/ca, server:", 1)},
			`kubeconfig.data of the cluster "kubernetes" names files or programs of this machine: certificate-authority, tokenFile, exec`,
			"embed them with: kubectl config view --flatten --minify, or use kubeconfig: {filename: …}"},
		{"not in a pod", kubeclient.Options{InCluster: true}, `the cluster "kubernetes" has in_cluster: true, but this process does not run in a pod with` +
			` a service account: unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined`,
			"set kubeconfig: {filename: …} in config.yml, or automountServiceAccountToken: true in the pod of the server"},
		{"a certificate that is not there", file("no-cert", strings.Replace(soundConfig, "token: secret", "client-certificate: c.pem, client-key: k.pem", 1)),
			"the kubeconfig FOLDER/no-cert: invalid configuration: [unable to read client-cert FOLDER/c.pem for ann due to open FOLDER/c.pem: no such" +
				" file or directory, unable to read client-key FOLDER/k.pem for ann due to open FOLDER/k.pem: no such file or directory]",
			"check it with: kubectl config view"},
	} {
		_, err := kubeclient.New(c.options)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			checkError(t, err, kubeclient.Other, dstack.Invalid, strings.ReplaceAll(c.message, "FOLDER", folder), c.hint)
		})
	}
}

func TestNew_ReadsKubeconfig(t *testing.T) {
	t.Parallel()
	c := openClient(t, kubeclient.Options{KubeconfigData: soundConfig})
	if c.Namespace() != "team" || c.Address() != "https://10.0.0.1:6443" || c.Name() != "kubernetes" || len(c.Warnings()) != 0 {
		t.Errorf("namespace %q, address %q, name %q, warnings %q", c.Namespace(), c.Address(), c.Name(), c.Warnings())
	}
	c = openClient(t, kubeclient.Options{KubeconfigData: strings.Replace(soundConfig, ", namespace: team", "", 1), Name: "kubernetes-eu"})
	if c.Namespace() != "default" || c.Name() != "kubernetes-eu" {
		t.Errorf("namespace %q, name %q", c.Namespace(), c.Name())
	}
	c = openClient(t, kubeclient.Options{KubeconfigData: soundConfig, Namespace: "mine"})
	if c.Namespace() != "mine" || c.InNamespace("x").Namespace() != "x" {
		t.Errorf("namespace %q", c.Namespace())
	}
	path := filepath.Join(t.TempDir(), "config")
	content := strings.Replace(soundConfig, `server: "https://10.0.0.1:6443"`, `insecure-skip-tls-verify: true, server: "https://10.0.0.1:6443"`, 1)
	content = strings.Replace(content, "token: secret", "token: "+tokenUntil(time.Unix(1_700_000_000, 0)), 1)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	place := "the kubeconfig " + path
	want := []string{
		place + " has insecure-skip-tls-verify: whoever is on the way to the API server can read the credentials",
		place + " can be read by other users of this machine: chmod 600 " + path,
		place + ": the token expired on 2023-11-14 22:13 UTC",
	}
	if got := openClient(t, kubeclient.Options{KubeconfigFile: path}).Warnings(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	plain := strings.Replace(soundConfig, "https://", "http://", 1)
	if got := openClient(t, kubeclient.Options{KubeconfigData: plain}).Warnings(); len(got) != 1 || got[0] != `kubeconfig.data of the cluster "kubernetes"`+
		` has a server with http://: no credentials are sent, and whoever is on the way can read and change everything` {
		t.Errorf("warnings of a server without TLS: %q", got)
	}
	if got := openClient(t, kubeclient.Options{KubeconfigData: newKubeconfig("http://127.0.0.1:8001")}).Warnings(); len(got) != 0 {
		t.Errorf("warnings of a proxy on this machine: %q", got)
	}
}

func tokenUntil(end time.Time) string {
	return "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, end.Unix())) + ".c2ln"
}

// Credentials that an API server does not accept are told apart from an API server that is not there.
func TestSignIn_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	refuse := func(text string, code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, fmt.Sprintf(`{"kind":"Status","code":%d,"message":%q}`, code, text), code)
		}
	}
	unauthorized := httptest.NewTLSServer(refuse("Unauthorized", http.StatusUnauthorized))
	t.Cleanup(unauthorized.Close)
	anonymous := httptest.NewTLSServer(refuse(`pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "team"`, http.StatusForbidden))
	t.Cleanup(anonymous.Close)
	gone := httptest.NewTLSServer(nil)
	gone.Close()
	config := func(server *httptest.Server, user string) string {
		ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: unauthorized.Certificate().Raw}))
		text := strings.Replace(soundConfig, "https://10.0.0.1:6443", server.URL, 1)
		return strings.Replace(strings.Replace(text, "cluster: {", "cluster: {certificate-authority-data: "+ca+", ", 1), "token: secret", user, 1)
	}
	certificate, key := newCertificate(t, time.Now().Add(-time.Hour))
	renew := "renew the kubeconfig, and check it: kubectl get pods --namespace team"
	for _, c := range []struct {
		name, config  string
		meaning       kubeclient.Meaning
		message, hint string
	}{
		{"a wrong token", config(unauthorized, "token: wrong"), kubeclient.NotSignedIn, "the API server does not accept the credentials: Unauthorized", renew},
		{"an expired token", config(unauthorized, "token: "+tokenUntil(time.Unix(1_700_000_000, 0))), kubeclient.NotSignedIn,
			"the token expired on 2023-11-14 22:13 UTC", renew},
		{"an expired certificate", config(unauthorized, "client-certificate-data: "+certificate+", client-key-data: "+key), kubeclient.NotSignedIn,
			"the client certificate expired on " + time.Now().Add(-time.Hour).UTC().Format("2006-01-02 15:04 UTC"), renew},
		{"no credentials", config(anonymous, ""), kubeclient.NotSignedIn, "the kubeconfig has no credentials that the API server accepts", renew},
		{"an unknown authority", strings.Replace(soundConfig, "https://10.0.0.1:6443", unauthorized.URL, 1), kubeclient.Untrusted,
			"the certificate of " + unauthorized.URL + " is not trusted: tls: failed to verify certificate: x509: certificate signed by unknown authority",
			"check server: and certificate-authority-data: in the kubeconfig"},
		{"nobody there", config(gone, "token: x"), kubeclient.Unreachable, "the API server at " + gone.URL + " does not answer: connect: connection refused",
			"check that it runs, and that this machine reaches it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := openClient(t, kubeclient.Options{KubeconfigData: c.config})
			checkError(t, client.CheckHealth(t.Context()), c.meaning, dstack.Unavailable, `cannot list pods in the cluster "kubernetes": `+c.message, c.hint)
		})
	}
	t.Run("a program that is not there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config")
		text := config(unauthorized, "exec: {command: nosuch-program, apiVersion: client.authentication.k8s.io/v1, interactiveMode: IfAvailable}")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := openClient(t, kubeclient.Options{KubeconfigFile: path}).CheckHealth(t.Context())
		if kubeclient.MeaningOf(err) != kubeclient.NotSignedIn || !strings.Contains(err.Error(), "the kubeconfig's program for credentials failed: ") ||
			!strings.Contains(err.Error(), "nosuch-program") {
			t.Errorf("error %v", err)
		}
	})
}

func newCertificate(t *testing.T, end time.Time) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ann"}, NotBefore: end.Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, bytes []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)
}

// An old cluster is refused with its version; something that is not a cluster at all, too.
func TestCheckVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, answer  string
		message, hint string
	}{
		{"supported", `{"major":"1","minor":"30","gitVersion":"v1.30.0"}`, "", ""},
		{"newer than tested", `{"major":"1","minor":"99","gitVersion":"v1.99.0"}`, "", ""},
		{"too old", `{"major":"1","minor":"29+","gitVersion":"v1.29.7-eks-1"}`, `the cluster "kubernetes" has Kubernetes v1.29.7-eks-1, which is too old`,
			"upgrade it to v1.30 or newer"},
		{"a web page", "<html>hello</html>", `URL, the server of the cluster "kubernetes", is not an API server of Kubernetes: its answer to /version is` +
			` "<html>hello</html>"`, "check server: in the kubeconfig"},
		{"other JSON", `{"version": 1}`, `URL, the server of the cluster "kubernetes", is not an API server of Kubernetes: its answer to /version names` +
			` the version ""."" `, "check server: in the kubeconfig"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/behind/a/proxy/version" {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte(c.answer))
		}))
		client := openClient(t, kubeclient.Options{KubeconfigData: newKubeconfig(server.URL + "/behind/a/proxy/")})
		version, err := client.CheckVersion(t.Context())
		server.Close()
		if c.message == "" {
			if err != nil || version.Major != 1 || version.IsBefore(kubeclient.MinVersion) {
				t.Errorf("%s: %+v, %v", c.name, version, err)
			}
			continue
		}
		message := strings.TrimSpace(strings.ReplaceAll(c.message, "URL", server.URL+"/behind/a/proxy/"))
		checkError(t, err, kubeclient.Other, dstack.Unsupported, message, c.hint)
	}
}
