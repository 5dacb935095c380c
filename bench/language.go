package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v4"

	"dstack/internal/spec"
)

// hundredLines is the path of a configuration with 100 lines.
const hundredLines = "bench/testdata/hundred.dstack.yml"

// fileCount is the number of copies of it that `dstack validate` checks.
const fileCount = 1000

// measureRead returns how long one file takes to read and check, in milliseconds.
func (b *benchmark) measureRead() (float64, error) {
	return averageRead(func(text []byte) error {
		c, err := spec.ParseConfiguration(hundredLines, text)
		if err == nil {
			c.Unsupported()
		}
		return err
	})
}

// measureReadFloor returns how long the YAML library alone takes to read the file.
func (b *benchmark) measureReadFloor() (float64, error) {
	return averageRead(func(text []byte) error {
		var root yaml.Node
		return yaml.Load(text, &root)
	})
}

func averageRead(do func(text []byte) error) (float64, error) {
	text, err := os.ReadFile(hundredLines)
	if err != nil {
		return 0, err
	}
	const times = 200
	began := time.Now()
	for range times {
		if err := do(text); err != nil {
			return 0, err
		}
	}
	return toMilliseconds(time.Since(began)) / times, nil
}

// measureValidate returns how long `dstack validate` takes for a folder of copies.
func (b *benchmark) measureValidate() (float64, error) {
	dir := filepath.Join(b.dir, "files")
	if _, err := os.Stat(dir); err != nil {
		if err := b.copyFiles(dir); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if out, err := exec.Command(b.binary, "validate", dir).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("dstack validate: %w: %.200s", err, out)
	}
	return toMilliseconds(time.Since(began)), nil
}

func (b *benchmark) copyFiles(dir string) error {
	text, err := os.ReadFile(hundredLines)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range fileCount {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.dstack.yml", i)), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
