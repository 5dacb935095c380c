package catalogue

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dstack/internal/gpu"
)

// readKarpenter reads a file of the module karpenter-provider-aws, which has data of AWS that others collected.
func readKarpenter(t *testing.T, path string) string {
	t.Helper()
	folder := os.Getenv("DSTACK_TEST_KARPENTER")
	if folder == "" {
		t.Skip("needs karpenter: DSTACK_TEST_KARPENTER is not set: it is the folder of the module karpenter-provider-aws")
	}
	text, err := os.ReadFile(filepath.Join(folder, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// reportedGPU is a card as its driver reports it on a type of AWS.
type reportedGPU struct {
	count      int
	name       string
	capability [2]int
	memoryMiB  int64
}

var (
	karpenterType       = regexp.MustCompile(`(?m)^\t"([a-z0-9.-]+)": \{$`)
	karpenterCount      = regexp.MustCompile(`Count: (\d+)`)
	karpenterName       = regexp.MustCompile(`"productName": +\{StringValue: strPtr\("([^"]+)"\)`)
	karpenterCapability = regexp.MustCompile(`"cudaComputeCapability": +\{VersionValue: strPtr\("(\d+)\.(\d+)\.`)
	karpenterMemory     = regexp.MustCompile(`"memory": \{Value: resource.MustParse\("(\d+)(Mi|Gi)"\)`)
)

func readReportedGPUs(t *testing.T) map[string]reportedGPU {
	t.Helper()
	text := readKarpenter(t, "pkg/providers/drametadata/zz_generated_gpu_metadata.go")
	number := func(digits string) int {
		n, err := strconv.Atoi(digits)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	all := map[string]reportedGPU{}
	starts := karpenterType.FindAllStringSubmatchIndex(text, -1)
	for i, start := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		block := text[start[1]:end]
		count, name := karpenterCount.FindStringSubmatch(block), karpenterName.FindStringSubmatch(block)
		capability, memory := karpenterCapability.FindStringSubmatch(block), karpenterMemory.FindStringSubmatch(block)
		if count == nil || name == nil || capability == nil || memory == nil {
			t.Fatalf("%s has no card: %.300s", text[start[2]:start[3]], block)
		}
		card := reportedGPU{number(count[1]), name[1], [2]int{number(capability[1]), number(capability[2])}, int64(number(memory[1]))}
		if memory[2] == "Gi" {
			card.memoryMiB <<= 10
		}
		all[text[start[2]:start[3]]] = card
	}
	return all
}

// apiGPU is a card as DescribeInstanceTypes has it.
type apiGPU struct {
	Name             string
	Manufacturer     string
	Count            int
	LogicalGpuCount  int
	GpuPartitionSize float64
	MemoryInfo       struct{ SizeInMiB int64 }
}

// readAPITypes reads the types of AWS that moto has recorded, those with GPUs.
func readAPITypes(t *testing.T) map[string]apiGPU {
	t.Helper()
	server := os.Getenv("DSTACK_TEST_MOTO")
	if server == "" {
		t.Skip("needs moto: DSTACK_TEST_MOTO is not set: it is moto_server of moto")
	}
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(server)), "lib/python3*/site-packages/moto/ec2/resources/instance_types.json.gz"))
	if len(files) != 1 {
		t.Fatalf("moto has no types: %v", files)
	}
	file, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var types map[string]struct {
		GpuInfo *struct{ Gpus []apiGPU }
	}
	if err := json.NewDecoder(unpacked).Decode(&types); err != nil {
		t.Fatal(err)
	}
	all := map[string]apiGPU{}
	for name, one := range types {
		if one.GpuInfo != nil {
			all[name] = one.GpuInfo.Gpus[0]
		}
	}
	return all
}

// The cards that drivers report on the machines of AWS have the name, the size and the compute capability of a known model,
// and a request for what is printed on the card finds it.
func TestRealGPUs_AsDriversReportThem(t *testing.T) {
	all := readReportedGPUs(t)
	if len(all) < 60 {
		t.Fatalf("%d types", len(all))
	}
	for name, card := range all {
		maker, model := gpu.ParseReported(card.name)
		known, ok := gpu.Find(model)
		if !ok || maker != gpu.Nvidia || known.Capability != card.capability {
			t.Errorf("%s reports %q, which is %s of %q: %+v", name, card.name, model, maker, known)
			continue
		}
		size := gpu.SizeOf(model, card.memoryMiB)
		if !slices.Contains(known.Sizes, int(size)) && !strings.Contains(name, "f.") { // parts of cards
			t.Errorf("%s reports %q with %d MiB, which is %gGB", name, card.name, card.memoryMiB, size)
		}
		for _, request := range []string{model, card.name, strings.ToLower(model), strings.ReplaceAll(card.name, " ", "")} {
			asked := gpu.ParseRequest(request)
			if !slices.Contains(asked.Names, model) || asked.SizeGB != 0 && float64(asked.SizeGB) != size {
				t.Errorf("a request for %q asks for %+v, and %s has %s %gGB", request, asked, name, model, size)
			}
		}
	}
}

// The rows of a catalogue, which have what the API of AWS says, are the same cards as those that drivers report on the
// machines: name, number and size.
func TestRealGPUs_OfCatalogues(t *testing.T) {
	reported, types := readReportedGPUs(t), readAPITypes(t)
	compared := 0
	for name, api := range types {
		line := fmt.Sprintf("%s,us-east-1,1,4,16,%d,%s,%g,False,,%s,,,\n", name, max(api.Count, api.LogicalGpuCount), api.Name,
			float64(api.MemoryInfo.SizeInMiB)/1024, strings.ToLower(api.Manufacturer))
		rows, skipped := readText(t, "aws", csvHead+line)
		if skipped != nil {
			t.Errorf("%s: %v", name, skipped)
			continue
		}
		row := rows[0]
		if row.GPUFraction != api.GpuPartitionSize && api.GpuPartitionSize < 1 || row.GPUs != api.Count {
			t.Errorf("%s has %d GPUs and %g of one, want %d and %g", name, row.GPUs, row.GPUFraction, api.Count, api.GpuPartitionSize)
		}
		if api.Manufacturer != "NVIDIA" {
			continue
		}
		if _, ok := gpu.Find(row.GPUName); !ok {
			t.Errorf("%s: the model %q is not known as %q", name, api.Name, row.GPUName)
		}
		card, ok := reported[name]
		if !ok || api.GpuPartitionSize < 1 {
			continue
		}
		compared++
		_, model := gpu.ParseReported(card.name)
		if model != row.GPUName || card.count != row.GPUs || gpu.SizeOf(model, card.memoryMiB) != gpu.SizeOf(row.GPUName, row.GPUMemoryMiB) {
			t.Errorf("%s has %d×%s %gGB in the catalogue, and reports %d×%s %gGB", name, row.GPUs, row.GPUName, gpu.SizeOf(row.GPUName, row.GPUMemoryMiB),
				card.count, model, gpu.SizeOf(model, card.memoryMiB))
		}
	}
	if compared < 50 {
		t.Errorf("only %d types are in both", compared)
	}
	t.Logf("%d types compared", compared)
}

var karpenterPrice = regexp.MustCompile(`"([a-z0-9.-]+)": *([0-9.]+)`)

// The prices of our own table are those that others see.
func TestOwnTable_HasRealPrices(t *testing.T) {
	prices := map[string]float64{}
	for _, m := range karpenterPrice.FindAllStringSubmatch(readKarpenter(t, "pkg/providers/pricing/zz_generated.pricing_aws.go"), -1) {
		price, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		prices[m[1]] = price
	}
	for r := range ownTable("aws").Rows {
		if r.Region == "us-east-1" && math.Abs(prices[r.Type]-r.Price) > 0.0001 {
			t.Errorf("%s costs %g, not %g", r.Type, prices[r.Type], r.Price)
		}
	}
}
