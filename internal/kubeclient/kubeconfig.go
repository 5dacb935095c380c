package kubeclient

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"dstack/internal/dstack"
)

// serviceAccountNamespace is where a pod reads its namespace.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// loadedConfig is what a kubeconfig or a service account says.
type loadedConfig struct {
	config    *rest.Config
	namespace string
	warnings  []string
}

// loadConfig reads the kubeconfig, or the service account of this process.
func loadConfig(o Options) (loadedConfig, error) {
	sources := 0
	for _, set := range []bool{o.KubeconfigFile != "", o.KubeconfigData != "", o.InCluster} {
		if set {
			sources++
		}
	}
	switch {
	case sources != 1:
		return loadedConfig{}, newInvalid("the cluster "+quote(o.Name)+" needs one way to sign in",
			"set kubeconfig: {filename: …}, kubeconfig: {data: …} or in_cluster: true in config.yml", nil)
	case o.InCluster:
		return loadServiceAccount(o)
	}
	raw, place, err := readKubeconfig(o)
	if err != nil {
		return loadedConfig{}, err
	}
	file, err := chooseContext(raw, place, o.Context)
	if err != nil {
		return loadedConfig{}, err
	}
	if o.KubeconfigData != "" {
		if err := refuseOutside(raw, file.Cluster, file.AuthInfo, place); err != nil {
			return loadedConfig{}, err
		}
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: o.Context}
	config, err := clientcmd.NewNonInteractiveClientConfig(*raw, o.Context, overrides, nil).ClientConfig()
	if err != nil {
		return loadedConfig{}, newInvalid(place+": "+shortenText(err.Error()), "check it with: kubectl config view", err)
	}
	if config.ExecProvider != nil {
		config.ExecProvider.InteractiveMode = clientcmdapi.NeverExecInteractiveMode
		config.ExecProvider.StdinUnavailable = true
	}
	return loadedConfig{config: config, namespace: file.Namespace, warnings: findDangers(o, place, config)}, nil
}

func newInvalid(message, hint string, cause error) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: message, Hint: hint, Cause: cause}
}

func loadServiceAccount(o Options) (loadedConfig, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return loadedConfig{}, newInvalid("the cluster "+quote(o.Name)+" has in_cluster: true, but this process does not run in a pod with a"+
			" service account: "+shortenText(err.Error()), "set kubeconfig: {filename: …} in config.yml, or automountServiceAccountToken: true"+
			" in the pod of the server", err)
	}
	namespace, err := os.ReadFile(serviceAccountNamespace)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return loadedConfig{}, newInvalid("cannot read the namespace of the service account: "+err.Error(), "set namespace: in config.yml", err)
	}
	return loadedConfig{config: config, namespace: strings.TrimSpace(string(namespace))}, nil
}

// readKubeconfig returns the content of a kubeconfig, and how messages name it.
func readKubeconfig(o Options) (*clientcmdapi.Config, string, error) {
	place, data := "kubeconfig.data of the cluster "+quote(o.Name), []byte(o.KubeconfigData)
	if o.KubeconfigFile != "" {
		place = "the kubeconfig " + o.KubeconfigFile
		var err error
		data, err = os.ReadFile(o.KubeconfigFile)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, place, newInvalid(place+" of the cluster "+quote(o.Name)+" does not exist",
				"copy it there, or correct kubeconfig.filename in config.yml", err)
		case err != nil:
			return nil, place, newInvalid("cannot read "+place+": "+err.Error(), "let the user of the server read it", err)
		}
	}
	raw, err := clientcmd.Load(data)
	if err != nil {
		return nil, place, newInvalid(place+" is not a kubeconfig: "+shortenText(err.Error()), "check it with: kubectl config view", err)
	}
	if len(raw.Contexts) == 0 {
		return nil, place, newInvalid(place+" is not a kubeconfig: it has no contexts", "export one with: kubectl config view --flatten --minify", nil)
	}
	if o.KubeconfigFile != "" {
		for _, cluster := range raw.Clusters {
			cluster.LocationOfOrigin = o.KubeconfigFile
		}
		for _, user := range raw.AuthInfos {
			user.LocationOfOrigin = o.KubeconfigFile
		}
		if err := clientcmd.ResolveLocalPaths(raw); err != nil {
			return nil, place, newInvalid(place+": "+err.Error(), "", err)
		}
	}
	return raw, place, nil
}

// chooseContext returns the context, whose cluster and user exist.
func chooseContext(raw *clientcmdapi.Config, place, name string) (*clientcmdapi.Context, error) {
	field := "context " + quote(name)
	if name == "" {
		name, field = raw.CurrentContext, "current-context "+quote(raw.CurrentContext)
	}
	context := raw.Contexts[name]
	switch {
	case name == "":
		return nil, newInvalid(place+" has no current-context", "set context: in config.yml to one of "+joinNames(raw.Contexts), nil)
	case context == nil:
		return nil, newInvalid(place+" does not have the "+field, "set context: in config.yml to one of "+joinNames(raw.Contexts), nil)
	case raw.Clusters[context.Cluster] == nil:
		return nil, newInvalid(fmt.Sprintf("%s: the context %q names the cluster %q, which it does not have", place, name, context.Cluster),
			"clusters that it has: "+joinNames(raw.Clusters), nil)
	case context.AuthInfo != "" && raw.AuthInfos[context.AuthInfo] == nil:
		return nil, newInvalid(fmt.Sprintf("%s: the context %q names the user %q, which it does not have", place, name, context.AuthInfo),
			"users that it has: "+joinNames(raw.AuthInfos), nil)
	}
	return context, nil
}

func joinNames[V any](all map[string]V) string {
	names := slices.Sorted(maps.Keys(all))
	if len(names) == 0 {
		return "(none)"
	}
	return strings.Join(names, ", ")
}

// refuseOutside refuses a kubeconfig from a configuration that names programs or files of this machine: whoever may write a
// configuration could run and read them.
func refuseOutside(raw *clientcmdapi.Config, clusterName, userName, place string) error {
	var fields []string
	add := func(field string, isSet bool) {
		if isSet {
			fields = append(fields, field)
		}
	}
	cluster := raw.Clusters[clusterName]
	add("certificate-authority", cluster.CertificateAuthority != "")
	if user := raw.AuthInfos[userName]; user != nil {
		add("client-certificate", user.ClientCertificate != "")
		add("client-key", user.ClientKey != "")
		add("tokenFile", user.TokenFile != "")
		add("exec", user.Exec != nil)
		add("auth-provider", user.AuthProvider != nil)
	}
	if len(fields) == 0 {
		return nil
	}
	return newInvalid(place+" names files or programs of this machine: "+strings.Join(fields, ", "),
		"embed them with: kubectl config view --flatten --minify, or use kubeconfig: {filename: …}", nil)
}

// findDangers returns what is allowed, but should be known.
func findDangers(o Options, place string, config *rest.Config) []string {
	var found []string
	if config.Insecure {
		found = append(found, place+" has insecure-skip-tls-verify: whoever is on the way to the API server can read the credentials")
	}
	if u, err := url.Parse(config.Host); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		found = append(found, place+" has a server with http://: no credentials are sent, and whoever is on the way can read and change everything")
	}
	if info, err := os.Stat(o.KubeconfigFile); err == nil && info.Mode().Perm()&0o077 != 0 {
		found = append(found, place+" can be read by other users of this machine: chmod 600 "+o.KubeconfigFile)
	}
	if expired := findExpired(config, time.Now()); expired != "" {
		found = append(found, place+": "+expired)
	}
	return found
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// findExpired says which credential of a kubeconfig has expired; empty: none that shows it.
func findExpired(config *rest.Config, now time.Time) string {
	data := config.CertData
	if len(data) == 0 && config.CertFile != "" {
		data, _ = os.ReadFile(config.CertFile) // a file that cannot be read is the error of the first request
	}
	if block, _ := pem.Decode(data); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && now.After(cert.NotAfter) {
			return "the client certificate expired on " + cert.NotAfter.UTC().Format("2006-01-02 15:04 UTC")
		}
	}
	if at, ok := readTokenExpiry(config.BearerToken); ok && now.After(at) {
		return "the token expired on " + at.UTC().Format("2006-01-02 15:04 UTC")
	}
	return ""
}

// readTokenExpiry reads when a token ends, if it is a JSON Web Token.
func readTokenExpiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var read struct {
		Expires float64 `json:"exp"`
	}
	if err := json.Unmarshal(claims, &read); err != nil || read.Expires <= 0 {
		return time.Time{}, false
	}
	return time.Unix(int64(read.Expires), 0), true
}
