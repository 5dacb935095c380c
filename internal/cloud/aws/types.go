package aws

import (
	"context"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"dstack/internal/catalogue"
	"dstack/internal/gpu"
)

// ListTypes implements cloud.PriceList. Types without a price are left out.
func (p *Provider) ListTypes(ctx context.Context, region string) ([]catalogue.Row, error) {
	if err := p.checkRegion(ctx, region); err != nil {
		return nil, err
	}
	found, err := p.listTypes(ctx, region)
	if err != nil {
		return nil, err
	}
	onDemand, err := p.listPrices(ctx, region)
	if err != nil {
		return nil, err
	}
	spot, err := p.listSpotPrices(ctx, region)
	if err != nil {
		return nil, err
	}
	return joinPrices(region, readTypes(found), onDemand, spot), nil
}

// joinPrices returns the rows of a region: one on demand for each type, and one for spot machines in each zone.
func joinPrices(region string, byType map[string]catalogue.Row, onDemand []regionPrice, spot []zonePrice) []catalogue.Row {
	var rows []catalogue.Row
	for _, one := range onDemand {
		if row, ok := byType[one.instanceType]; ok {
			row.Region, row.Price = region, one.price
			rows = append(rows, row)
		}
	}
	for _, one := range spot {
		if row, ok := byType[one.instanceType]; ok && isPlainZone(region, one.zone) {
			row.Region, row.Zone, row.Price, row.Spot = region, one.zone, one.price, true
			rows = append(rows, row)
		}
	}
	return rows
}

// readTypes returns the types that can be rented as machines of dstack, without their prices.
func readTypes(found []types.InstanceTypeInfo) map[string]catalogue.Row {
	byType := map[string]catalogue.Row{}
	for _, info := range found {
		if row, ok := readType(info); ok {
			byType[row.Type] = row
		}
	}
	return byType
}

// readType reads a type. Machines that run only macOS, or that boot no image of today, are not read.
func readType(info types.InstanceTypeInfo) (catalogue.Row, bool) {
	row := catalogue.Row{Type: string(info.InstanceType)}
	if info.ProcessorInfo == nil || info.VCpuInfo == nil || info.MemoryInfo == nil {
		return row, false
	}
	arches := info.ProcessorInfo.SupportedArchitectures
	switch {
	case slices.Contains(arches, types.ArchitectureTypeX8664):
		row.Arch = "x86"
	case slices.Contains(arches, types.ArchitectureTypeArm64):
		row.Arch = "arm"
	default:
		return row, false
	}
	if len(info.SupportedVirtualizationTypes) > 0 && !slices.Contains(info.SupportedVirtualizationTypes, types.VirtualizationTypeHvm) {
		return row, false
	}
	row.CPUs = int(sdk.ToInt32(info.VCpuInfo.DefaultVCpus))
	row.MemoryMiB = sdk.ToInt64(info.MemoryInfo.SizeInMiB)
	readDevices(&row, info)
	return row, row.CPUs > 0 && row.MemoryMiB > 0
}

// readDevices reads the GPUs and other accelerators of a type.
func readDevices(row *catalogue.Row, info types.InstanceTypeInfo) {
	switch {
	case info.GpuInfo != nil && len(info.GpuInfo.Gpus) > 0:
		readGPU(row, info.GpuInfo.Gpus[0])
	case info.NeuronInfo != nil && len(info.NeuronInfo.NeuronDevices) > 0:
		device := info.NeuronInfo.NeuronDevices[0]
		row.GPUs, row.GPUMaker, row.GPUName = int(sdk.ToInt32(device.Count)), "aws", joinName(sdk.ToString(device.Name))
	case info.InferenceAcceleratorInfo != nil && len(info.InferenceAcceleratorInfo.Accelerators) > 0:
		device := info.InferenceAcceleratorInfo.Accelerators[0]
		row.GPUs, row.GPUName = int(sdk.ToInt32(device.Count)), joinName(sdk.ToString(device.Name))
		row.GPUMaker = makerOf(sdk.ToString(device.Manufacturer))
	}
}

// readGPU reads the GPUs of a type. The API has the memory that the driver may report, so that of whole GPUs is rounded
// to the size that the model is sold with.
func readGPU(row *catalogue.Row, device types.GpuDeviceInfo) {
	asked := gpu.ParseRequest(sdk.ToString(device.Name))
	row.GPUMaker = makerOf(sdk.ToString(device.Manufacturer))
	row.GPUName = asked.Names[0]
	mib := int64(0)
	if device.MemoryInfo != nil {
		mib = int64(sdk.ToInt32(device.MemoryInfo.SizeInMiB))
	}
	if part := sdk.ToFloat64(device.GpuPartitionSize); part > 0 && part < 1 {
		row.GPUFraction, row.GPUMemoryMiB = part, mib
		return
	}
	row.GPUs = int(sdk.ToInt32(device.Count))
	if row.GPUs == 0 {
		row.GPUs = int(sdk.ToInt32(device.LogicalGpuCount))
	}
	row.GPUMemoryMiB = int64(gpu.SizeOf(row.GPUName, mib) * mibPerGiB)
}

// makerOf returns the name of a maker as configurations have it.
func makerOf(manufacturer string) string {
	maker := strings.ToLower(strings.TrimSpace(manufacturer))
	if maker == "habana" {
		return gpu.Intel
	}
	return maker
}

func joinName(name string) string { return strings.ReplaceAll(strings.TrimSpace(name), " ", "") }
