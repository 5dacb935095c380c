package gcp_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"dstack/internal/catalogue"
	"dstack/internal/cloud"
	"dstack/internal/cloud/gcp/computetest"
	"dstack/internal/dstack"
)

// TestListTypes: the prices of machines are put together from those of cores, memory and GPUs.
func TestListTypes(t *testing.T) {
	s := startServer(t, computetest.Options{PageSize: 7})
	p := openProvider(t, newSettings(s), "i")
	rows, err := p.ListTypes(t.Context(), "us-central1")
	if err != nil {
		t.Fatal(err)
	}
	find := func(name, gpu string, gpus int, spot bool) (found []catalogue.Row) {
		for _, r := range rows {
			if r.Type == name && r.GPUName == gpu && r.GPUs == gpus && r.Spot == spot {
				found = append(found, r)
			}
		}
		return found
	}
	for _, c := range []struct {
		name  string
		gpu   string
		gpus  int
		price float64
		zones []string // empty: all of the region
		want  catalogue.Row
	}{
		{"e2-standard-2", "", 0, 2*0.021811 + 8*0.002923, nil, catalogue.Row{CPUs: 2, Arch: "x86", MemoryMiB: 8 << 10}},
		{"c4a-standard-4", "", 0, 4*0.0294 + 16*0.00342, nil, catalogue.Row{CPUs: 4, Arch: "arm", MemoryMiB: 16 << 10}},
		{"g2-standard-4", "L4", 1, 4*0.024988 + 16*0.002927 + 0.56004, []string{"us-central1-a", "us-central1-b"}, catalogue.Row{CPUs: 4, Arch: "x86", MemoryMiB: 16 << 10, GPUMemoryMiB: 24 << 10}},
		{"a2-highgpu-1g", "A100", 1, 12*0.031611 + 85*0.004237 + 2.933908, []string{"us-central1-c"}, catalogue.Row{CPUs: 12, Arch: "x86", MemoryMiB: 85 << 10, GPUMemoryMiB: 40 << 10}},
		{"a3-highgpu-8g", "H100", 8, 208*0.029388 + 1872*0.002560 + 8*9.796552, []string{"us-central1-a"}, catalogue.Row{CPUs: 208, Arch: "x86", MemoryMiB: 1872 << 10, GPUMemoryMiB: 80 << 10}},
		{"n1-standard-4", "T4", 4, 4*0.031611 + 15*0.004237 + 4*0.35, []string{"us-central1-a", "us-central1-b"}, catalogue.Row{CPUs: 4, Arch: "x86", MemoryMiB: 15 << 10, GPUMemoryMiB: 16 << 10}},
		{"n1-standard-4", "V100", 1, 4*0.031611 + 15*0.004237 + 2.48, []string{"us-central1-a"}, catalogue.Row{CPUs: 4, Arch: "x86", MemoryMiB: 15 << 10, GPUMemoryMiB: 16 << 10}},
		{"n1-standard-4", "", 0, 4*0.031611 + 15*0.004237, nil, catalogue.Row{CPUs: 4, Arch: "x86", MemoryMiB: 15 << 10}},
	} {
		for spot, part := range map[bool]float64{false: 1, true: 0.33} {
			found := find(c.name, c.gpu, c.gpus, spot)
			zones := []string{}
			for _, r := range found {
				if r.Zone != "" {
					zones = append(zones, r.Zone)
				}
				got := r
				got.Type, got.Region, got.Zone, got.Price, got.Spot, got.GPUs, got.GPUName, got.GPUMaker = "", "", "", 0, false, 0, "", ""
				if math.Abs(r.Price-c.price*part) > 0.0001 || fmt.Sprint(got) != fmt.Sprint(c.want) || (r.GPUMaker == "nvidia") != (c.gpus > 0) {
					t.Errorf("%s with %d %s, spot %t: %+v, want the price %f and %+v", c.name, c.gpus, c.gpu, spot, r, c.price*part, c.want)
				}
			}
			if slices.Sort(zones); len(found) != max(1, len(c.zones)) || !slices.Equal(zones, c.zones) && len(zones)+len(c.zones) > 0 {
				t.Errorf("%s with %d %s, spot %t: in %v, want %v", c.name, c.gpus, c.gpu, spot, zones, c.zones)
			}
		}
	}
	for _, r := range rows {
		if r.Type == "e2-micro" || strings.HasPrefix(r.Type, "ct5lp") {
			t.Errorf("%+v: too small, or a TPU", r)
		}
	}
	if got := find("n1-standard-64", "V100", 1, false); len(got) > 0 {
		t.Errorf("%+v: a V100 goes with 12 CPUs at most", got)
	}
}

// TestListTypes_NoBilling: without the right to read prices there are none, and it is said why.
func TestListTypes_NoBilling(t *testing.T) {
	s := startServer(t, computetest.Options{})
	s.Inject(computetest.Fault{Method: "skus.list", Status: http.StatusForbidden, Reason: "accessNotConfigured", Message: "Cloud Billing API has not been used in project 1 before or it is disabled."})
	_, err := openProvider(t, newSettings(s), "i").ListTypes(t.Context(), "us-central1")
	if dstack.KindOf(err) != dstack.Forbidden || !strings.Contains(err.Error(), "Cloud Billing") || !strings.Contains(hintOf(err), "cloudbilling.googleapis.com") {
		t.Errorf("%v, hint %q", err, hintOf(err))
	}
}

func TestListZones(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	zones, err := p.ListZones(t.Context(), "us-central1")
	if err != nil || fmt.Sprint(zones["a2-highgpu-1g"]) != "[us-central1-c]" || len(zones["e2-standard-2"]) != 3 || zones["e2-micro"] != nil || zones["ct5lp-hightpu-4t"] != nil {
		t.Errorf("%v, %v", zones, err)
	}
	before := s.CountCalls("")
	if _, err := p.ListZones(t.Context(), "us-central1"); err != nil || s.CountCalls("") != before {
		t.Errorf("%v: it was asked again", err)
	}
	if zones, err := p.ListZones(t.Context(), "mars-north1"); err != nil || len(zones) > 0 {
		t.Errorf("%v, %v", zones, err)
	}
	networks := []computetest.Network{{Project: computetest.DefaultProject, Name: "default", Subnets: map[string]string{"us-east1": "default"}}}
	p = openProvider(t, newSettings(startServer(t, computetest.Options{Networks: networks})), "i")
	if zones, err := p.ListZones(t.Context(), "us-central1"); err != nil || len(zones) > 0 {
		t.Errorf("%v, %v, but the region has no subnet", zones, err)
	}
}

func TestListQuotas(t *testing.T) {
	s := startServer(t, computetest.Options{})
	quotas, err := openProvider(t, newSettings(s), "i").ListQuotas(t.Context(), "us-central1")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []cloud.Quota{
		{Name: "CPUS", Types: []string{"n1-*", "e2-*", "f1-*", "g1-*"}, CPUs: 200},
		{Name: "CPUS", Types: []string{"n1-*", "e2-*", "f1-*", "g1-*"}, CPUs: 200, Spot: true}, // it has none for preemptible machines
		{Name: "N2_CPUS", Types: []string{"n2-*"}, CPUs: 200},
		{Name: "NVIDIA_L4_GPUS", Types: []string{"g2-*"}, CPUs: 8, IsGPU: true},
		{Name: "PREEMPTIBLE_NVIDIA_L4_GPUS", Types: []string{"g2-*"}, CPUs: 16, IsGPU: true, Spot: true},
		{Name: "NVIDIA_T4_GPUS", Types: []string{"n1-*"}, CPUs: 8, IsGPU: true, GPU: "T4"},
		{Name: "NVIDIA_V100_GPUS", Types: []string{"n1-*"}, CPUs: 0, IsGPU: true, GPU: "V100"},
		{Name: "NVIDIA_A100_GPUS", Types: []string{"a2-highgpu-*", "a2-megagpu-*"}, CPUs: 8, IsGPU: true},
		{Name: "GPUS_ALL_REGIONS", Types: []string{"*"}, CPUs: 100, IsGPU: true, Spot: true},
		{Name: "CPUS_ALL_REGIONS", Types: []string{"*"}, CPUs: 1000},
	} {
		if !slices.ContainsFunc(quotas, func(q cloud.Quota) bool { return fmt.Sprint(q) == fmt.Sprint(want) }) {
			t.Errorf("no %+v among %+v", want, quotas)
		}
	}
	for _, q := range quotas {
		if strings.Contains(q.Name, "COMMITTED") || strings.Contains(q.Name, "VWS") || strings.Contains(q.Name, "SSD") || q.Types == nil {
			t.Errorf("%+v limits no machines of dstack", q)
		}
	}
}

// TestDisks: what the contract does not say.
func TestDisks(t *testing.T) {
	s := startServer(t, computetest.Options{})
	p := openProvider(t, newSettings(s), "i")
	small, err := p.CreateDisk(t.Context(), cloud.Disk{Volume: "small", Region: "us-east1", SizeMiB: 1500})
	if err != nil || small.Zone != "us-east1-b" || small.SizeMiB != 10<<10 || small.Price != 1 || small.Device.ByID != "google-"+small.Ref {
		t.Errorf("%+v, %v, want the least size in the first zone", small, err)
	}
	m := mustLaunch(t, p, newLaunch("one", "e2-standard-2", "us-central1-a"))
	if err := p.AttachDisk(t.Context(), small, m); dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "is in us-east1-b") {
		t.Errorf("%v: the machine is in another zone", err)
	}
	if _, err := p.CreateDisk(t.Context(), cloud.Disk{Volume: "nowhere", Region: "mars-north1", SizeMiB: 1 << 20}); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("%v", err)
	}
	for _, zone := range []string{"us-central1-a", "us-central1-b"} {
		s.AddDisk(computetest.Disk{Name: "data", Zone: zone, SizeGB: 20})
	}
	if _, err := p.CreateDisk(t.Context(), cloud.Disk{Ref: "data", IsExternal: true, Region: "us-central1"}); dstack.KindOf(err) != dstack.Conflict || !strings.Contains(hintOf(err), "availability_zone") {
		t.Errorf("%v, hint %q: there are two", err, hintOf(err))
	}
	if d, err := p.CreateDisk(t.Context(), cloud.Disk{Ref: "data", IsExternal: true, Region: "us-central1", Zone: "us-central1-b", Volume: "v"}); err != nil || d.Zone != "us-central1-b" || d.Volume != "v" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := p.CreateDisk(t.Context(), cloud.Disk{Ref: "projects/x/disks/data", IsExternal: true, Region: "us-central1"}); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("%v", err)
	}
	foreign := cloud.Disk{Volume: "v", Ref: "data", Region: "us-central1", Zone: "us-central1-a"}
	if err := p.DeleteDisk(t.Context(), foreign); dstack.KindOf(err) != dstack.Forbidden {
		t.Errorf("%v: the disk is not marked", err)
	}
	s.SetSteps(computetest.Steps{Disk: 10})
	s.Inject(computetest.Fault{Method: "disks.insert", Code: "QUOTA_EXCEEDED", Status: 403, Message: "Quota 'SSD_TOTAL_GB' exceeded.  Limit: 500.0 in region us-east1.", Times: 1})
	if _, err := p.CreateDisk(t.Context(), cloud.Disk{Volume: "large", Region: "us-east1", SizeMiB: 1 << 20}); dstack.KindOf(err) != dstack.NoCapacity || !strings.Contains(err.Error(), "SSD_TOTAL_GB of us-east1") {
		t.Errorf("%v", err)
	}
}
