package gcp

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/catalogue"
)

// computeService is the identifier of Compute Engine in the price list of Google Cloud.
const computeService = "6F81-5844-456A"

// component is a part of a machine that has a price of its own.
type component struct {
	kind   string // core, ram, gpu
	name   string // family of cores and memory: n2; name of a GPU in price lists: nvidia l4
	region string
	spot   bool
}

const (
	kindCore = "core"
	kindRAM  = "ram"
	kindGPU  = "gpu"
)

// priceTable has the prices of components, in dollars per hour and virtual CPU, gigabyte or GPU.
type priceTable map[component]float64

// sku is an entry of the price list.
type sku struct {
	Description string `json:"description"`
	Category    struct {
		Family string `json:"resourceFamily"`
		Usage  string `json:"usageType"`
	} `json:"category"`
	Regions []string `json:"serviceRegions"`
	Pricing []struct {
		Expression struct {
			Unit  string `json:"usageUnit"`
			Tiers []struct {
				Price struct {
					Units string `json:"units"`
					Nanos int64  `json:"nanos"`
				} `json:"unitPrice"`
			} `json:"tieredRates"`
		} `json:"pricingExpression"`
	} `json:"pricingInfo"`
}

// readPrices reads the price list of Compute Engine: some 40 000 entries on eight pages.
func (p *Provider) readPrices(ctx context.Context) (priceTable, error) {
	prices := priceTable{}
	r := call{method: http.MethodGet, url: p.client.billing + "services/" + computeService + "/skus", what: "read the prices of Compute Engine",
		query: url.Values{"pageSize": {"5000"}, "currencyCode": {"USD"}, "fields": {"skus(description,category(resourceFamily,usageType),serviceRegions,pricingInfo(pricingExpression(usageUnit,tieredRates(unitPrice)))),nextPageToken"}}}
	err := p.client.listPages(ctx, r, func(answer []byte) (string, error) {
		var page struct {
			SKUs          []sku  `json:"skus"`
			NextPageToken string `json:"nextPageToken"`
		}
		if err := json.Unmarshal(answer, &page); err != nil {
			return "", err
		}
		for _, s := range page.SKUs {
			prices.add(s)
		}
		return page.NextPageToken, nil
	})
	return prices, err
}

// The descriptions of components in the price list, without the market before and the place behind.
var (
	coreOrRAM = regexp.MustCompile(`^([A-Z][0-9]+[A-Z]?)(?: Predefined)?(?: AMD| Arm| Intel)?(?: Instance)? (Core|Ram)$`)
	gpuName   = regexp.MustCompile(`^(Nvidia .+?)(?: GPU)?(?: attached)?$`)
	longNames = map[string]string{ // families whose descriptions have words
		"Compute optimized Core": "c2 core", "Compute optimized Ram": "c2 ram",
		"Compute optimized Instance Core": "c2 core", "Compute optimized Instance Ram": "c2 ram",
		"Memory-optimized Instance Core": "m1 core", "Memory-optimized Instance Ram": "m1 ram",
	}
)

// add notes the price of a component. Other entries, such as those of commitments, are left out.
func (t priceTable) add(s sku) {
	if s.Category.Family != "Compute" || len(s.Pricing) == 0 || s.Category.Usage != "OnDemand" && s.Category.Usage != "Preemptible" {
		return
	}
	text, _, found := strings.Cut(s.Description, " running in ")
	text, isSpot := strings.CutPrefix(text, "Spot Preemptible ")
	kind, name := parseDescription(text)
	tiers := s.Pricing[0].Expression.Tiers
	if !found || kind == "" || isSpot != (s.Category.Usage == "Preemptible") || len(tiers) == 0 {
		return
	}
	last := tiers[len(tiers)-1].Price // the first may be free of charge
	units, err := strconv.ParseFloat(last.Units, 64)
	if err != nil && last.Units != "" {
		return
	}
	for _, region := range s.Regions {
		t[component{kind, name, region, isSpot}] = units + float64(last.Nanos)/1e9
	}
}

// parseDescription returns what an entry of the price list is about; kind is empty: nothing that machines consist of.
func parseDescription(text string) (kind, name string) {
	if long := longNames[text]; long != "" {
		name, kind, _ = strings.Cut(long, " ")
		return kind, name
	}
	if m := coreOrRAM.FindStringSubmatch(text); m != nil {
		return strings.ToLower(m[2]), strings.ToLower(m[1])
	}
	if m := gpuName.FindStringSubmatch(text); m != nil {
		return kindGPU, strings.ToLower(m[1])
	}
	return "", ""
}

// pricedGPUs are the names of GPUs in the price list, by that in the API.
var pricedGPUs = map[string]string{
	"nvidia-tesla-p4": "nvidia tesla p4", "nvidia-tesla-p100": "nvidia tesla p100", "nvidia-tesla-v100": "nvidia tesla v100",
	"nvidia-tesla-t4": "nvidia tesla t4", "nvidia-l4": "nvidia l4", "nvidia-tesla-a100": "nvidia tesla a100", "nvidia-a100-80gb": "nvidia tesla a100 80gb",
	"nvidia-h100-80gb": "nvidia h100 80gb", "nvidia-h100-mega-80gb": "nvidia h100 80gb plus", "nvidia-h200-141gb": "nvidia h200 141gb",
	"nvidia-b200": "nvidia b200", "nvidia-rtx-pro-6000": "nvidia rtx pro 6000",
}

// priceOf returns the price of a machine; ok is false if the price of a part is not known.
func (t priceTable) priceOf(m machineType, gpu string, gpus int, region string, spot bool) (price float64, ok bool) {
	core, hasCore := t[component{kindCore, family(m.Name), region, spot}]
	ram, hasRAM := t[component{kindRAM, family(m.Name), region, spot}]
	card, hasCard := t[component{kindGPU, pricedGPUs[gpu], region, spot}]
	price = core*float64(m.CPUs) + ram*float64(m.MemoryMiB)/1024 + card*float64(gpus)
	return math.Round(price*1e6) / 1e6, hasCore && hasRAM && (hasCard || gpus == 0)
}

// ListTypes implements cloud.PriceList. It needs the Cloud Billing API in the project of the account.
func (p *Provider) ListTypes(ctx context.Context, region string) ([]catalogue.Row, error) {
	prices, err := p.prices.get(ctx, p.readPrices)
	if err != nil {
		return nil, p.describeError(err, nil)
	}
	types, err := p.readTypes(ctx, region)
	if err != nil {
		return nil, p.describeError(err, nil)
	}
	zonesOf := map[string][]string{} // by variant
	variants := map[string]catalogue.Row{}
	for zone, list := range types {
		added, err := p.readAccelerators(ctx, zone)
		if err != nil {
			return nil, p.describeError(err, nil)
		}
		for _, t := range list {
			if !t.isUsable() {
				continue
			}
			for _, row := range newRows(t, added, prices, region) {
				key := fmt.Sprintf("%s %s %d %t", row.Type, row.GPUName, row.GPUs, row.Spot)
				variants[key] = row
				zonesOf[key] = append(zonesOf[key], zone)
			}
		}
	}
	var rows []catalogue.Row
	for key, row := range variants {
		if len(zonesOf[key]) == len(types) {
			rows = append(rows, row)
			continue
		}
		for _, zone := range zonesOf[key] {
			row.Zone = zone
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b catalogue.Row) int {
		return strings.Compare(fmt.Sprint(a.Type, a.GPUName, a.GPUs, a.Spot, a.Zone), fmt.Sprint(b.Type, b.GPUName, b.GPUs, b.Spot, b.Zone))
	})
	return rows, nil
}

// readAccelerators returns the GPUs that a zone adds to machines.
func (p *Provider) readAccelerators(ctx context.Context, zone string) ([]acceleratorType, error) {
	found, err := list[acceleratorType](ctx, p, p.settings.ProjectID, "zones/"+zone+"/acceleratorTypes", "", "name,maximumCardsPerInstance", "list the GPUs of "+zone)
	return slices.DeleteFunc(found, func(a acceleratorType) bool { return attachableGPUs[findGPUType(a.Name).name] == nil }), err
}

// newRows returns a type of machine as rows of a catalogue: on demand and spot, with each GPU that can be added to it.
func newRows(t machineType, added []acceleratorType, prices priceTable, region string) []catalogue.Row {
	base := catalogue.Row{Type: t.Name, Region: region, CPUs: t.CPUs, Arch: "x86", MemoryMiB: t.MemoryMiB}
	if t.Architecture == "ARM64" || armFamilies[family(t.Name)] {
		base.Arch = "arm"
	}
	var rows []catalogue.Row
	add := func(gpu string, gpus int) {
		for _, spot := range []bool{false, true} {
			price, ok := prices.priceOf(t, gpu, gpus, region, spot)
			if !ok {
				continue
			}
			row := base
			row.Price, row.Spot = price, spot
			if gpus > 0 {
				g := findGPUType(gpu)
				row.GPUs, row.GPUMaker, row.GPUName, row.GPUMemoryMiB = gpus, "nvidia", g.name, g.memoryGiB<<10
			}
			rows = append(rows, row)
		}
	}
	if len(t.Accelerators) > 0 {
		add(t.Accelerators[0].Type, t.Accelerators[0].Count)
		return rows
	}
	add("", 0)
	if hasAttachableGPUs(t.Name) {
		for _, a := range added {
			for gpus, maxCPUs := range attachableGPUs[findGPUType(a.Name).name] {
				if gpus <= a.MaxCards && t.CPUs <= maxCPUs {
					add(a.Name, gpus)
				}
			}
		}
	}
	return rows
}
