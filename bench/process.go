package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// residentMemory returns the resident memory of a process and its children, in KiB; 0 where there is no /proc.
func residentMemory(pid int) (float64, error) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		return 0, nil
	}
	sum := 0.0
	for _, one := range append(childProcesses(pid), pid) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", one))
		if err != nil {
			return 0, err
		}
		_, rest, found := strings.Cut(string(status), "VmRSS:")
		if !found {
			return 0, fmt.Errorf("process %d has no VmRSS", one)
		}
		kilobytes, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			return 0, err
		}
		sum += kilobytes
	}
	return sum, nil
}

// processMemoryParts is the memory of one process, in MB.
type processMemoryParts struct {
	resident  float64
	private   float64 // that no other process shares
	anonymous float64 // that is not from a file
}

// readMemory returns the memory of one process; nothing where there is no /proc.
func readMemory(pid int) (processMemoryParts, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if errors.Is(err, os.ErrNotExist) {
		return processMemoryParts{}, nil
	}
	if err != nil {
		return processMemoryParts{}, err
	}
	kilobytes := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 {
			kilobytes[fields[0]], _ = strconv.ParseFloat(fields[1], 64)
		}
	}
	return processMemoryParts{resident: kilobytes["Rss:"] / 1024, anonymous: kilobytes["Anonymous:"] / 1024,
		private: (kilobytes["Private_Clean:"] + kilobytes["Private_Dirty:"]) / 1024}, nil
}

// usedCPUTime returns the CPU time of a process and its children; 0 where there is no /proc.
func usedCPUTime(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	var ticks int64
	for _, one := range append(childProcesses(pid), pid) {
		fields := readProcStat(one)
		for _, i := range []int{11, 12} { // utime and stime
			if i < len(fields) {
				n, _ := strconv.ParseInt(fields[i], 10, 64)
				ticks += n
			}
		}
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ is 100 on every Linux that Go runs on
}

func childProcesses(pid int) []int {
	all, _ := filepath.Glob("/proc/[0-9]*")
	var of []int
	for _, dir := range all {
		one, err := strconv.Atoi(filepath.Base(dir))
		if fields := readProcStat(one); err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			of = append(of, one)
		}
	}
	return of
}

// readProcStat returns the fields of /proc/PID/stat after the process name, which may contain spaces; nil for a process
// that has ended.
func readProcStat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}
