// Package catalogue keeps the types of machines that clouds rent out, with their prices, and finds those that a
// replica can use.
package catalogue

// Row is a type of machine in one place, at one price.
type Row struct {
	Type         string   // the cloud's name: g6.xlarge, a2-highgpu-1g
	Region       string   // us-east-1, us-central1
	Zone         string   // part of the region; empty: the price holds in all zones of the region
	Price        float64  // dollars per hour; finite, not negative
	Spot         bool     // the cloud may take the machine back
	CPUs         int      // virtual CPUs
	Arch         string   // x86, arm
	MemoryMiB    int64    // of the machine
	DiskMiB      int64    // of the type's own disk; 0: the size is chosen when the machine is rented
	GPUs         int      // whole GPUs; 0: none, or only part of one
	GPUFraction  float64  // the part of one GPU that the machine has; 0: it has whole GPUs or none
	GPUMaker     string   // nvidia, amd, intel, google, aws, …
	GPUName      string   // as in configurations: A100, RTXPRO6000; a name that is not known is kept
	GPUMemoryMiB int64    // of each GPU, or of the part that the machine has
	Flags        []string // words that limit the row's use, as catalogues have them
}
