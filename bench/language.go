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

// hundred is a configuration of a hundred lines.
const hundred = "bench/testdata/hundred.dstack.yml"

// files is how many of them `dstack validate` reads at once.
const files = 1000

// read is how long it takes to read and check one, in milliseconds.
func (b *bench) read() (float64, error) {
	return manyTimes(func(text []byte) error {
		c, err := spec.ParseConfiguration(hundred, text)
		if err == nil {
			c.Unsupported()
		}
		return err
	})
}

// readFloor is the same with nothing but the YAML library.
func (b *bench) readFloor() (float64, error) {
	return manyTimes(func(text []byte) error {
		var root yaml.Node
		return yaml.Load(text, &root)
	})
}

func manyTimes(do func(text []byte) error) (float64, error) {
	text, err := os.ReadFile(hundred)
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
	return milliseconds(time.Since(began)) / times, nil
}

// validate is how long the command takes for a folder of them.
func (b *bench) validate() (float64, error) {
	dir := filepath.Join(b.dir, "files")
	if _, err := os.Stat(dir); err != nil {
		if err := b.copies(dir); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if out, err := exec.Command(b.binary, "validate", dir).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("dstack validate: %w: %.200s", err, out)
	}
	return milliseconds(time.Since(began)), nil
}

func (b *bench) copies(dir string) error {
	text, err := os.ReadFile(hundred)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.dstack.yml", i)), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
