package netplace

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"dstack/internal/decide/traffic"
)

func TestParseRoutes(t *testing.T) {
	prefix, address := netip.MustParsePrefix, netip.MustParseAddr
	v4, err := parseRoutes(strings.NewReader(`Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	100	00000000	0	0	0
fleet0	0001F40A	15004D0A	0003	0	0	0	00FFFFFF	0	0	0
docker0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0
*	0000080A	00000000	0200	0	0	0	0000FFFF	0	0	0
eth1	0000090A	00000000	0000	0	0	0	0000FFFF	0	0	0
cut off
`), parseRoute4)
	want := []traffic.Route{
		{To: prefix("0.0.0.0/0"), Gateway: address("192.0.2.1"), Metric: 100},
		{To: prefix("10.244.1.0/24"), Gateway: address("10.77.0.21")},
		{To: prefix("172.17.0.0/16")},
	}
	if err != nil || !reflect.DeepEqual(v4, want) {
		t.Errorf("%v, %v", v4, err)
	}
	v6, err := parseRoutes(strings.NewReader(`fd0000100244000100000000000000000 40 00000000000000000000000000000000 00 fd000077000000000000000000000022 00000400 00000001 00000000 00000003     eth0
fd000010024400010000000000000000 40 00000000000000000000000000000000 00 fd000077000000000000000000000022 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
`), parseRoute6)
	want = []traffic.Route{
		{To: prefix("fd00:10:244:1::/64"), Gateway: address("fd00:77::22"), Metric: 1024},
		{To: prefix("fe80::/64"), Metric: 256},
	}
	if err != nil || !reflect.DeepEqual(v6, want) {
		t.Errorf("%v, %v", v6, err)
	}
}

// The loopback network of IPv6, or a route of IPv4, exists on every machine that runs the tests.
func TestRoutes_OfThisMachine(t *testing.T) {
	if _, err := Routes(); err != nil {
		t.Error(err)
	}
	if id := BootID(); len(id) != 36 {
		t.Errorf("boot ID %q", id)
	}
	if _, err := os.Stat(podAuthorities); err != nil && PodAuthorities() != nil {
		t.Error("authorities outside of a pod")
	}
}
