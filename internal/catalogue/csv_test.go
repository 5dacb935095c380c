package catalogue

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

const csvHead = "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch,provider_data\n"

func readText(t *testing.T, cloud, text string) (rows []Row, skipped error) {
	t.Helper()
	table, skipped, err := readTable(strings.NewReader(text), cloud, "test")
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(table.Rows), skipped
}

func TestReadCSV(t *testing.T) {
	for line, want := range map[string]Row{
		`aws g6.xlarge,us-east-1,0.8048,4,16.0,1,L4,24,False,,nvidia,,x86,{}`: {Type: "g6.xlarge", Region: "us-east-1", Price: 0.8048, CPUs: 4,
			Arch: "x86", MemoryMiB: 16384, GPUs: 1, GPUMaker: "nvidia", GPUName: "L4", GPUMemoryMiB: 24576},
		// Memory as the cloud reports it, a disk of the type, spot, JSON with commas.
		`aws g6e.xlarge,us-east-1,0.9,4,32.0,1,L40S,44.703125,True,250.0,nvidia,,x86,"{""a"": 1, ""b"": 2}"`: {Type: "g6e.xlarge", Region: "us-east-1",
			Price: 0.9, Spot: true, CPUs: 4, Arch: "x86", MemoryMiB: 32768, DiskMiB: 256000, GPUs: 1, GPUMaker: "nvidia", GPUName: "L40S", GPUMemoryMiB: 45776},
		// Old files have neither makers nor architectures.
		`aws p3.2xlarge,us-east-1,3.06,8,61.0,1,V100,16.0,false,,,,,`: {Type: "p3.2xlarge", Region: "us-east-1", Price: 3.06, CPUs: 8, Arch: "x86",
			MemoryMiB: 62464, GPUs: 1, GPUMaker: "nvidia", GPUName: "V100", GPUMemoryMiB: 16384},
		`aws m7g.large,us-east-1,0.08,2,8.0,0,,,False,,,,arm,{}`: {Type: "m7g.large", Region: "us-east-1", Price: 0.08, CPUs: 2, Arch: "arm", MemoryMiB: 8192},
		// An unknown maker and an unknown model are kept.
		`aws trn1.2xlarge,us-east-1,1.34,8,32.0,1,Trainium,32,False,,aws,,x86,{}`: {Type: "trn1.2xlarge", Region: "us-east-1", Price: 1.34, CPUs: 8,
			Arch: "x86", MemoryMiB: 32768, GPUs: 1, GPUMaker: "aws", GPUName: "Trainium", GPUMemoryMiB: 32768},
		// Names as the cloud's API has them.
		`aws g7e.2xlarge,us-east-1,3.36,8,64.0,1,RTX PRO Server 6000,94.97,False,,nvidia,,x86,{}`: {Type: "g7e.2xlarge", Region: "us-east-1", Price: 3.36,
			CPUs: 8, Arch: "x86", MemoryMiB: 65536, GPUs: 1, GPUMaker: "nvidia", GPUName: "RTXPRO6000", GPUMemoryMiB: 97249},
		`aws g5g.xlarge,us-east-1,0.42,4,8.0,1,T4g,16,False,,nvidia,,arm,{}`: {Type: "g5g.xlarge", Region: "us-east-1", Price: 0.42, CPUs: 4, Arch: "arm",
			MemoryMiB: 8192, GPUs: 1, GPUMaker: "nvidia", GPUName: "T4G", GPUMemoryMiB: 16384},
		// Locations of GCP are zones.
		`gcp a2-highgpu-1g,us-central1-a,3.67,12,85.0,1,A100,40.0,False,,nvidia,,x86,{}`: {Type: "a2-highgpu-1g", Region: "us-central1", Zone: "us-central1-a",
			Price: 3.67, CPUs: 12, Arch: "x86", MemoryMiB: 87040, GPUs: 1, GPUMaker: "nvidia", GPUName: "A100", GPUMemoryMiB: 40960},
		// An eighth of a card.
		`gcp g4-standard-6,us-central1-a,0.6,6,22.5,1,RTXPRO6000,12.0,False,,nvidia,gcp-g4,x86,{}`: {Type: "g4-standard-6", Region: "us-central1",
			Zone: "us-central1-a", Price: 0.6, CPUs: 6, Arch: "x86", MemoryMiB: 23040, GPUFraction: 0.125, GPUMaker: "nvidia", GPUName: "RTXPRO6000",
			GPUMemoryMiB: 12288, Flags: []string{"gcp-g4"}},
		// A TPU: one device, with the memory of the whole slice; the prefix of old files is cut off.
		`gcp v5litepod-8,us-central1-a,9.6,24,48.0,1,tpu-v5litepod-8,128,False,,,,,`: {Type: "v5litepod-8", Region: "us-central1", Zone: "us-central1-a",
			Price: 9.6, CPUs: 24, Arch: "x86", MemoryMiB: 49152, GPUs: 1, GPUMaker: "google", GPUName: "v5litepod-8", GPUMemoryMiB: 131072},
		// A card without a size has that of its model.
		`aws x,r,1,1,1,1,A10G,,False,,,,,`: {Type: "x", Region: "r", Price: 1, CPUs: 1, Arch: "x86", MemoryMiB: 1024, GPUs: 1, GPUMaker: "nvidia",
			GPUName: "A10G", GPUMemoryMiB: 24576},
	} {
		cloud, line, _ := strings.Cut(line, " ")
		rows, skipped := readText(t, cloud, csvHead+line+"\n")
		if len(rows) != 1 || skipped != nil || fmt.Sprint(rows[0]) != fmt.Sprint(want) {
			t.Errorf("%s\ngot  %+v, skipped %v\nwant %+v", line, rows, skipped, want)
		}
	}
}

// One broken row does not take the others with it.
func TestReadCSV_SkipsBrokenRows(t *testing.T) {
	good := "m5.large,us-east-1,0.1,2,8.0,0,,,False,,,,x86,{}\n"
	for line, problem := range map[string]string{
		`m5.large,us-east-1,nan,2,8.0,0,,,False,,,,x86,{}`:               "its price is NaN",
		`m5.large,us-east-1,inf,2,8.0,0,,,False,,,,x86,{}`:               "its price is +Inf",
		`m5.large,us-east-1,-0.1,2,8.0,0,,,False,,,,x86,{}`:              "its price is -0.1",
		`m5.large,us-east-1,0,2,8.0,0,,,False,,,,x86,{}`:                 "its price is 0",
		`m5.large,us-east-1,-0,2,8.0,0,,,False,,,,x86,{}`:                "its price is -0",
		"m5\u202elarge,us-east-1,1,2,8.0,0,,,False,,,,x86,{}":            "the name of its type, region or zone is none that a cloud has",
		`m5.large,evil.example/#,1,2,8.0,0,,,False,,,,x86,{}`:            "the name of its type, region or zone is none that a cloud has",
		`m5.large,../../x,1,2,8.0,0,,,False,,,,x86,{}`:                   "the name of its type, region or zone is none that a cloud has",
		`m5?x=,us-east-1,1,2,8.0,0,,,False,,,,x86,{}`:                    "the name of its type, region or zone is none that a cloud has",
		"m5.large,us-east-1,1,2,8.0,1,L\u009b4,24,False,,nvidia,,x86,{}": "has characters that are not shown",
		`m5.large,us-east-1,free,2,8.0,0,,,False,,,,x86,{}`:              `price is "free", not a number`,
		`m5.large,us-east-1,0.1,0.5,8.0,0,,,False,,,,x86,{}`:             `cpu is "0.5", not a whole number`,
		`m5.large,us-east-1,0.1,2,nan,0,,,False,,,,x86,{}`:               `memory is "nan", not a number of gigabytes`,
		`m5.large,us-east-1,0.1,2,8.0,,,,False,,,,x86,{}`:                `gpu_count is "", not a whole number`,
		`m5.large,us-east-1,0.1,2,8.0,0,,,yes,,,,x86,{}`:                 `spot is "yes", not true or false`,
		`,us-east-1,0.1,2,8.0,0,,,False,,,,x86,{}`:                       "it has no type or no region",
		`m5.large,us-east-1`:                                             `spot is "", not true or false`,
		`m5.large,us-east-1,0.1,2,8.0,0,"a"b,,False,,,,,`:                `extraneous or missing " in quoted-field`,
	} {
		rows, skipped := readText(t, "aws", csvHead+good+line+"\n"+strings.Replace(good, "m5", "m6", 1))
		if len(rows) != 2 || skipped == nil || !strings.Contains(skipped.Error(), problem) || !strings.Contains(skipped.Error(), "1 of 3 rows") {
			t.Errorf("%s: %d rows, skipped %v, want %q", line, len(rows), skipped, problem)
		}
	}
}

// endless repeats a text.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text[e.at:])
	e.at = (e.at + n) % len(e.text)
	return n, nil
}

func TestReadCSV_RefusesWhatIsNoCatalogue(t *testing.T) {
	for name, c := range map[string]struct {
		content io.Reader
		problem string
	}{
		"nothing":             {strings.NewReader(""), "no line with the names of its columns"},
		"other columns":       {strings.NewReader("name,price\na,1\n"), "it has no column instance_name"},
		"no rows":             {strings.NewReader(csvHead), "it has no rows"},
		"mostly broken":       {strings.NewReader(csvHead + "a,r,1,1,1,0,,,False,,,,,\nb\nc\n"), "2 of 3 rows cannot be used"},
		"a row without end":   {io.MultiReader(strings.NewReader(csvHead+`"`), &endless{text: "a"}), "a row of more than 1048576 bytes"},
		"a column name alike": {io.MultiReader(strings.NewReader(`"`), &endless{text: "a"}), "a row of more than 1048576 bytes"},
	} {
		if _, _, err := readTable(c.content, "aws", "test"); err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: error %v, want %q", name, err, c.problem)
		}
	}
	rows := io.MultiReader(strings.NewReader(csvHead), &endless{text: "a,r,1,1,1,0,,,False,,,,,\n"})
	if err := readCSV(NewBuilder("test"), "aws", rows, 1000); err == nil || err.Error() != "it has more than 1000 rows" {
		t.Errorf("rows without end: error %v", err)
	}
}

func TestFindDate(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for version, want := range map[string]string{"20261128": "2026-11-28", "20261128-1234": "2026-11-28", "2026-11-27.1": "2026-11-27", "v3": "2026-11-20"} {
		if got := findDate(version, time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC), now).Format(time.DateOnly); got != want {
			t.Errorf("%s is of %s, want %s", version, got, want)
		}
	}
	if got := findDate("latest", time.Time{}, now); !got.Equal(now) {
		t.Errorf("got %s", got)
	}
}
