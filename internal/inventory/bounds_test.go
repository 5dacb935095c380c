package inventory_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"dstack/internal/inventory"
)

// A host that prints far too much costs neither time nor memory.
func TestParse_TooLong(t *testing.T) {
	began := time.Now()
	if _, err := inventory.Parse("@@ pci\n" + strings.Repeat("\n", 16<<20)); err == nil || !strings.Contains(err.Error(), "longer than 1024 KiB") {
		t.Errorf("%v", err)
	}
	if _, err := inventory.Parse("@@ pci\n" + strings.Repeat("\n", 1000<<10)); err == nil || !strings.Contains(err.Error(), "ends early") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

// What a host says about itself is within bounds, and has no control characters.
func TestParse_Hostile(t *testing.T) {
	var gpus strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&gpus, "%d, GPU-%d\x1b[2J, NVIDIA L4 %s, 9223372036854775807, 550.1\n", i, i, strings.Repeat("x", 20))
		fmt.Fprintf(&gpus, "%d, MIG-%d, \x1b]0;evil\a\u202e, 1, 550.1\n", i, i)
	}
	text := "@@ nvidia\n" + gpus.String() + "@@ exit\n0\n" + strings.Replace(plainHost, "Debian GNU/Linux 12 (bookworm)", strings.Repeat("é", 1000)+"\x1b[2J", 1)
	text = strings.Replace(text, "24684096", "9223372036854775807", 1)
	r, err := inventory.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.GPUs) != 256 || len(r.Warnings) > 33 || !strings.Contains(r.Warnings[0], "it lists 5000 GPUs") || len(r.System) > 310 || !utf8.ValidString(r.System) {
		t.Errorf("%d GPUs, %d warnings, %q, system of %d bytes", len(r.GPUs), len(r.Warnings), r.Warnings[0], len(r.System))
	}
	if all := fmt.Sprint(r); strings.ContainsAny(all, "\x1b\a\u202e") {
		t.Error("control characters are left")
	}
	if r.Hardware.MemoryMiB > 1<<40 || r.GPUs[0].MemoryMiB > 1<<40 {
		t.Errorf("memory %d, of a GPU %d", r.Hardware.MemoryMiB, r.GPUs[0].MemoryMiB)
	}
	if _, err := inventory.Parse(strings.Replace(plainHost, "\n16\n", "\n9223372036854775807\n", 1)); err == nil {
		t.Error("so many CPUs are accepted")
	}
}
