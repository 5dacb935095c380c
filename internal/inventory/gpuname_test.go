package inventory_test

import (
	"testing"

	"dstack/internal/inventory"
)

// The names are those of catalogues; package gpu tests them all.
func TestNameGPU(t *testing.T) {
	for reported, want := range map[string]string{
		"NVIDIA A100-SXM4-80GB": "nvidia A100", "AMD Instinct MI300X OAM": "amd MI300X", "Voodoo 2": " Voodoo2",
	} {
		if maker, name := inventory.NameGPU(reported); maker+" "+name != want {
			t.Errorf("%s is called %s of %q, want %s", reported, name, maker, want)
		}
	}
}
