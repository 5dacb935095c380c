package inventory_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/inventory"
)

// The output of a host without GPUs, as Debian 12 prints it.
const plainHost = `
@@ amdgpu

@@ pci
0000:00:02.0 0x1234 0x1111 none 0 none

@@ cpus
16

@@ arch
aarch64

@@ memory
MemTotal:       24684096 kB
MemFree:        20427676 kB

@@ system
NAME="Debian GNU/Linux"
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"

@@ machine
3d1219c7c4c5404aaa1f6d2a48adfda4
6dba3878-15f4-4c0f-bb3c-fd579c55ca21

@@ disk
Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/my disk     264212084 50385124  45116140      53% /var/lib/docker

@@ end
`

func TestParse(t *testing.T) {
	r, err := inventory.Parse(plainHost)
	if err != nil {
		t.Fatal(err)
	}
	h := r.Hardware
	if h.CPUs != 16 || h.Arch != "arm" || h.MemoryMiB != 24105 || h.DiskMiB != 44058 || len(h.GPUs) != 0 {
		t.Errorf("hardware %+v", h)
	}
	if r.System != "Debian GNU/Linux 12 (bookworm)" || r.MachineID != "3d1219c7c4c5404aaa1f6d2a48adfda4/6dba3878-15f4-4c0f-bb3c-fd579c55ca21" {
		t.Errorf("system %q, machine %q", r.System, r.MachineID)
	}
	if len(r.Warnings) != 0 || r.DriverVersion != "" {
		t.Errorf("warnings %q, driver %q", r.Warnings, r.DriverVersion)
	}
}

func TestParse_OddOutputs(t *testing.T) {
	for _, c := range []struct{ name, from, to, err, warning string }{
		{"cut off", "@@ end\n", "", "the output ends early", ""},
		{"no number of CPUs", "\n16\n", "\nsh: nproc: not found\n", "the number of CPUs is not a number", ""},
		{"no memory", "MemTotal:", "MemTotals:", "no MemTotal", ""},
		{"a full disk", "45116140      53%", "1048576     100%", "", "only 1.0GB of the disk /var/lib/docker is free"},
		{"more used than there is", "45116140      53%", "-4096     100%", "", "only 0.0GB"},
		{"no machine ID", "3d1219c7c4c5404aaa1f6d2a48adfda4\n", "", "", ""},
	} {
		r, err := inventory.Parse(strings.Replace(plainHost, c.from, c.to, 1))
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: error %v", c.name, err)
		case c.err == "" && (err != nil || !strings.Contains(strings.Join(r.Warnings, "\n"), c.warning)):
			t.Errorf("%s: %v, warnings %q", c.name, err, r.Warnings)
		case c.name == "no machine ID" && r.MachineID != "":
			t.Errorf("the machine ID is %q, without one half", r.MachineID)
		}
	}
}

// The script runs in this machine's own shells, with stand-ins for the tools of GPUs: they
// print what real ones were seen to print, and know the fields that real ones know.
func TestScript_RunsWithStandInTools(t *testing.T) {
	shells := 0
	for _, shell := range []string{"dash", "bash", "busybox", "sh"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		shells++
		tools := t.TempDir()
		// Driver 470 refuses the fields that it does not know, with exit code 2.
		writeTool(t, tools, "nvidia-smi", `case $1 in *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;; esac
echo "0, GPU-7fdaf0a5-179b-f636-d15d-daf243e3ff16, Tesla T4, 15109, 470.182.03"`)
		writeTool(t, tools, "nvidia-ctk", "true")
		writeTool(t, tools, "rocm-smi", `echo "WARNING: AMD GPU device(s) is/are in a low-power state"
echo '{"card0": {"PCI Bus": "0000:83:00.0", "VRAM Total Memory (B)": "34342961152", "Card series": "Arcturus GL-XL [Instinct MI100]"}, "system": {"Driver version": "6.3.6"}}'`)
		args := []string{"-s", "/nowhere"}
		if shell == "busybox" {
			args = append([]string{"sh"}, args...)
		}
		command := exec.Command(path, args...)
		command.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"))
		command.Stdin = strings.NewReader(inventory.Script)
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", shell, err, out)
		}
		r, err := inventory.Parse(string(out))
		if err != nil {
			t.Fatalf("%s: %v\n%s", shell, err, out)
		}
		if r.Hardware.CPUs < 1 || r.Hardware.MemoryMiB < 64 || r.Hardware.DiskMiB < 1 || r.System == "" {
			t.Errorf("%s: %+v", shell, r)
		}
		if len(r.GPUs) != 2 || r.GPUs[0].Name != "T4" || r.GPUs[1].Name != "MI100" || r.DriverVersion != "470.182.03" || len(r.Warnings) != 0 {
			t.Errorf("%s: %+v\n%s", shell, r.GPUReport, out)
		}
	}
	if shells == 0 {
		t.Fatal("this machine has no shell")
	}
}

func writeTool(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}
