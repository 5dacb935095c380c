package local

import (
	"testing"

	"dstack/internal/dstack"
)

func TestParseGPUs(t *testing.T) {
	text := "GPU-aa11, NVIDIA H200, 143771, 9.0\nGPU-bb22, NVIDIA L4, 23034, 8.9\nGPU-cc33, Tesla K80, 11441, [N/A]\n\nNo devices were found\nGPU-dd44, odd, [N/A], 8.0\n"
	got := parseGPUs(text)
	want := []dstack.GPU{
		{ID: "GPU-aa11", Maker: "nvidia", Name: "H200", MemoryMiB: 143771, Capability: [2]int{9, 0}},
		{ID: "GPU-bb22", Maker: "nvidia", Name: "L4", MemoryMiB: 23034, Capability: [2]int{8, 9}},
		{ID: "GPU-cc33", Maker: "nvidia", Name: "K80", MemoryMiB: 11441},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}
