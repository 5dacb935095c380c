// Bench measures what a user waits for, against the floor on the same machine
// in the same run: from `dstack apply` to the first answer through the
// gateway, the start of the command line, and the memory of an idle server.
//
// Figures are ratios from one run: machines differ. A figure that could not be
// measured is not printed.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	rounds := flag.Int("rounds", 7, "how often everything is measured, in another order each time")
	binary := flag.String("dstack", "bin/dstack", "the binary to measure")
	flag.Parse()
	if err := run(*binary, max(*rounds, 5)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(binary string, rounds int) error {
	b, err := newBench(binary)
	if err != nil {
		return err
	}
	defer b.close()
	cases := b.cases()
	load, _ := os.ReadFile("/proc/loadavg") // for the reader; not on every system
	fmt.Printf("%d rounds, load before %s\n\n", rounds, strings.TrimSpace(string(load)))
	for _, c := range cases { // once for nothing: what is read for the first time is slow
		if _, err := c.measure(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	samples := map[string][]float64{}
	for range rounds {
		for _, i := range rand.Perm(len(cases)) {
			v, err := cases[i].measure()
			if err != nil {
				return fmt.Errorf("%s: %w", cases[i].name, err)
			}
			samples[cases[i].name] = append(samples[cases[i].name], v)
		}
	}
	memory, err := b.idleMemory()
	if err != nil {
		return err
	}
	b.report(samples, memory)
	return nil
}

// measured is one thing that is measured in every round, in milliseconds.
type measured struct {
	name    string
	measure func() (float64, error)
}

// bench is two servers, one for each engine, in a folder of their own.
type bench struct {
	dir      string
	binary   string
	workload string
	docker   string // why it is not measured; empty: it is
	servers  map[string]*server
	runs     int
}

const image = "dstack-bench:1"

func newBench(binary string) (*bench, error) {
	dir, err := os.MkdirTemp("", "dstack-bench.")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, workload: filepath.Join(dir, "workload"), servers: map[string]*server{}}
	if b.binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	if err := b.prepare(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) prepare() error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.workload, "./e2e/workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the workload: %w: %s", err, out)
	}
	engines := []string{"process"}
	tar := os.Getenv("DSTACK_TEST_BASE_TAR")
	if os.Getenv("DSTACK_TEST_DOCKER") == "" || tar == "" {
		b.docker = strings.TrimSpace(os.Getenv("DSTACK_TEST_WITHOUT_DOCKER") + " " + os.Getenv("DSTACK_TEST_WITHOUT_IMAGES"))
	} else {
		if err := b.makeImage(tar); err != nil {
			return err
		}
		engines = append(engines, "docker")
	}
	for _, engine := range engines {
		s, err := startServer(b.binary, filepath.Join(b.dir, engine), engine)
		if err != nil {
			return err
		}
		b.servers[engine] = s
	}
	return nil
}

// makeImage puts the workload on top of a base with a shell.
func (b *bench) makeImage(tar string) error {
	base := "dstack-bench-base:1"
	if _, err := output("docker", "import", tar, base); err != nil {
		return err
	}
	id, err := output("docker", "create", base, "true")
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"cp", b.workload, id + ":/workload"}, {"commit", id, image}, {"rm", id}, {"rmi", "--no-prune", base}} {
		if _, err := output("docker", args...); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) close() {
	for _, s := range b.servers {
		s.stop()
	}
	if b.docker == "" && len(b.servers) > 1 {
		_, _ = output("docker", "rmi", "-f", image) // as far as possible: this is the end
	}
	_ = os.RemoveAll(b.dir)
}

// output runs a command and returns what it printed, without the last newline.
func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if exit, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
