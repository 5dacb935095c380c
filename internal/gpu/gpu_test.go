package gpu_test

import (
	"slices"
	"testing"

	"dstack/internal/gpu"
)

// Names that drivers report are those of catalogues and configurations.
func TestParseReported(t *testing.T) {
	for reported, want := range map[string]string{
		"NVIDIA A100-SXM4-80GB":              "nvidia A100",
		"NVIDIA A100-PCIE-40GB":              "nvidia A100",
		"NVIDIA A100 80GB PCIe":              "nvidia A100",
		"A100-SXM4-40GB":                     "nvidia A100",
		"NVIDIA H100 80GB HBM3":              "nvidia H100",
		"NVIDIA H100 PCIe":                   "nvidia H100",
		"NVIDIA H100 NVL":                    "nvidia H100NVL",
		"NVIDIA H200":                        "nvidia H200",
		"NVIDIA H200 NVL":                    "nvidia H200NVL",
		"NVIDIA H20":                         "nvidia H20",
		"NVIDIA H20-3e":                      "nvidia H20-3e",
		"NVIDIA GH200 480GB":                 "nvidia GH200",
		"NVIDIA GH200 144G HBM3e":            "nvidia GH200",
		"NVIDIA B200":                        "nvidia B200",
		"NVIDIA GB200 NVL72":                 "nvidia GB200",
		"NVIDIA B300 SXM6 AC":                "nvidia B300",
		"NVIDIA L4":                          "nvidia L4",
		"NVIDIA L40S":                        "nvidia L40S",
		"NVIDIA A10G":                        "nvidia A10G",
		"NVIDIA T4G":                         "nvidia T4G",
		"Tesla T4":                           "nvidia T4",
		"Tesla V100-SXM2-16GB":               "nvidia V100",
		"Tesla V100-DGXS-32GB":               "nvidia V100",
		"NVIDIA GeForce RTX 4090":            "nvidia RTX4090",
		"NVIDIA GeForce RTX 3080 Ti":         "nvidia RTX3080Ti",
		"NVIDIA GeForce RTX 4070 Laptop GPU": "nvidia RTX4070",
		"NVIDIA GeForce RTX 4070 Ti SUPER":   "nvidia RTX4070TiSUPER",
		"NVIDIA GeForce RTX 2080 Super with Max-Q Design":         "nvidia RTX2080SUPER",
		"GeForce GTX 1080 Ti":                                     "nvidia GTX1080Ti",
		"NVIDIA TITAN RTX":                                        "nvidia TITANRTX",
		"NVIDIA TITAN V":                                          "nvidia TITANV",
		"NVIDIA RTX A6000":                                        "nvidia A6000",
		"Quadro RTX 6000":                                         "nvidia RTX6000",
		"NVIDIA RTX 6000 Ada Generation":                          "nvidia RTX6000Ada",
		"NVIDIA RTX 5000 Ada Generation":                          "nvidia RTX5000Ada",
		"NVIDIA RTX 4000 SFF Ada Generation":                      "nvidia RTX4000SFFAda",
		"NVIDIA RTX 2000 Ada Generation":                          "nvidia RTX2000Ada",
		"NVIDIA RTX 3000 Ada Generation Laptop GPU":               "nvidia RTX3000Ada",
		"NVIDIA RTX PRO 6000 Blackwell Server Edition":            "nvidia RTXPRO6000",
		"NVIDIA RTX PRO 6000 Blackwell Workstation Edition":       "nvidia RTXPRO6000",
		"NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": "nvidia RTXPRO6000",
		"NVIDIA RTX PRO 4500 Blackwell Server Edition":            "nvidia RTXPRO4500",
		"NVIDIA RTX PRO 5000 Blackwell":                           "nvidia RTXPRO5000",
		"NVIDIA A100-SXM4-40GB MIG 1g.5gb":                        "nvidia A100-MIG-1g.5gb",
		"NVIDIA L4-24Q":                                           "nvidia L4-24Q",
		"NVIDIA X900 Future":                                      "nvidia X900Future",
		"AMD Instinct MI300X OAM":                                 "amd MI300X",
		"AMD INSTINCT MI250 (MCM) OAM AC MBA":                     "amd MI250",
		"AMD Instinct MI325X VF":                                  "amd MI325X",
		"AMD Instinct MI210":                                      "amd MI210",
		"AMD Radeon RX 7900 XTX":                                  "amd RX7900XTX",
		"AMD Radeon PRO W7900":                                    "amd W7900",
		"Voodoo 2":                                                " Voodoo2",
		"Blackwell Edition":                                       " BlackwellEdition",
		"":                                                        " ",
	} {
		if maker, name := gpu.ParseReported(reported); maker+" "+name != want {
			t.Errorf("%q is %q of %q, want %s", reported, name, maker, want)
		}
	}
}

// A name in a configuration finds the cards that its writer means.
func TestParseRequest(t *testing.T) {
	for written, want := range map[string]gpu.Request{
		"A100":                                   {Names: []string{"A100"}, Maker: "nvidia", Known: true},
		"a100":                                   {Names: []string{"A100"}, Maker: "nvidia", Known: true},
		"A100-80":                                {Names: []string{"A100"}, Maker: "nvidia", SizeGB: 80, Known: true},
		"A100-40GB":                              {Names: []string{"A100"}, Maker: "nvidia", SizeGB: 40, Known: true},
		"A100-SXM4-80GB":                         {Names: []string{"A100"}, Maker: "nvidia", SizeGB: 80, Known: true},
		"A100 80GB":                              {Names: []string{"A100"}, Maker: "nvidia", SizeGB: 80, Known: true},
		"A10080GB":                               {Names: []string{"A100"}, Maker: "nvidia", SizeGB: 80, Known: true},
		"A100-50":                                {Names: []string{"A100-50"}},
		"A10-24":                                 {Names: []string{"A10"}, Maker: "nvidia", SizeGB: 24, Known: true},
		"V100-32GB":                              {Names: []string{"V100"}, Maker: "nvidia", SizeGB: 32, Known: true},
		"H100":                                   {Names: []string{"H100", "H100NVL"}, Maker: "nvidia", Known: true},
		"H100NVL":                                {Names: []string{"H100NVL"}, Maker: "nvidia", Known: true},
		"H100 NVL":                               {Names: []string{"H100NVL"}, Maker: "nvidia", Known: true},
		"H100-SXM5":                              {Names: []string{"H100", "H100NVL"}, Maker: "nvidia", Known: true},
		"H200":                                   {Names: []string{"H200", "H200NVL"}, Maker: "nvidia", Known: true},
		"RTX PRO 6000":                           {Names: []string{"RTXPRO6000"}, Maker: "nvidia", Known: true},
		"RTX PRO Server 6000":                    {Names: []string{"RTXPRO6000"}, Maker: "nvidia", Known: true},
		"RTXPROServer6000":                       {Names: []string{"RTXPRO6000"}, Maker: "nvidia", Known: true},
		"NVIDIARTXPRO6000BlackwellServerEdition": {Names: []string{"RTXPRO6000"}, Maker: "nvidia", Known: true},
		"NVIDIAB300SXM6AC":                       {Names: []string{"B300"}, Maker: "nvidia", Known: true},
		"RTXA6000":                               {Names: []string{"A6000"}, Maker: "nvidia", Known: true},
		"RTX 6000 Ada Generation":                {Names: []string{"RTX6000Ada"}, Maker: "nvidia", Known: true},
		"RTX6000":                                {Names: []string{"RTX6000"}, Maker: "nvidia", Known: true},
		"GeForce RTX 4090":                       {Names: []string{"RTX4090"}, Maker: "nvidia", Known: true},
		"t4g":                                    {Names: []string{"T4G"}, Maker: "nvidia", Known: true},
		"MI300X":                                 {Names: []string{"MI300X"}, Maker: "amd", Known: true},
		"H20-3e":                                 {Names: []string{"H20-3e"}, Maker: "nvidia", Known: true},
		"A100-MIG-1g.5gb":                        {Names: []string{"A100-MIG-1g.5gb"}, Maker: "nvidia", Known: true},
		"tpu-v5litepod-8":                        {Names: []string{"v5litepod-8"}, Maker: "google", Known: true},
		"v2-8":                                   {Names: []string{"v2-8"}, Maker: "google", Known: true},
		"H1O0":                                   {Names: []string{"H1O0"}},
		"RTX 7090":                               {Names: []string{"RTX7090"}},
		"-":                                      {Names: []string{"-"}},
	} {
		if got := gpu.ParseRequest(written); !slices.Equal(got.Names, want.Names) || got.Maker != want.Maker ||
			got.SizeGB != want.SizeGB || got.Known != want.Known {
			t.Errorf("%q asks for %+v, want %+v", written, got, want)
		}
	}
}

// Every known model is found by its own name, and a request for it is one for itself.
func TestModels(t *testing.T) {
	for _, name := range gpu.Names() {
		m, ok := gpu.Find(name)
		if asked := gpu.ParseRequest(name); !ok || asked.Names[0] != name || asked.SizeGB != 0 || asked.Maker != m.Maker {
			t.Errorf("%s: found %v, asked for %+v", name, ok, asked)
		}
		if _, reported := gpu.ParseReported(name); reported != name {
			t.Errorf("%s is reported as %s", name, reported)
		}
		for _, size := range m.Sizes {
			if got := gpu.SizeOf(name, int64(size)<<10); got != float64(size) {
				t.Errorf("%s of %dGB has %gGB", name, size, got)
			}
		}
	}
}

func TestFindNearest(t *testing.T) {
	for written, want := range map[string]string{"H1O0": "H100", "A10OG": "A10G", "RTX 4O90": "RTX4090", "MI300": "MI300A", "Zebra": ""} {
		if got := gpu.FindNearest(written); got != want {
			t.Errorf("%s is near %q, want %q", written, got, want)
		}
	}
}

// Cards are as large as they are sold, not as their drivers say.
func TestSizeOf(t *testing.T) {
	for _, c := range []struct {
		name string
		mib  int64
		want float64
	}{
		{"T4", 15360, 16}, {"L4", 23034, 24}, {"L4", 22888, 24}, {"A10G", 23028, 24}, {"L40S", 46068, 48}, {"L40S", 45776, 48},
		{"A100", 40960, 40}, {"A100", 81920, 80}, {"H100", 81152, 80}, {"H100", 81920, 80}, {"H100NVL", 95830, 94}, {"H200", 143771, 141},
		{"H200", 140 << 10, 141}, {"B200", 182784, 180}, {"B200", 183359, 180}, {"B300", 268 << 10, 270}, {"B300", 275040, 270},
		{"RTX6000Ada", 49140, 48}, {"RTXPRO6000", 95 << 10, 96}, {"RTXPRO6000", 97887, 96}, {"RTXPRO6000", 12 << 10, 12},
		{"MI300X", 196592, 192}, {"MI325X", 262128, 256}, {"Unknown", 16384, 16}, {"Unknown", 5000, 5}, {"Unknown", 512, 0.5},
		{"A100-MIG-1g.5gb", 4864, 5},
	} {
		if got := gpu.SizeOf(c.name, c.mib); got != c.want {
			t.Errorf("%s with %d MiB has %gGB, want %gGB", c.name, c.mib, got, c.want)
		}
	}
}

// What drivers reported on machines of AWS in 2026 is known by name, size and compute
// capability.
func TestParseReported_RealMachines(t *testing.T) {
	for _, c := range []struct {
		reported   string
		mib        int64
		capability [2]int
		size       float64
	}{
		{"NVIDIA B200", 182784, [2]int{10, 0}, 180},
		{"NVIDIA B300 SXM6 AC", 268 << 10, [2]int{10, 3}, 270},
		{"NVIDIA RTX PRO 4500 Blackwell Server Edition", 32160, [2]int{12, 0}, 32},
		{"NVIDIA RTX PRO 6000 Blackwell Server Edition", 95 << 10, [2]int{12, 0}, 96},
		{"Tesla V100-SXM2-32GB", 32 << 10, [2]int{7, 0}, 32},
		{"NVIDIA T4G", 15 << 10, [2]int{7, 5}, 16},
		{"Tesla T4", 15 << 10, [2]int{7, 5}, 16},
		{"NVIDIA A100-SXM4-40GB", 40 << 10, [2]int{8, 0}, 40},
		{"NVIDIA A100-SXM4-80GB", 80 << 10, [2]int{8, 0}, 80},
		{"NVIDIA A10G", 23028, [2]int{8, 6}, 24},
		{"NVIDIA L4", 23034, [2]int{8, 9}, 24},
		{"NVIDIA L40S", 46068, [2]int{8, 9}, 48},
		{"NVIDIA H100 80GB HBM3", 81152, [2]int{9, 0}, 80},
		{"NVIDIA H200", 140 << 10, [2]int{9, 0}, 141},
	} {
		maker, name := gpu.ParseReported(c.reported)
		m, known := gpu.Find(name)
		if !known || maker != gpu.Nvidia || m.Capability != c.capability || gpu.SizeOf(name, c.mib) != c.size {
			t.Errorf("%s is %s of %q, model %+v, %gGB", c.reported, name, maker, m, gpu.SizeOf(name, c.mib))
		}
	}
}

// Whatever is written, a request names something, and what it names asks for the same
// again.
func FuzzParseRequest(f *testing.F) {
	for _, text := range []string{"A100-80", "RTX PRO Server 6000", "tpu-v5litepod-8", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "-", "", "A100-MIG-", "gb"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		asked := gpu.ParseRequest(text)
		if len(asked.Names) == 0 || asked.Known && asked.Names[0] == "" {
			t.Fatalf("%q asks for %+v", text, asked)
		}
		if again := gpu.ParseRequest(asked.Names[0]); asked.Known && !slices.Equal(again.Names, asked.Names) {
			t.Errorf("%q asks for %v, which asks for %v", text, asked.Names, again.Names)
		}
		_, _ = gpu.ParseReported(text)
	})
}
