// Bench measures what a user waits for, against the floor on the same machine
// in the same run: from `dstack apply` to the first answer through the
// gateway, the start of the command line, and the memory of an idle server;
// how services follow their load, and what thousands of replicas take;
// a model's answers through the gateway, against none and against nginx; and
// the making of a prompt, against Python.
//
// Figures are ratios from one run: machines differ. A figure that could not be
// measured is not printed.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	rounds := flag.Int("rounds", 7, "how often everything is measured, in another order each time")
	binary := flag.String("dstack", "bin/dstack", "the binary to measure")
	only := flag.String("only", "", "measure nothing but this: start, live, chat or templates")
	flag.Parse()
	if err := run(*binary, max(*rounds, 5), *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(binary string, rounds int, only string) error {
	b, err := newBench(binary)
	if err != nil {
		return err
	}
	defer b.close()
	fmt.Printf("%d rounds, load before %s\n", rounds, load())
	for _, part := range []struct {
		name    string
		measure func(rounds int) error
	}{{"start", b.measureStart}, {"live", b.measureLive}, {"chat", b.measureChat}, {"templates", measureTemplates}} {
		if only != "" && only != part.name {
			continue
		}
		fmt.Println()
		if err := part.measure(rounds); err != nil {
			return err
		}
	}
	fmt.Printf("\nload after %s\n", load())
	return nil
}

// load is for the reader; not every system tells it.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return strings.TrimSpace(string(text))
}

// measureStart is from apply to the first answer, and what goes into it.
func (b *bench) measureStart(rounds int) error {
	if err := b.startServers(); err != nil {
		return err
	}
	samples, err := b.rounds(b.cases(), rounds)
	if err != nil {
		return err
	}
	memory, err := b.idleMemory()
	if err != nil {
		return err
	}
	b.report(samples, memory)
	b.stopServers()
	return nil
}

// measureChat is what a model's answers take on their way.
func (b *bench) measureChat(rounds int) error {
	c, err := b.newChat()
	if err != nil {
		return err
	}
	all, held, err := c.measure(rounds)
	if err = errors.Join(err, c.close()); err != nil {
		return err
	}
	c.report(all, held)
	return nil
}

// measureTemplates is what making a prompt takes.
func measureTemplates(rounds int) error {
	r, err := renderCorpus(min(rounds, 5))
	if why, is := errors.AsType[notMeasured](err); is {
		fmt.Println("chat templates are not measured:", why)
		return nil
	}
	if err != nil {
		return err
	}
	r.report()
	return nil
}

// measured is one thing that is measured in every round, in milliseconds.
type measured struct {
	name    string
	measure func() (float64, error)
}

// bench is a folder of its own, and while starts are measured a server for
// each engine.
type bench struct {
	dir      string
	binary   string
	workload string
	docker   string // why it is not measured; empty: it is
	servers  map[string]*server
	runs     int
	starts   int
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
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.workload, "dstack/e2e/workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the workload: %w: %s", err, out)
	}
	return nil
}

// startServers starts one for each engine.
func (b *bench) startServers() error {
	engines := []string{"process"}
	tar := os.Getenv("DSTACK_TEST_BASE_TAR")
	if os.Getenv("DSTACK_TEST_DOCKER") == "" || tar == "" {
		b.docker = strings.TrimSpace(os.Getenv("DSTACK_TEST_WITHOUT_DOCKER") + " " + os.Getenv("DSTACK_TEST_WITHOUT_IMAGES"))
		b.docker = cmp.Or(b.docker, "DSTACK_TEST_DOCKER and DSTACK_TEST_BASE_TAR are not set; scripts/test.sh bench sets them")
	} else {
		if err := b.makeImage(tar); err != nil {
			return err
		}
		engines = append(engines, "docker")
	}
	b.starts++ // each start has a home of its own, in which nobody knows an older server
	for _, engine := range engines {
		s, err := startServer(b.binary, filepath.Join(b.dir, fmt.Sprintf("%s-%d", engine, b.starts)), engine)
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

func (b *bench) stopServers() {
	for _, s := range b.servers {
		s.stop()
	}
	if b.docker == "" && len(b.servers) > 1 {
		_, _ = output("docker", "rmi", "-f", image) // as far as possible: this is the end
	}
	clear(b.servers)
}

func (b *bench) close() {
	b.stopServers()
	_ = os.RemoveAll(b.dir)
}

// output runs a command and returns what it printed, without the last newline.
func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
