package aws

import (
	"slices"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/catalogue"
	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/dstack"
)

func TestListTypes_WithPrices(t *testing.T) {
	r := open(t, ec2test.Options{PageSize: 4}, nil)
	rows, err := r.ListTypes(t.Context(), "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	find := func(name, zone string, spot bool) catalogue.Row {
		t.Helper()
		i := slices.IndexFunc(rows, func(row catalogue.Row) bool { return row.Type == name && row.Zone == zone && row.Spot == spot })
		if i < 0 {
			t.Fatalf("there is no row of %s in %q", name, zone)
		}
		return rows[i]
	}
	if got := find("g6.xlarge", "", false); got.Price != 0.8048 || got.CPUs != 4 || got.MemoryMiB != 16<<10 || got.GPUs != 1 ||
		got.GPUName != "L4" || got.GPUMaker != "nvidia" || got.GPUMemoryMiB != 24<<10 || got.Arch != "x86" || got.DiskMiB != 0 {
		t.Errorf("g6.xlarge is %+v", got)
	}
	if got := find("g6.xlarge", "us-east-1a", true); got.Price != 0.3321 || !got.Spot {
		t.Errorf("the spot row of g6.xlarge is %+v", got)
	}
	if got := find("g6f.large", "", false); got.GPUs != 0 || got.GPUFraction != 0.125 || got.GPUMemoryMiB != 2861 {
		t.Errorf("g6f.large is %+v, want a part of a GPU", got)
	}
	if got := find("p5.48xlarge", "", false); got.GPUs != 8 || got.GPUMemoryMiB != 80<<10 {
		t.Errorf("p5.48xlarge is %+v", got)
	}
	if got := find("inf2.xlarge", "", false); got.GPUMaker != "aws" || got.GPUName != "Inferentia2" || got.GPUs != 1 {
		t.Errorf("inf2.xlarge is %+v", got)
	}
	if got := find("c7g.xlarge", "", false); got.Arch != "arm" {
		t.Errorf("c7g.xlarge is %+v", got)
	}
	if slices.ContainsFunc(rows, func(row catalogue.Row) bool { return row.Type == "p5.48xlarge" && row.Spot }) {
		t.Error("p5.48xlarge is not sold as spot")
	}
}

func TestListTypes_WithoutTheRight(t *testing.T) {
	r := open(t, ec2test.Options{Keys: map[string]ec2test.Key{ec2test.AccessKey: {Secret: ec2test.SecretKey, Denied: []string{"pricing:GetProducts", "servicequotas:*"}}}}, nil)
	_, err := r.ListTypes(t.Context(), "us-east-1")
	expectError(t, err, dstack.Forbidden, "aws: the credentials lack the right pricing:GetProducts")
	if quotas, err := r.ListQuotas(t.Context(), "us-east-1"); err != nil || len(quotas) != 0 {
		t.Errorf("the quotas are %v, %v, want none that are known", quotas, err)
	}
}

func TestReadGPU_NamesOfTheAPI(t *testing.T) {
	for _, c := range []struct {
		maker, name string
		mib         int32
		want        catalogue.Row
	}{
		{"NVIDIA", "RTX PRO Server 6000", 97887, catalogue.Row{GPUName: "RTXPRO6000", GPUMaker: "nvidia", GPUMemoryMiB: 96 << 10}},
		{"NVIDIA", "RTX PRO 4500", 32623, catalogue.Row{GPUName: "RTXPRO4500", GPUMaker: "nvidia", GPUMemoryMiB: 32 << 10}},
		{"NVIDIA", "T4g", 16384, catalogue.Row{GPUName: "T4G", GPUMaker: "nvidia", GPUMemoryMiB: 16 << 10}},
		{"NVIDIA", "L40S", 45776, catalogue.Row{GPUName: "L40S", GPUMaker: "nvidia", GPUMemoryMiB: 48 << 10}},
		{"NVIDIA", "A10G", 22888, catalogue.Row{GPUName: "A10G", GPUMaker: "nvidia", GPUMemoryMiB: 24 << 10}},
		{"NVIDIA", "H200", 144384, catalogue.Row{GPUName: "H200", GPUMaker: "nvidia", GPUMemoryMiB: 141 << 10}},
		{"NVIDIA", "B300", 275040, catalogue.Row{GPUName: "B300", GPUMaker: "nvidia", GPUMemoryMiB: 270 << 10}},
		{"Habana", "Gaudi HL-205", 32768, catalogue.Row{GPUName: "GaudiHL-205", GPUMaker: "intel", GPUMemoryMiB: 32 << 10}},
	} {
		row := catalogue.Row{}
		readGPU(&row, types.GpuDeviceInfo{Manufacturer: sdk.String(c.maker), Name: sdk.String(c.name), Count: sdk.Int32(1),
			MemoryInfo: &types.GpuDeviceMemoryInfo{SizeInMiB: sdk.Int32(c.mib)}})
		if row.GPUName != c.want.GPUName || row.GPUMaker != c.want.GPUMaker || row.GPUMemoryMiB != c.want.GPUMemoryMiB || row.GPUs != 1 {
			t.Errorf("%s is %+v, want %+v", c.name, row, c.want)
		}
	}
}

func TestListZones_OfTheNetwork(t *testing.T) {
	regions := map[string]ec2test.Region{"us-east-1": {Zones: []string{"us-east-1a", "us-east-1b", "us-east-1c"}, VPCs: []ec2test.VPC{
		{IsDefault: true, Subnets: []ec2test.Subnet{{Zone: "us-east-1a", IsPublic: true}, {Zone: "us-east-1c", IsPublic: true}}}}}}
	r := open(t, ec2test.Options{Regions: regions, PageSize: 3}, nil)
	zones, err := r.ListZones(t.Context(), "us-east-1")
	if err != nil || !slices.Equal(zones["g6.xlarge"], []string{"us-east-1a"}) || !slices.Equal(zones["t3.micro"], []string{"us-east-1a", "us-east-1c"}) {
		t.Errorf("the zones are %v, %v", zones, err)
	}
}

func TestListQuotas_OfFamilies(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	r.ec2.SetQuota("us-east-1", "L-417A185B", 0)
	quotas, err := r.ListQuotas(t.Context(), "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, q := range quotas {
		found[q.Name] = q.CPUs
	}
	if cpus, known := found["Running On-Demand P instances"]; !known || cpus != 0 {
		t.Errorf("the quotas are %v", found)
	}
	if found["All G and VT Spot Instance Requests"] != 192 {
		t.Errorf("the quotas are %v", found)
	}
	for name, want := range map[string]string{"g6.xlarge": "G and VT", "inf2.xlarge": "Inf", "i4i.large": families[len(families)-1].name, "trn1.2xlarge": "Trn",
		"t3.micro": families[len(families)-1].name, "hpc7a.96xlarge": "HPC", "h1.2xlarge": families[len(families)-1].name, "dl1.24xlarge": "DL", "p6-b200.48xlarge": "P", "u-6tb1.metal": "High Memory"} {
		if got := familyOf(name).name; got != want {
			t.Errorf("the family of %s is %s, want %s", name, got, want)
		}
	}
}
