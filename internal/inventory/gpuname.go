// Package inventory reads what a machine has from what commands print on it: CPUs,
// memory, disk and GPUs. It runs no command itself, so that the same code serves this
// machine and hosts behind SSH.
package inventory

import "dstack/internal/gpu"

// NameGPU returns the maker of a GPU, such as nvidia or amd, and its name as in
// configurations and catalogues, from the product name that its driver reports. An
// unknown maker is empty.
func NameGPU(reported string) (maker, name string) { return gpu.ParseReported(reported) }
