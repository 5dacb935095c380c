package inventory

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/dstack"
)

// readNVIDIA returns the GPUs that nvidia-smi listed, or why it lists none although the
// machine has some.
func readNVIDIA(s sections) GPUReport {
	var r GPUReport
	text, code, isInstalled := s.lastTool("nvidia")
	if isInstalled {
		r = parseNVIDIA(text)
		if code != 0 && code != -1 || len(r.GPUs) == 0 && len(r.Warnings) == 0 {
			if why := explainNVIDIA(text, code); why != "" {
				r.Warnings = append(r.Warnings, why)
			}
		}
	}
	present := 0
	for _, d := range readPCI(s) {
		if d.vendor == "0x10de" {
			present++
		}
	}
	switch _, hasToolkit := s.first("toolkit"); {
	case len(r.GPUs) == 0 && present > 0 && !isInstalled:
		r.Warnings = append(r.Warnings, countGPUs(present, "NVIDIA")+" without a driver: install NVIDIA's driver, which has nvidia-smi, and reboot")
	case len(r.GPUs) > 0 && !hasToolkit:
		r.Warnings = append(r.Warnings, "the NVIDIA Container Toolkit is not installed, so containers cannot use the GPUs: "+
			"install the package nvidia-container-toolkit and restart Docker")
	}
	return r
}

func countGPUs(n int, maker string) string {
	if n == 1 {
		return "it has an " + maker + " GPU"
	}
	return fmt.Sprintf("it has %d %s GPUs", n, maker)
}

// parseNVIDIA reads lines such as "0, GPU-1b2c, NVIDIA L4, 23034, 550.54.15, 8.9, [N/A]". It
// finds the fields by their form, because drivers do not know all of them.
func parseNVIDIA(text string) GPUReport {
	var r GPUReport
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ", ")
		at := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "GPU-") || strings.HasPrefix(f, "MIG-") })
		if at < 0 || len(fields) < at+3 {
			continue
		}
		gpu, driver, why := parseNVIDIARow(fields[at], fields[at+1], fields[at+2], fields[at+3:])
		if driver != "" {
			r.DriverVersion = driver
		}
		if why != "" {
			index := "of NVIDIA"
			if at > 0 {
				index = fields[0]
			}
			r.Warnings = append(r.Warnings, fmt.Sprintf("the GPU %s (%s) is left out: %s", index, fields[at+1], why))
			continue
		}
		r.GPUs = append(r.GPUs, gpu)
	}
	return r
}

// parseNVIDIARow reads the fields of one GPU. why says why it cannot be used.
func parseNVIDIARow(uuid, reported, memory string, rest []string) (gpu dstack.GPU, driver, why string) {
	_, name := NameGPU(reported)
	gpu = dstack.GPU{ID: uuid, Maker: "nvidia", Name: name}
	isSplit := strings.HasPrefix(uuid, "MIG-") || strings.Contains(reported, " MIG ")
	for _, f := range rest {
		major, minor, isNumber := parseVersion(f)
		switch {
		case f == "Enabled":
			isSplit = true
		case isNumber && major >= 100:
			driver = f
		case isNumber && major > 0:
			gpu.Capability = [2]int{major, minor}
		}
	}
	var err error
	gpu.MemoryMiB, err = strconv.ParseInt(memory, 10, 64)
	switch {
	case isSplit:
		return gpu, driver, "it is split by MIG, and slices cannot be used yet; nvidia-smi -mig 0 joins them"
	case err != nil && sharesMemory(name): // shareMemory adds it
		gpu.MemoryMiB = 0
	case err != nil || gpu.MemoryMiB <= 0:
		return gpu, driver, "nvidia-smi says of its memory only " + memory
	}
	return gpu, driver, ""
}

// parseVersion reads the first two numbers of a version such as 8.9 or 550.54.15.
func parseVersion(text string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(text, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(second)
	return major, minor, err == nil
}

// sharesMemory reports whether a GPU has no memory of its own, but uses the machine's:
// that of DGX Spark and Jetson.
func sharesMemory(name string) bool {
	return name == "GB10" || strings.HasPrefix(name, "Orin") || strings.HasPrefix(name, "Thor")
}

// shareMemory gives GPUs without memory of their own that of the machine.
func shareMemory(hw dstack.Hardware) {
	for i := range hw.GPUs {
		if hw.GPUs[i].MemoryMiB == 0 && sharesMemory(hw.GPUs[i].Name) {
			hw.GPUs[i].MemoryMiB = hw.MemoryMiB
		}
	}
}

// explainNVIDIA says why nvidia-smi failed, and what to do about it.
func explainNVIDIA(text string, code int) string {
	line := lastLine(text)
	has := func(words string) bool { return strings.Contains(strings.ToLower(text), words) }
	switch {
	case has("driver/library version mismatch"):
		return "NVIDIA's driver was updated, and the kernel still runs the old one, so no GPU can be used: reboot it"
	case has("couldn't communicate with the nvidia driver"):
		return "NVIDIA's driver is installed but does not run, so no GPU can be used: reboot it, or install the driver for its kernel again"
	case has("no devices were found"):
		return "NVIDIA's driver runs and finds no GPU; `sudo dmesg | grep NVRM` on the machine may say why"
	case has("gpu is lost"), has("unable to determine the device handle"):
		return "a GPU does not answer any more (" + line + "): reboot it, and look for Xid in `sudo dmesg`"
	case code == 124:
		return "nvidia-smi does not answer within 20s, so no GPU can be used; `sudo dmesg | grep NVRM` on the machine may say why"
	case has("not a valid field to query"):
		return "NVIDIA's driver is too old to list its GPUs (" + line + "): install driver 470 or newer"
	case code == 0 && strings.TrimSpace(text) == "":
		return "nvidia-smi lists no GPU"
	default:
		return fmt.Sprintf("nvidia-smi fails: %s (exit %d)", line, code)
	}
}
