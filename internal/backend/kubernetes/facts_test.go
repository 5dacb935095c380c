package kubernetes

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	"dstack/internal/decide/node"
)

func TestReadRequests(t *testing.T) {
	for name, c := range map[string]struct {
		spec string
		want node.Amounts
	}{
		"nothing": {`{"containers":[{"name":"c"}]}`, node.Amounts{Pods: 1}},
		"the sum of the containers": {`{"containers":[
			{"resources":{"requests":{"cpu":"250m","memory":"64Mi"}}},
			{"resources":{"requests":{"cpu":"1","memory":"1Gi","ephemeral-storage":"2Gi","nvidia.com/gpu":"2"}}}]}`,
			node.Amounts{MilliCPUs: 1250, MemoryBytes: 64<<20 + 1<<30, DiskBytes: 2 << 30, Pods: 1, Extended: map[string]int64{"nvidia.com/gpu": 2}}},
		"an init container that needs more": {`{"initContainers":[{"resources":{"requests":{"cpu":"3","memory":"1Mi"}}}],
			"containers":[{"resources":{"requests":{"cpu":"1","memory":"2Mi"}}}]}`,
			node.Amounts{MilliCPUs: 3000, MemoryBytes: 2 << 20, Pods: 1}},
		"a sidecar runs beside the others": {`{"initContainers":[
			{"restartPolicy":"Always","resources":{"requests":{"cpu":"500m"}}},{"resources":{"requests":{"cpu":"1"}}}],
			"containers":[{"resources":{"requests":{"cpu":"200m"}}}]}`,
			node.Amounts{MilliCPUs: 1500, Pods: 1}},
		"the overhead of its runtime": {`{"overhead":{"cpu":"100m","memory":"10Mi"},"containers":[{"resources":{"requests":{"cpu":"1"}}}]}`,
			node.Amounts{MilliCPUs: 1100, MemoryBytes: 10 << 20, Pods: 1}},
		"the pod as a whole": {`{"resources":{"requests":{"cpu":"2"}},"containers":[{"resources":{"requests":{"cpu":"1","memory":"1Mi"}}}]}`,
			node.Amounts{MilliCPUs: 2000, MemoryBytes: 1 << 20, Pods: 1}},
	} {
		var p scheduledPod
		if err := json.Unmarshal([]byte(`{"metadata":{"name":"p"},"spec":`+c.spec+`}`), &p); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, readRequests(&p)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Rule 27: Value of a quantity that does not fit is 0 or negative.
func TestReadQuantity(t *testing.T) {
	for text, want := range map[string]int64{
		"4": 4000, "1930m": 1930, "0": 0, "-1": 0, "1e19": math.MaxInt64 / 2, "9223372036854775808": math.MaxInt64 / 2, "0.0001": 1,
	} {
		if got := readQuantity(resource.MustParse(text), resource.Milli); got != want {
			t.Errorf("%s is %d thousandths, want %d", text, got, want)
		}
	}
}
