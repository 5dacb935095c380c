package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/sshclient"
)

const (
	hostImage = "dstack-bench-host:1"
	hostPort  = 18000 // on the host, of the container whose port is published
)

// hostBench measures replicas on a host that is reached by SSH: the first one of e2e/fleet/fleet.sh.
type hostBench struct {
	*benchmark
	folder  string // of the hosts
	address string
	server  *dstackServer
	ssh     *sshclient.Client
	paths   []requestPath
}

// measureHosts measures the start of a replica on a host, and requests to it.
func (b *benchmark) measureHosts(rounds int) error {
	h, err := b.newHostBench()
	if why, is := errors.AsType[notMeasured](err); is {
		fmt.Println("hosts are not measured:", why)
		return nil
	}
	if err != nil {
		return err
	}
	defer h.close()
	samples, err := h.runRounds([]benchmarkCase{{"host floor", h.measureDockerRun}, {"host", h.measureHostApply}}, rounds)
	if err != nil {
		return err
	}
	if err := h.startTargets(); err != nil {
		return err
	}
	traffic, err := (&chatService{paths: h.paths}).measureTraffic(rounds)
	if err != nil {
		return err
	}
	h.report(samples, traffic)
	return nil
}

func (b *benchmark) newHostBench() (*hostBench, error) {
	folder := os.Getenv("DSTACK_TEST_FLEET")
	if folder == "" {
		return nil, notMeasured(strings.TrimSpace("there are no hosts: " + os.Getenv("DSTACK_TEST_WITHOUT_FLEET")))
	}
	network, err := os.ReadFile(filepath.Join(folder, "network"))
	if err != nil {
		return nil, err
	}
	h := &hostBench{benchmark: b, folder: folder, address: strings.TrimSpace(string(network)) + ".11"}
	key, err := os.ReadFile(filepath.Join(folder, "id"))
	if err != nil {
		return nil, err
	}
	h.ssh = sshclient.New(sshclient.Options{Login: dstack.SSHLogin{Address: h.address + ":22", User: "root", PrivateKey: string(key)}})
	if err = h.makeHostImage(); err == nil {
		h.server, err = startServer(b.binary, filepath.Join(b.dir, "hosts"), "process")
	}
	if err == nil {
		fleet := filepath.Join(b.dir, "fleet.dstack.yml")
		text := fmt.Sprintf("type: fleet\nname: bench\nssh_config: {user: root, identity_file: %s/id, hosts: [%s]}\n", folder, h.address)
		if err = os.WriteFile(fleet, []byte(text), 0o600); err == nil {
			err = h.server.runCLI(b.dir, "apply", "-f", fleet, "-y")
		}
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *hostBench) close() {
	if h.server != nil {
		_ = h.server.removeService("host-chat", h.dir) // it may not have been applied
		_ = h.server.removeService("here-chat", h.dir)
		h.server.stop()
	}
	_, _ = h.runOnHost("docker", "rm", "-f", "bench-published")
	_ = h.ssh.Close()
}

// runOnHost runs a command on the host as users do: with the ssh command.
func (h *hostBench) runOnHost(args ...string) (string, error) {
	return runCommand("ssh", append([]string{"-F", filepath.Join(h.folder, "ssh_config"), h.address}, args...)...)
}

// packImage returns the file system of an image of busybox and the workload, as a tar.
func (b *benchmark) packImage() ([]byte, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, notMeasured("busybox (package busybox-static) is not installed")
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, from := range map[string]string{"bin/sh": busybox, "workload": b.workload} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))})
		}
		if err == nil {
			_, err = w.Write(text)
		}
		if err != nil {
			return nil, err
		}
	}
	err = w.Close()
	return archive.Bytes(), err
}

// makeHostImage makes an image of busybox and the workload on the host.
func (h *hostBench) makeHostImage() error {
	archive, err := h.packImage()
	if err != nil {
		return err
	}
	importing := exec.Command("ssh", "-F", filepath.Join(h.folder, "ssh_config"), h.address, "docker", "import", "-", hostImage)
	importing.Stdin = bytes.NewReader(archive)
	if out, err := importing.CombinedOutput(); err != nil {
		return fmt.Errorf("docker import on a host: %w: %s", err, out)
	}
	return nil
}

// measureDockerRun is the floor for hosts: docker run through the ssh command, and requests to the published port.
func (h *hostBench) measureDockerRun() (float64, error) {
	began := time.Now()
	id, err := h.runPublished("--rm")
	if err != nil {
		return 0, err
	}
	err = waitUntilServed(fmt.Sprintf("http://%s:%d/", h.address, hostPort), "", time.Minute)
	took := time.Since(began)
	_, stop := h.runOnHost("docker", "kill", id)
	return toMilliseconds(took), errors.Join(err, stop, h.waitUntilGone(id))
}

func (h *hostBench) runPublished(options ...string) (string, error) {
	args := append([]string{"docker", "run", "-d", "-p", fmt.Sprintf("%d:8000", hostPort)}, options...)
	return h.runOnHost(append(args, hostImage, "/workload", "8000")...)
}

// waitUntilGone waits until a container is removed, so that its port is free.
func (h *hostBench) waitUntilGone(id string) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if left, err := h.runOnHost("docker", "ps", "-aq", "--no-trunc", "--filter", "id="+id); err != nil || left == "" {
			return err
		}
	}
	return fmt.Errorf("the container %s is not removed", id)
}

// measureHostApply measures from `dstack apply` to the first response through the gateway.
func (h *hostBench) measureHostApply() (float64, error) {
	h.runs++
	name := fmt.Sprintf("host-%d", h.runs)
	took, err := h.apply(name, "image: "+hostImage, "backends: [ssh]", "commands: [exec /workload 8000]")
	return toMilliseconds(took), errors.Join(err, h.server.removeService(name, h.dir))
}

func (h *hostBench) apply(name string, lines ...string) (time.Duration, error) {
	return h.applyOnPort(name, 8000, lines...)
}

// startTargets starts what requests are sent to: a container with a published port, a replica on the host, and one on this
// machine.
func (h *hostBench) startTargets() error {
	if _, err := h.runPublished("--name", "bench-published"); err != nil {
		return err
	}
	published := fmt.Sprintf("%s:%d", h.address, hostPort)
	if err := waitUntilServed("http://"+published+"/", "", time.Minute); err != nil {
		return err
	}
	ip, err := h.runOnHost("docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "bench-published")
	if err != nil {
		return err
	}
	if _, err := h.apply("host-chat", "image: "+hostImage, "backends: [ssh]", "commands: [exec /workload 8000]"); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	here := []string{"backends: [local]", "env: [HOST=127.0.0.1]", fmt.Sprintf("commands: [exec %s %d]", h.workload, port)}
	if _, err := h.applyOnPort("here-chat", port, here...); err != nil {
		return err
	}
	const path = "/v1/chat/completions"
	gateway := fmt.Sprintf("127.0.0.1:%d", h.server.port)
	h.paths = []requestPath{
		{name: "port", address: published, path: path},
		{name: "ssh", address: published, path: path, dial: func() (net.Conn, error) {
			return h.ssh.Dial(context.Background(), "tcp", ip+":8000")
		}},
		{name: "gateway, host", address: gateway, path: "/proxy/services/main/host-chat" + path, pid: h.server.cmd.Process.Pid},
		{name: "gateway, here", address: gateway, path: "/proxy/services/main/here-chat" + path, pid: h.server.cmd.Process.Pid},
	}
	return nil
}

func (h *hostBench) applyOnPort(name string, port int, lines ...string) (time.Duration, error) {
	dir := filepath.Join(h.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	config := fmt.Sprintf("type: service\nname: %s\nport: %d\n%s\n", name, port, strings.Join(lines, "\n"))
	if err := os.WriteFile(filepath.Join(dir, "service.dstack.yml"), []byte(config), 0o600); err != nil {
		return 0, err
	}
	return h.server.applyAndWait(name, dir)
}

func (h *hostBench) report(samples map[string][]float64, traffic trafficResults) {
	fmt.Printf("%-36s %7.4g ms\n%-36s %7.4g ms\n", "host: ssh HOST docker run", median(samples["host floor"]), "host: dstack apply", median(samples["host"]))
	printRatios("host: dstack apply / ssh HOST docker run", samples["host"], samples["host floor"])
	fmt.Println()
	for _, t := range trafficPatterns {
		for _, w := range h.paths {
			traffic[t.title][w.name].print(t.title, w)
		}
	}
	fmt.Println()
	for _, t := range trafficPatterns {
		of := traffic[t.title]
		printRatios(t.title+": calls/s, ssh / port", of["ssh"].rate, of["port"].rate)
		printRatios(t.title+": calls/s, gateway to host / to here", of["gateway, host"].rate, of["gateway, here"].rate)
		printRatios(t.title+": calls/s, gateway to host / port", of["gateway, host"].rate, of["port"].rate)
	}
	fmt.Println()
	each := divideByFloors(samples["host"], samples["host floor"])
	printMaximumGoal("host: apply / ssh HOST docker run: 1.2 times", median(each), 1.2, "times")
	for _, t := range trafficPatterns {
		of := traffic[t.title]
		printMinimumGoal(t.title+": calls/s through SSH: 0.7 of the published port's", median(divideByFloors(of["ssh"].rate, of["port"].rate)), 0.7, "times")
	}
}
