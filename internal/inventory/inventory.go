package inventory

import (
	"fmt"
	"strconv"
	"strings"

	"dstack/internal/dstack"
)

// Report is what a machine has.
type Report struct {
	System    string // such as Debian GNU/Linux 13 (trixie)
	MachineID string // of this machine since its last boot; empty: not known
	Hardware  dstack.Hardware
	GPUReport
}

// GPUReport is what is known about the GPUs of a machine.
type GPUReport struct {
	GPUs          []dstack.GPU // those that replicas can use
	DriverVersion string       // of the GPUs; empty: not known
	Warnings      []string     // for the user: GPUs that cannot be used, and why
}

// minFreeDiskMiB is the free space below which images are unlikely to fit.
const minFreeDiskMiB = 5 << 10

// Parse reads the output of Script. It fails if the output ends early or is too long, or has
// no CPUs or memory. The disk of the result is what is free of it.
func Parse(output string) (Report, error) {
	if len(output) > maxOutput {
		return Report{}, fmt.Errorf("the output is longer than %d KiB", maxOutput>>10)
	}
	sections := splitSections(output)
	if _, isWhole := sections.first("end"); !isWhole {
		return Report{}, fmt.Errorf("the output ends early: %q", lastLine(output))
	}
	r := Report{GPUReport: readGPUs(sections)}
	var err error
	cpus, _ := sections.first("cpus")
	if r.Hardware.CPUs, err = strconv.Atoi(strings.TrimSpace(cpus)); err != nil || r.Hardware.CPUs < 1 || r.Hardware.CPUs > maxCPUs {
		return Report{}, fmt.Errorf("the number of CPUs is not a number: %q", lastLine(cpus))
	}
	memory, _ := sections.first("memory")
	if r.Hardware.MemoryMiB = parseMemory(memory); r.Hardware.MemoryMiB == 0 {
		return Report{}, fmt.Errorf("/proc/meminfo has no MemTotal")
	}
	arch, _ := sections.first("arch")
	r.Hardware.Arch = limitText(nameArch(strings.TrimSpace(arch)))
	system, _ := sections.first("system")
	r.System = limitText(parseSystem(system))
	machine, _ := sections.first("machine")
	r.MachineID = parseMachineID(machine)
	disk, _ := sections.first("disk")
	free, folder := parseDisk(disk)
	r.Hardware.DiskMiB = free
	if folder != "" && free < minFreeDiskMiB {
		r.Warnings = append(r.Warnings, limitText(fmt.Sprintf("only %.1fGB of the disk %s is free, too little for most images", float64(free)/1024, folder)))
	}
	r.Hardware.GPUs = r.GPUs
	shareMemory(r.Hardware)
	return r, nil
}

// ParseGPUs reads the output of GPUScript.
func ParseGPUs(output string) GPUReport {
	return readGPUs(splitSections(output[:min(len(output), maxOutput)]))
}

func readGPUs(s sections) GPUReport {
	r := readNVIDIA(s)
	amd := readAMD(s)
	r.GPUs = append(r.GPUs, amd.GPUs...)
	r.Warnings = append(r.Warnings, amd.Warnings...)
	if r.DriverVersion == "" {
		r.DriverVersion = amd.DriverVersion
	}
	return limitGPUs(r)
}

// section is a part of the output of a script.
type section struct{ name, text string }

type sections []section

// splitSections splits the output of a script at its lines "@@ name".
func splitSections(output string) sections {
	var all sections
	at, begin := 0, 0 // of the line, and of the text of the last section
	for line := range strings.Lines(output) {
		if name, ok := strings.CutPrefix(line, "@@ "); ok {
			if len(all) > 0 {
				all[len(all)-1].text = output[begin:at]
			}
			all = append(all, section{name: strings.TrimSpace(name)})
			begin = at + len(line)
		}
		at += len(line)
	}
	if len(all) > 0 {
		all[len(all)-1].text = output[begin:]
	}
	return all
}

// first returns the text of the first section with a name.
func (s sections) first(name string) (text string, ok bool) {
	for _, one := range s {
		if one.name == name {
			return one.text, true
		}
	}
	return "", false
}

// lastTool returns what a tool printed when it was called last, and its exit code; -1: it
// is not known.
func (s sections) lastTool(name string) (text string, code int, ok bool) {
	for i, one := range s {
		if one.name != name {
			continue
		}
		text, code, ok = one.text, -1, true
		if i+1 < len(s) && s[i+1].name == "exit" {
			if n, err := strconv.Atoi(strings.TrimSpace(s[i+1].text)); err == nil {
				code = n
			}
		}
	}
	return text, code, ok
}

// parseMemory returns MemTotal of /proc/meminfo, whose unit is always kB of 1024 bytes; 0:
// it has none.
func parseMemory(meminfo string) int64 {
	for line := range strings.Lines(meminfo) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return min(max(kib, 0)>>10, maxSizeMiB)
		}
	}
	return 0
}

// archNames maps what uname -m prints to the names in configurations.
var archNames = map[string]string{
	"x86_64": "x86", "amd64": "x86", "i686": "x86", "i386": "x86",
	"aarch64": "arm", "arm64": "arm", "armv7l": "arm", "armv8l": "arm",
}

func nameArch(machine string) string {
	if name, ok := archNames[machine]; ok {
		return name
	}
	return machine
}

// parseSystem returns the name and version in /etc/os-release.
func parseSystem(osRelease string) string {
	values := map[string]string{}
	for line := range strings.Lines(osRelease) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok {
			values[name] = strings.Trim(value, `"'`)
		}
	}
	if pretty := values["PRETTY_NAME"]; pretty != "" {
		return pretty
	}
	return strings.TrimSpace(values["NAME"] + " " + values["VERSION"])
}

// parseMachineID joins the machine's ID and the ID of its boot. Machines that were copied
// from one image may share the first, but not the second. Without both, nothing is known.
func parseMachineID(text string) string {
	ids := strings.Fields(text)
	if len(ids) != 2 {
		return ""
	}
	return ids[0] + "/" + ids[1]
}

// parseDisk returns what is free in the output of df -Pk, and where the file system is
// mounted. The name of a device may contain spaces, so the columns are counted from the
// one that ends in %.
func parseDisk(df string) (freeMiB int64, folder string) {
	for line := range strings.Lines(df) {
		f := strings.Fields(line)
		for i := 3; i < len(f); i++ {
			if !strings.HasSuffix(f[i], "%") {
				continue
			}
			if kib, err := strconv.ParseInt(f[i-1], 10, 64); err == nil {
				return min(max(kib, 0)>>10, maxSizeMiB), strings.Join(f[i+1:], " ")
			}
		}
	}
	return 0, ""
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	line := lines[len(lines)-1]
	if len(line) > 200 {
		line = line[:200] + "…"
	}
	return line
}
