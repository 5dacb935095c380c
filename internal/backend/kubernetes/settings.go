package kubernetes

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"dstack/internal/decide/traffic"
	"dstack/internal/human"
	"dstack/internal/spec"
	"dstack/internal/strictyaml"
)

// Settings are the settings of a cluster in config.yml.
type Settings struct {
	Name           string // of the cluster; empty: it is the only one, or the first
	KubeconfigFile string // absolute, or below ~; empty: see InCluster
	KubeconfigData string
	InCluster      bool // the service account of the pod that the server runs in
	Context        string
	Namespace      string
	Autoscaler     bool // the cluster adds nodes for pods that wait
	NodeWait       time.Duration
	InitImage      string // has tar, for images that have none; empty: the service's own image
	GatewayImage   string // of dstack, for gateways in the cluster; empty: that of this version
	Network        traffic.Way
	ProxyJump      string // what the configuration of the original says about it: an address that is not used; empty: nothing
}

// defaultNodeWait is how long a pod waits for a node that an autoscaler adds.
const defaultNodeWait = 15 * time.Minute

const maxNodeWait = 24 * time.Hour

// clusterName is the pattern of Settings.Name, which is part of keys and of names of hosts.
var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// namespaceName is the pattern of the names of namespaces.
var namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Key returns the key of the cluster in a backend.Set.
func (s Settings) Key() string {
	if s.Name == "" {
		return "kubernetes"
	}
	return "kubernetes-" + s.Name
}

// Choices returns the values that settings may have, as the API's clients see them.
func Choices() map[string]any { return map[string]any{"networks": traffic.Ways} }

const addKubeconfig = "add kubeconfig: {filename: ~/.kube/config}, or, for a server in a pod of the cluster, in_cluster: true"

// ReadSettings reads the settings of a cluster. It adds everything that is wrong to problems.
func ReadSettings(problems *strictyaml.Problems, block *strictyaml.Node) Settings {
	s := Settings{NodeWait: defaultNodeWait, Network: traffic.Auto}
	r := settingsReader{problems, &s}
	problems.ReadFields(block, "a Kubernetes backend", []strictyaml.Field{
		{Name: "name", Read: r.readName},
		{Name: "kubeconfig", Nullable: true, Read: r.readKubeconfig},
		{Name: "in_cluster", Read: func(n *strictyaml.Node) { s.InCluster, _ = problems.ReadBool(n) }},
		{Name: "context", Read: r.readTextInto(&s.Context)},
		{Name: "namespace", Nullable: true, Read: r.readNamespace},
		{Name: "network", Read: r.readNetwork},
		{Name: "autoscaler", Read: func(n *strictyaml.Node) { s.Autoscaler, _ = problems.ReadBool(n) }},
		{Name: "node_wait", Read: r.readNodeWait},
		{Name: "init_image", Read: r.readTextInto(&s.InitImage)},
		{Name: "gateway_image", Read: r.readTextInto(&s.GatewayImage)},
		{Name: "proxy_jump", Nullable: true, Read: r.readJump("`proxy_jump`", "hostname", "port")},
		{Name: "networking", Nullable: true, Read: r.readJump("`networking`", "ssh_host", "ssh_port")},
		{Name: "contexts", Nullable: true, Read: r.refuseContexts},
		{Name: "regions", Nullable: true, Read: r.refuseRegions},
	})
	hasKubeconfig := !block.Get("kubeconfig").IsNull()
	switch {
	case block.Kind != strictyaml.Mapping:
	case !hasKubeconfig && !s.InCluster:
		at := *block
		at.Path = block.Path + ".kubeconfig"
		problems.Add(&at, "the backend does not say how to reach its cluster", addKubeconfig)
	case hasKubeconfig && s.InCluster:
		problems.Add(block.Get("in_cluster"), "`kubeconfig` and `in_cluster` exclude each other", "remove one of them")
	case s.InCluster && s.Context != "":
		problems.Add(block.Get("context"), "`context` names a part of a kubeconfig, and `in_cluster` has none", "remove one of them")
	}
	return s
}

type settingsReader struct {
	*strictyaml.Problems
	settings *Settings
}

// readTextInto returns a reader of text that is not empty.
func (r settingsReader) readTextInto(to *string) func(n *strictyaml.Node) {
	return func(n *strictyaml.Node) {
		text, ok := r.ReadText(n)
		if ok && strings.TrimSpace(text) == "" {
			r.Add(n, "the value is empty", "add a value, or remove the line")
		}
		*to = strings.TrimSpace(text)
	}
}

func (r settingsReader) readName(n *strictyaml.Node) {
	name, ok := r.ReadText(n)
	if ok && !clusterName.MatchString(name) {
		r.Add(n, n.Describe()+" is not a valid name of a cluster", "use at most 40 lower-case letters, digits and dashes, with a letter or digit at both ends")
	}
	r.settings.Name = name
}

func (r settingsReader) readNamespace(n *strictyaml.Node) {
	name, ok := r.ReadText(n)
	if ok && !namespaceName.MatchString(name) {
		r.Add(n, n.Describe()+" is not a valid name of a namespace", "use at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends")
	}
	r.settings.Namespace = name
}

func (r settingsReader) readKubeconfig(n *strictyaml.Node) {
	if n.IsScalar() {
		hint := "write kubeconfig: {filename: ~/.kube/config}, or kubeconfig: {data: …}"
		if isPath(n.Text) { // nothing else is repeated: it may be the content, which has credentials
			hint = fmt.Sprintf("write kubeconfig: {filename: %s}", n.Text)
		}
		r.Add(n, "`kubeconfig` must be a mapping, not "+n.Describe(), hint)
		return
	}
	ok := r.ReadFields(n, "`kubeconfig`", []strictyaml.Field{
		{Name: "filename", Read: r.readFilename},
		{Name: "data", Nullable: true, Read: r.readTextInto(&r.settings.KubeconfigData)},
	})
	s := r.settings
	switch {
	case !ok:
	case s.KubeconfigData != "": // the original writes both, with the data that it read from the file
		s.KubeconfigFile = ""
	case s.KubeconfigFile == "" && n.Get("data").IsNull():
		r.Add(n, "`kubeconfig` has neither `filename` nor `data`", "write kubeconfig: {filename: ~/.kube/config}")
	}
}

// isPath reports whether a text is a path that does not depend on the current folder.
func isPath(text string) bool { return filepath.IsAbs(text) || strings.HasPrefix(text, "~/") }

func (r settingsReader) readFilename(n *strictyaml.Node) {
	name, _ := r.ReadText(n)
	r.settings.KubeconfigFile = strings.TrimSpace(name)
	if name := r.settings.KubeconfigFile; name != "" && !isPath(name) {
		r.Add(n, n.Describe()+" is relative, and the server may be started in any folder", "write an absolute path, or one that begins with ~/")
	}
}

func (r settingsReader) readNetwork(n *strictyaml.Node) {
	allowed := make([]string, len(traffic.Ways))
	for i, w := range traffic.Ways {
		allowed[i] = string(w)
	}
	text, _ := r.ReadOneOf(n, allowed...)
	r.settings.Network = traffic.Way(text)
}

func (r settingsReader) readNodeWait(n *strictyaml.Node) {
	limit := human.ExactDuration(maxNodeWait)
	hint := "write a duration from 0s to " + limit + ", such as 15m"
	if !n.IsScalar() || n.Kind == strictyaml.Bool {
		r.Add(n, n.Describe()+" is not a duration", hint)
		return
	}
	seconds, err := spec.ParseDuration(n.Text)
	wait := time.Duration(seconds) * time.Second
	switch {
	case err != nil:
		r.Add(n, n.Describe()+" is not a duration", hint)
	case wait > maxNodeWait:
		r.Add(n, n.Describe()+" is longer than "+limit, hint)
	default:
		r.settings.NodeWait = wait
	}
}

const maxPort = 65535

// readJump reads what the original needs to reach pods through SSH. Nothing uses it here.
func (r settingsReader) readJump(what, hostKey, portKey string) func(n *strictyaml.Node) {
	return func(n *strictyaml.Node) {
		host, port := "", 0
		r.ReadFields(n, what, []strictyaml.Field{
			{Name: hostKey, Nullable: true, Read: func(n *strictyaml.Node) { host, _ = r.ReadText(n) }},
			{Name: portKey, Nullable: true, Read: func(n *strictyaml.Node) { port, _ = r.ReadInt(n, 1, maxPort) }},
		})
		r.settings.ProxyJump = what
		if host != "" || port != 0 {
			r.settings.ProxyJump = fmt.Sprintf("%s (%s:%d)", what, host, port)
		}
	}
}

func (r settingsReader) refuseContexts(n *strictyaml.Node) {
	names := []string{}
	for _, item := range n.Items {
		if text := item.Text; item.IsScalar() {
			names = append(names, text)
		} else if name := item.Get("name"); name != nil {
			names = append(names, name.Text)
		}
	}
	if len(names) == 0 {
		names = []string{"…"}
	}
	r.AddUnsupported(n, "several contexts in one backend", "write one backend for each context, such as: - {type: kubernetes, name: "+
		strings.ToLower(names[0])+", context: "+names[0]+", kubeconfig: …}")
}

func (r settingsReader) refuseRegions(n *strictyaml.Node) {
	r.AddUnsupported(n, "`regions` of a Kubernetes backend",
		"write `regions` into the configurations or profiles of services; nodes have the region and zone of their topology labels")
}
