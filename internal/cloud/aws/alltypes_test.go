package aws

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/gpu"
)

// readAllTypes returns what AWS said of all types of us-east-1, as moto's package has it.
func readAllTypes(t *testing.T) []types.InstanceTypeInfo {
	t.Helper()
	program := needMoto(t)
	files, err := filepath.Glob(filepath.Join(filepath.Dir(program), "..", "lib", "python3*", "site-packages", "moto", "ec2", "resources", "instance_types.json.gz"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the files are %v, %v", files, err)
	}
	file, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // it is only read
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var byName map[string]types.InstanceTypeInfo
	if err := json.NewDecoder(unpacked).Decode(&byName); err != nil {
		t.Fatal(err)
	}
	all := make([]types.InstanceTypeInfo, 0, len(byName))
	for _, info := range byName {
		all = append(all, info)
	}
	return all
}

// TestReadTypes_OfAWS tests the reading of every type that AWS has, with the names that its API gives to GPUs.
func TestReadTypes_OfAWS(t *testing.T) {
	all := readAllTypes(t)
	rows := readTypes(all)
	withGPUs := 0
	for _, info := range all {
		name := string(info.InstanceType)
		row, isRead := rows[name]
		if isRead == strings.HasPrefix(name, "mac") {
			t.Errorf("%s is read: %t", name, isRead)
		}
		if isOld := info.Hypervisor == types.InstanceTypeHypervisorXen; isOld == isNitro(name) {
			t.Errorf("%s is of Nitro: %t", name, !isOld)
		}
		if info.GpuInfo == nil {
			continue
		}
		withGPUs++
		_, isKnown := gpu.Find(row.GPUName)
		isPart := strings.Contains(name, "6f.")
		if !isKnown || row.GPUMaker != "nvidia" || row.GPUMemoryMiB < 2<<10 || isPart != (row.GPUs == 0) || isPart != (row.GPUFraction > 0) {
			t.Errorf("%s is read as %+v", name, row)
		}
	}
	if withGPUs < 50 {
		t.Errorf("only %d types have GPUs", withGPUs)
	}
	for name, memoryMiB := range map[string]int64{"p4d.24xlarge": 40 << 10, "p4de.24xlarge": 80 << 10, "p5e.48xlarge": 141 << 10, "p6-b300.48xlarge": 270 << 10, "g7e.2xlarge": 96 << 10, "trn2.48xlarge": 0} {
		if got := rows[name].GPUMemoryMiB; got != memoryMiB {
			t.Errorf("each GPU of %s has %d MiB, want %d", name, got, memoryMiB)
		}
	}
}
