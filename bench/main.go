// Bench measures what users wait for, and compares it with a floor on the same machine in the same run:
//
//   - start: from `dstack apply` to the first response through the gateway, the start of the command line, and the memory
//     of an idle server,
//   - live: how fast services follow their load, and the cost of thousands of replicas,
//   - gateway: requests, model calls, streams and held streams through the gateway, beside nginx, HAProxy, Caddy and ReverseProxy,
//   - chat: model requests through the gateway, beside direct requests and nginx,
//   - tls: handshakes and requests over TLS through a gateway, beside nginx and Caddy with the same certificate,
//   - hosts: the start of replicas on a host that is reached by SSH, and requests to them, beside its published port,
//   - cluster: the start of replicas on Kubernetes and requests to them, beside kubectl and the pod's own address; 1000 replicas
//     beside a Deployment; requests to the API server at rest,
//   - routes: route changes of a gateway process with 1000 services under load, its start from its disk, and its memory,
//   - keys: from the revocation of a key for callers until three gateway processes refuse it,
//   - catalogue: a plan over a hundred thousand offers of a cloud, beside a linear scan in Python, and the catalogue's memory,
//   - rented: 200 machines asked for at once, of a stand-in for EC2 that takes 50 ms for an answer,
//   - templates: the rendering of prompts, beside Python,
//   - published: requests, commands and idle memory, beside the published releases 0.18.10 and 0.22.5.
//
// Compare only ratios from one run, because machines differ. A figure that could not be measured is not printed.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	if isMode, err := runMode(os.Args[1:]); isMode {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	rounds := flag.Int("rounds", 7, "how often everything is measured, in random order; at least 5 times")
	binary := flag.String("dstack", "bin/dstack", "the binary to measure")
	only := flag.String("only", "", "measure only this part: "+listParts())
	var more gatewayOptions
	flag.StringVar(&more.rows, "rows", "", "of the part gateway, measure only the rows whose titles match this regular expression")
	flag.DurationVar(&more.period, "period", 2*time.Second, "of the part gateway, how long each program gets requests of one kind in each round")
	flag.StringVar(&more.beside, "beside", "", "another dstack binary, which the part gateway measures as well")
	flag.Parse()
	if err := run(*binary, max(*rounds, 5), *only, more); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// gatewayOptions are options of the part gateway.
type gatewayOptions struct {
	rows   string
	period time.Duration
	beside string
}

// parts are what can be measured, in this order.
var parts = []struct {
	name    string
	measure func(b *benchmark, rounds int) error
}{
	{"start", (*benchmark).measureStart},
	{"live", (*benchmark).measureLive},
	{"gateway", (*benchmark).measureGateway},
	{"chat", (*benchmark).measureChat},
	{"tls", (*benchmark).measureTLS},
	{"hosts", (*benchmark).measureHosts},
	{"cluster", (*benchmark).measureCluster},
	{"routes", (*benchmark).measureRoutes},
	{"keys", (*benchmark).measureKeys},
	{"catalogue", (*benchmark).measureCatalogue},
	{"rented", (*benchmark).measureRented},
	{"templates", func(_ *benchmark, rounds int) error { return measureTemplates(rounds) }},
	{"published", (*benchmark).measurePublished},
}

// listParts returns the names of all parts.
func listParts() string {
	names := make([]string, len(parts))
	for i, part := range parts {
		names[i] = part.name
	}
	return strings.Join(names, ", ")
}

// checkInput returns what is wrong with the flags, before anything is started.
func checkInput(binary, only string, more gatewayOptions) error {
	for _, binary := range []string{binary, cmp.Or(more.beside, binary)} {
		if _, err := os.Stat(binary); err != nil {
			return fmt.Errorf("there is no binary to measure: %w; run make build", err)
		}
	}
	if only != "" && !slices.Contains(strings.Split(listParts(), ", "), only) {
		return fmt.Errorf("there is no part %q; the parts are %s", only, listParts())
	}
	if _, err := regexp.Compile(more.rows); err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	return nil
}

func run(binary string, rounds int, only string, more gatewayOptions) error {
	if err := checkInput(binary, only, more); err != nil {
		return err
	}
	b, err := newBench(binary)
	if err != nil {
		return err
	}
	b.gatewayOptions = more
	defer b.close()
	fmt.Printf("%d rounds, load before %s\n", rounds, readLoadAverage())
	for _, part := range parts {
		if only != "" && only != part.name {
			continue
		}
		fmt.Println()
		if err := part.measure(b, rounds); err != nil {
			return err
		}
	}
	fmt.Printf("\nload after %s\n", readLoadAverage())
	return nil
}

// readLoadAverage returns the load of the machine, or an empty string where the system does not report it.
func readLoadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return strings.TrimSpace(string(text))
}

// measureStart measures from apply to the first response, and the parts of this time.
func (b *benchmark) measureStart(rounds int) error {
	if err := b.startServers(); err != nil {
		return err
	}
	samples, err := b.runRounds(b.startCases(), rounds)
	if err != nil {
		return err
	}
	memory, err := b.idleMemory()
	if err != nil {
		return err
	}
	b.reportStart(samples, memory)
	b.stopServers()
	return nil
}

// measureChat measures what the gateway adds to model requests.
func (b *benchmark) measureChat(rounds int) error {
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

// measureTemplates measures the rendering of prompts.
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

// benchmarkCase is measured in every round, in milliseconds.
type benchmarkCase struct {
	name    string
	measure func() (float64, error)
}

// benchmark has a temporary folder, and one server per engine while starts are measured.
type benchmark struct {
	gatewayOptions
	dir           string
	binary        string
	workload      string
	dockerMissing string // why Docker is not measured; empty: it is measured
	servers       map[string]*dstackServer
	runs          int
	starts        int
}

const workloadImage = "dstack-bench:1"

func newBench(binary string) (*benchmark, error) {
	dir, err := os.MkdirTemp("", "dstack-bench.")
	if err != nil {
		return nil, err
	}
	b := &benchmark{dir: dir, workload: filepath.Join(dir, "workload"), servers: map[string]*dstackServer{}}
	if b.binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	if err := b.buildWorkload(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *benchmark) buildWorkload() error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.workload, "dstack/e2e/workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the workload: %w: %s", err, out)
	}
	return nil
}

// startServers starts one server per engine.
func (b *benchmark) startServers() error {
	engines := []string{"process"}
	tar := os.Getenv("DSTACK_TEST_BASE_TAR")
	if os.Getenv("DSTACK_TEST_DOCKER") == "" || tar == "" {
		b.dockerMissing = strings.TrimSpace(os.Getenv("DSTACK_TEST_WITHOUT_DOCKER") + " " + os.Getenv("DSTACK_TEST_WITHOUT_IMAGES"))
		b.dockerMissing = cmp.Or(b.dockerMissing, "DSTACK_TEST_DOCKER and DSTACK_TEST_BASE_TAR are not set; scripts/test.sh bench sets them")
	} else {
		if err := b.makeImage(tar); err != nil {
			return err
		}
		engines = append(engines, "docker")
	}
	b.starts++ // each start has a new home folder, without the state of an older server
	for _, engine := range engines {
		s, err := startServer(b.binary, filepath.Join(b.dir, fmt.Sprintf("%s-%d", engine, b.starts)), engine)
		if err != nil {
			return err
		}
		b.servers[engine] = s
	}
	return nil
}

// makeImage builds an image of the workload on a base image with a shell.
func (b *benchmark) makeImage(tar string) error {
	base := "dstack-bench-base:1"
	if _, err := runCommand("docker", "import", tar, base); err != nil {
		return err
	}
	id, err := runCommand("docker", "create", base, "true")
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"cp", b.workload, id + ":/workload"}, {"commit", id, workloadImage}, {"rm", id}, {"rmi", "--no-prune", base}} {
		if _, err := runCommand("docker", args...); err != nil {
			return err
		}
	}
	return nil
}

func (b *benchmark) stopServers() {
	for _, s := range b.servers {
		s.stop()
	}
	if b.dockerMissing == "" && len(b.servers) > 1 {
		_, _ = runCommand("docker", "rmi", "-f", workloadImage) // best effort, at the end
	}
	clear(b.servers)
}

func (b *benchmark) close() {
	b.stopServers()
	_ = os.RemoveAll(b.dir)
}

// runCommand runs a command and returns its standard output without surrounding white space.
func runCommand(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
