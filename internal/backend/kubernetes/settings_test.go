package kubernetes

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/decide/traffic"
	"dstack/internal/strictyaml"
)

func readSettings(text string) (Settings, []strictyaml.Problem) {
	problems := &strictyaml.Problems{}
	s := ReadSettings(problems, strictyaml.Load([]byte(text), problems))
	return s, problems.All()
}

func TestReadSettings(t *testing.T) {
	for text, want := range map[string]Settings{
		`kubeconfig: {filename: ~/.kube/config}`: {KubeconfigFile: "~/.kube/config"},
		`kubeconfig: {data: "apiVersion: v1"}`:   {KubeconfigData: "apiVersion: v1"},
		`kubeconfig: {filename: "", data: x}`:    {KubeconfigData: "x"},
		`in_cluster: true`:                       {InCluster: true},
		"name: west\nkubeconfig: {filename: /etc/kube}\ncontext: west\nnamespace: services\nnetwork: port-forward\nautoscaler: true\nnode_wait: 1h\n" +
			"init_image: busybox:1.36\ngateway_image: registry.example.com/dstack:1": {
			Name: "west", KubeconfigFile: "/etc/kube", Context: "west", Namespace: "services", Network: traffic.PortForward, Autoscaler: true,
			NodeWait: time.Hour, InitImage: "busybox:1.36", GatewayImage: "registry.example.com/dstack:1",
		},
		// as the original has it
		"kubeconfig:\n  filename: ~/.kube/config\nproxy_jump:\n  hostname: 204.12.171.137\n  port: 32000": {
			KubeconfigFile: "~/.kube/config", ProxyJump: "`proxy_jump` (204.12.171.137:32000)"},
		"kubeconfig: {filename: ~/.kube/config}\nnetworking: {ssh_host: localhost, ssh_port: 32000}": {
			KubeconfigFile: "~/.kube/config", ProxyJump: "`networking` (localhost:32000)"},
	} {
		got, problems := readSettings(text)
		if want.NodeWait == 0 {
			want.NodeWait = 15 * time.Minute
		}
		if want.Network == "" {
			want.Network = traffic.Auto
		}
		if diff := cmp.Diff(want, got); diff != "" || len(problems) > 0 {
			t.Errorf("%s:\n%s%+v", text, diff, problems)
		}
	}
}

func TestReadSettings_Problems(t *testing.T) {
	const file = "\nkubeconfig: {filename: ~/.kube/config}"
	for text, want := range map[string]string{
		`context: west`:                                 "does not say how to reach its cluster", // and the hint has both ways
		`kubeconfig: {}`:                                "neither `filename` nor `data`",
		`kubeconfig: ~/.kube/config`:                    "`kubeconfig` must be a mapping",
		`kubeconfig: {filename: config}`:                "`config` is relative",
		"in_cluster: true" + file:                       "exclude each other",
		"in_cluster: true\ncontext: west":               "names a part of a kubeconfig",
		"name: West Coast" + file:                       "not a valid name of a cluster",
		"namespace: kube_system" + file:                 "not a valid name of a namespace",
		"network: vpn" + file:                           "not a valid value",
		"node_wait: soon" + file:                        "not a duration",
		"node_wait: 3d" + file:                          "longer than",
		"contexts: [west, east]" + file:                 "several contexts in one backend",
		"contexts: [{name: west}]" + file:               "several contexts in one backend",
		"regions: [eu]" + file:                          "`regions` of a Kubernetes backend",
		"proxy_jump: {hostname: a, port: 70000}" + file: "between 1 and 65535",
		"init_image: ''" + file:                         "the value is empty",
		"nodewait: 3m" + file:                           "unknown field `nodewait`",
		`- west`:                                        "must be a mapping",
	} {
		_, problems := readSettings(text)
		if len(problems) != 1 || !strings.Contains(problems[0].Message, want) || problems[0].Hint == "" || problems[0].Line == 0 {
			t.Errorf("%s: %+v, want %q", text, problems, want)
		}
	}
}

// Whoever puts the content of a kubeconfig in the wrong place does not find its credentials in the server's output.
func TestReadSettings_RepeatsNoCredentials(t *testing.T) {
	content := "apiVersion: v1\n  kind: Config\n  clusters: [{name: c, cluster: {server: https://c}}]\n  users: [{name: u, user: {token: canary}}]"
	for _, text := range []string{"kubeconfig: |\n  " + content, "kubeconfig:\n  filename: |\n    " + strings.ReplaceAll(content, "\n", "\n  ")} {
		_, problems := readSettings(text)
		if len(problems) != 1 || strings.Contains(problems[0].Message+problems[0].Hint, "canary") {
			t.Errorf("%s: %+v", text, problems)
		}
	}
}

// Ways that open the ports of replicas past the gateway say so at the start.
func TestNotice_OpenPorts(t *testing.T) {
	for way, want := range map[traffic.Way]string{traffic.Auto: "", traffic.Direct: "", traffic.NodePort: "who reaches the nodes", traffic.LoadBalancer: "who reaches the load balancers"} {
		b := New(Options{Settings: Settings{KubeconfigFile: "/no/such/file", Network: way}})
		if notice := b.Notice(); (want == "") != (notice == "") || !strings.Contains(notice, want) {
			t.Errorf("%s: %q", way, notice)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}
