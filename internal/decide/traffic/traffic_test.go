package traffic_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/traffic"
)

var at = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func route(to, gateway string, metric int) traffic.Route {
	r := traffic.Route{To: netip.MustParsePrefix(to), Metric: metric}
	if gateway != "" {
		r.Gateway = netip.MustParseAddr(gateway)
	}
	return r
}

func TestChoose(t *testing.T) {
	pod := traffic.Target{Address: netip.MustParseAddr("10.244.1.5"), Node: netip.MustParseAddr("10.77.0.22")}
	unknownNode := traffic.Target{Address: pod.Address}
	internet, throughNode := route("0.0.0.0/0", "192.168.1.1", 0), route("10.244.1.0/24", "10.77.0.22", 0)
	failed := func(ago time.Duration) traffic.Target {
		target := pod
		target.DirectFailedAt = at.Add(-ago)
		return target
	}
	for name, c := range map[string]struct {
		setting    traffic.Way
		place      traffic.Place
		target     traffic.Target
		way, other traffic.Way
		reason     string
	}{
		"nothing is known":       {traffic.Auto, traffic.Place{}, pod, traffic.PortForward, "", "outside of the cluster"},
		"no setting":             {"", traffic.Place{}, pod, traffic.PortForward, "", "outside of the cluster"},
		"in the cluster":         {traffic.Auto, traffic.Place{IsInCluster: true}, pod, traffic.Direct, traffic.PortForward, "runs in the cluster"},
		"only the default route": {traffic.Auto, traffic.Place{Routes: []traffic.Route{internet}}, pod, traffic.PortForward, "", "no route"},
		"a route through the pod's node": {traffic.Auto, traffic.Place{Routes: []traffic.Route{internet, throughNode}}, pod, traffic.Direct,
			traffic.PortForward, "10.244.1.0/24 through the node 10.77.0.22"},
		"a more specific route elsewhere": {traffic.Auto, traffic.Place{Routes: []traffic.Route{throughNode, route("10.244.1.4/30", "10.9.9.9", 0)}}, pod,
			traffic.PortForward, "", "no route"},
		"the better metric leads elsewhere": {traffic.Auto, traffic.Place{Routes: []traffic.Route{route("10.244.1.0/24", "10.77.0.22", 10),
			route("10.244.1.0/24", "10.9.9.9", 1)}}, pod, traffic.PortForward, "", "no route"},
		"a route through another node": {traffic.Auto, traffic.Place{Routes: []traffic.Route{route("10.244.0.0/16", "10.77.0.21", 0)}}, pod,
			traffic.PortForward, "", "no route"},
		"a route on the link, as of another cluster's bridge": {traffic.Auto, traffic.Place{Routes: []traffic.Route{route("10.244.1.0/24", "", 0)}}, pod,
			traffic.PortForward, "", "no route"},
		"the node is not known": {traffic.Auto, traffic.Place{Routes: []traffic.Route{throughNode}}, unknownNode, traffic.PortForward, "", "no route"},
		"on a node, with its bridge": {traffic.Auto, traffic.Place{IsNode: true, Routes: []traffic.Route{internet, route("10.244.1.0/24", "", 0)}}, pod,
			traffic.Direct, traffic.PortForward, "is a node"},
		"on the machine of a node that is a container, as with kind": {traffic.Auto, traffic.Place{IsNode: true, Routes: []traffic.Route{internet}}, pod,
			traffic.PortForward, "", "no route"},
		"the address failed": {traffic.Auto, traffic.Place{IsInCluster: true}, failed(10 * time.Second), traffic.PortForward, "", "NetworkPolicy"},
		"the address failed long ago": {traffic.Auto, traffic.Place{IsInCluster: true}, failed(2 * time.Minute), traffic.Direct, traffic.PortForward,
			"runs in the cluster"},
		"direct by configuration":       {traffic.Direct, traffic.Place{}, failed(time.Second), traffic.Direct, "", "network: direct"},
		"port-forward by configuration": {traffic.PortForward, traffic.Place{IsInCluster: true}, pod, traffic.PortForward, "", "network: port-forward"},
		"node-port by configuration":    {traffic.NodePort, traffic.Place{IsInCluster: true}, pod, traffic.NodePort, "", "network: node-port"},
	} {
		got := traffic.Choose(c.setting, c.place, c.target, at)
		if got.Way != c.way || got.Other != c.other || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestChoose_IPv6(t *testing.T) {
	target := traffic.Target{Address: netip.MustParseAddr("fd00:10:244:1::5"), Node: netip.MustParseAddr("fd00:77::22")}
	place := traffic.Place{Routes: []traffic.Route{route("::/0", "fe80::1", 0), route("fd00:10:244:1::/64", "fd00:77::22", 1024)}}
	if got := traffic.Choose(traffic.Auto, place, target, at); got.Way != traffic.Direct {
		t.Errorf("%+v", got)
	}
}

func TestIsSameCluster(t *testing.T) {
	for _, c := range []struct {
		kubeconfig, pod []string
		want            bool
	}{
		{nil, nil, false},
		{[]string{"a"}, nil, false},
		{[]string{"a"}, []string{"b"}, false},
		{[]string{"old", "new"}, []string{"new"}, true},
	} {
		if got := traffic.IsSameCluster(c.kubeconfig, c.pod); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
