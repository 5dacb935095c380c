package local

import (
	"os"
	"path/filepath"
	"testing"
)

// A stand-in for nvidia-smi answers as a real one does.
func TestGPULister_RunsTheToolOfTheDriver(t *testing.T) {
	tools := t.TempDir()
	script := "#!/bin/sh\necho '0, GPU-aa11, NVIDIA H200, 143771, 570.86.15, 9.0, Disabled'\n"
	if err := os.WriteFile(filepath.Join(tools, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	var l gpuLister
	gpus := l.list(t.Context()).GPUs
	if len(gpus) != 1 || gpus[0].ID != "GPU-aa11" || gpus[0].Name != "H200" || gpus[0].Capability != [2]int{9, 0} {
		t.Errorf("GPUs %+v", gpus)
	}
}
