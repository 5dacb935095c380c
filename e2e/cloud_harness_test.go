package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/cloud/gcp/computetest"
)

// cloudMachines are hosts of fleet/fleet.sh that stand for the machines of a cloud: each is booted as its image, runs its
// user data as root, and has the metadata service at its usual address.
type cloudMachines struct {
	t       *testing.T
	folder  string
	network string
	rootfs  []byte

	mu    sync.Mutex
	last  int                      // number of the host that was booted last
	hosts map[string]*cloudMachine // by the cloud's identifier
	work  sync.WaitGroup
}

// cloudMachine is a host that stands for a machine.
type cloudMachine struct {
	number   int
	metadata *http.Server
	disks    map[string]string // block devices by the disk's identifier
}

// cloudLock is held by the test that boots machines.
var cloudLock sync.Mutex

// newCloudMachines makes the network of the machines. It skips the test where hosts cannot be made.
func newCloudMachines(t *testing.T) *cloudMachines {
	t.Helper()
	pieces := filepath.Dir(needPiece(t, "fleet", "DSTACK_TEST_FLEET"))
	runParallelWith(t, &cloudLock)
	folder, err := os.MkdirTemp(pieces, "clouds.") // scripts/pieces.sh removes what is left after a test that was killed
	if err != nil {
		t.Fatal(err)
	}
	c := &cloudMachines{t: t, folder: folder, rootfs: buildRootfs(t), hosts: map[string]*cloudMachine{}}
	t.Cleanup(c.removeAll)
	c.mustControl("up")
	network, err := os.ReadFile(filepath.Join(folder, "network"))
	if err != nil {
		t.Fatal(err)
	}
	c.network = strings.TrimSpace(string(network))
	return c
}

// control runs a command of fleet.sh and returns its output.
func (c *cloudMachines) control(ctx context.Context, stdin []byte, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "fleet/fleet.sh", args...)
	cmd.Env = append(os.Environ(), "FLEET_DIR="+c.folder, "FLEET_CLOUD=yes")
	cmd.Stdin = bytes.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

func (c *cloudMachines) mustControl(args ...string) string {
	c.t.Helper()
	out, err := c.control(context.Background(), nil, args...)
	if err != nil {
		c.t.Fatalf("fleet.sh %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// boot boots a host for a machine and returns its address. The user data runs after that.
func (c *cloudMachines) boot(ref string, userData []byte, metadata http.Handler) (string, error) {
	c.mu.Lock()
	c.last++
	m := &cloudMachine{number: c.last, disks: map[string]string{}}
	c.hosts[ref] = m
	c.mu.Unlock()
	number := strconv.Itoa(m.number)
	if out, err := c.control(context.Background(), nil, "up", number); err != nil {
		return "", fmt.Errorf("boot host %s: %w: %s", number, err, out)
	}
	listener, err := c.listenInside(m.number, "169.254.169.254:80")
	if err != nil {
		return "", err
	}
	m.metadata = &http.Server{Handler: metadata, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	c.work.Go(func() { _ = m.metadata.Serve(listener) })
	if out, err := c.control(context.Background(), c.rootfs, "run", number, "docker", "import", "-c", "ENV PATH=/bin", "-", fleetImage); err != nil {
		return "", fmt.Errorf("import an image on host %s: %w: %s", number, err, out)
	}
	c.work.Go(func() {
		const script = "cat >/run/user-data && sh /run/user-data >/root/user-data.log 2>&1 </dev/null"
		_, _ = c.control(context.Background(), userData, "run", number, "sh", "-c", script) // the server sees whether it failed
	})
	return fmt.Sprintf("%s.%d", c.network, 10+m.number), nil
}

// remove kills the host of a machine and deletes its disk.
func (c *cloudMachines) remove(ref string) {
	c.mu.Lock()
	m := c.hosts[ref]
	delete(c.hosts, ref)
	c.mu.Unlock()
	if m == nil {
		return
	}
	if m.metadata != nil {
		_ = m.metadata.Close()
	}
	if out, err := c.control(context.Background(), nil, "remove", strconv.Itoa(m.number)); err != nil {
		c.t.Errorf("fleet.sh remove: %v: %s", err, out)
	}
	for _, device := range m.disks {
		c.releaseDevice(device)
	}
}

// removeAll removes the machines that a test has left, and their network.
func (c *cloudMachines) removeAll() {
	c.mu.Lock()
	left := slices.Collect(maps.Keys(c.hosts))
	c.mu.Unlock()
	for _, ref := range left {
		c.remove(ref)
	}
	c.work.Wait()
	if out, err := c.control(context.Background(), nil, "down"); err != nil {
		c.t.Errorf("fleet.sh down: %v: %s", err, out)
	}
	_ = os.RemoveAll(c.folder)
}

// attach shows a disk, which is a file, as a block device of a machine. link is its name below /dev/disk/by-id.
func (c *cloudMachines) attach(disk string, sizeGB int, ref, link string) error {
	file := filepath.Join(c.folder, disk)
	image, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(image.Truncate(int64(sizeGB)<<30), image.Close())
	if err != nil {
		return err
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("losetup: %w: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	number := c.numberOf(ref)
	c.mu.Lock()
	c.hosts[ref].disks[disk] = device
	c.mu.Unlock()
	_, err = c.control(context.Background(), nil, "run", number, "sh", "-c", "mkdir -p /dev/disk/by-id && ln -sf "+device+" /dev/disk/by-id/"+link)
	return err
}

// detach takes a disk off a machine.
func (c *cloudMachines) detach(disk, ref, link string) {
	number := c.numberOf(ref)
	_, _ = c.control(context.Background(), nil, "run", number, "rm", "-f", "/dev/disk/by-id/"+link)
	c.mu.Lock()
	device := c.hosts[ref].disks[disk]
	delete(c.hosts[ref].disks, disk)
	c.mu.Unlock()
	c.releaseDevice(device)
}

func (c *cloudMachines) releaseDevice(device string) {
	if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
		c.t.Errorf("losetup --detach %s: %v: %s", device, err, out)
	}
}

// crash cuts the power of a machine. Its cloud does not notice.
func (c *cloudMachines) crash(ref string) { c.mustControl("crash", c.numberOf(ref)) }

func (c *cloudMachines) numberOf(ref string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.hosts[ref]; m != nil {
		return strconv.Itoa(m.number)
	}
	c.t.Fatalf("there is no host for the machine %s", ref)
	return ""
}

// listContainersOn returns the names of all containers on a machine.
func (c *cloudMachines) listContainersOn(ref string) string {
	return c.mustControl("run", c.numberOf(ref), "docker", "ps", "-a", "--format", "{{.Names}}")
}

// listenInside listens in the network of a host. The socket stays there when the thread has come back.
func (c *cloudMachines) listenInside(number int, address string) (net.Listener, error) {
	bridge := "dsf" + c.network[strings.LastIndex(c.network, ".")+1:]
	inside, err := os.Open(fmt.Sprintf("/run/netns/%s-h%d", bridge, number))
	if err != nil {
		return nil, err
	}
	defer func() { _ = inside.Close() }()
	type result struct {
		listener net.Listener
		err      error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // without unlocking it: the thread ends with this goroutine, and is never used outside
		if err := unix.Setns(int(inside.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("enter the network of host %d: %w", number, err)}
			return
		}
		listener, err := net.Listen("tcp", address)
		done <- result{listener, err}
	}()
	r := <-done
	return r.listener, r.err
}

// awsSet is a stand-in for EC2 with machines, and a server that rents them.
type awsSet struct {
	*harness
	machines *cloudMachines
	ec2      *ec2test.Server
}

// newAWSSet starts a server with a backend of type aws. lines are added to the entry of the backend.
func newAWSSet(t *testing.T, lines ...string) *awsSet {
	t.Helper()
	s := newStoppedAWSSet(t, lines...)
	s.startServer()
	s.waitForPrices()
	return s
}

func newStoppedAWSSet(t *testing.T, lines ...string) *awsSet {
	t.Helper()
	s := &awsSet{machines: newCloudMachines(t)}
	started, err := ec2test.Start(ec2test.Options{
		Steps: ec2test.Steps{Lag: 2 * time.Second, Terminated: time.Second, Attach: time.Second},
		OnRun: func(i ec2test.Instance) (string, error) {
			return s.machines.boot(i.ID, i.UserData, s.ec2.Metadata(i.ID))
		},
		OnTerminate: func(i ec2test.Instance) { s.machines.remove(i.ID) },
		OnAttach: func(v ec2test.Volume, i ec2test.Instance) error {
			return s.machines.attach(v.ID, v.SizeGB, i.ID, linkOfVolume(v.ID))
		},
		OnDetach: func(v ec2test.Volume, i ec2test.Instance) { s.machines.detach(v.ID, i.ID, linkOfVolume(v.ID)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.ec2 = started
	t.Cleanup(s.ec2.Close)
	s.harness = newStoppedHarness(t, "process", "AWS_EC2_METADATA_DISABLED=true")
	s.configure(lines...)
	return s
}

// linkOfVolume is the name that Linux has for a volume of EC2.
func linkOfVolume(id string) string {
	return "nvme-Amazon_Elastic_Block_Store_" + strings.ReplaceAll(id, "-", "")
}

// configure writes the server's configuration.
func (s *awsSet) configure(lines ...string) {
	s.t.Helper()
	entry := []string{
		"- type: aws", "  creds: {type: access_key, access_key: " + ec2test.AccessKey + ", secret_key: " + ec2test.SecretKey + "}",
		"  regions: [us-east-1]", "  endpoint: " + s.ec2.URL,
	}
	s.writeFile(filepath.Join(s.serverDir, "config.yml"), "projects:\n- name: main\n  backends:\n  "+strings.Join(append(entry, lines...), "\n  ")+"\n")
}

// waitForPrices waits until the server has the prices of the stand-in, and not those of its own table.
func (s *awsSet) waitForPrices() {
	s.t.Helper()
	s.waitUntil(20*time.Second, "the server knows the prices of the cloud", func() error {
		if s.ec2.CountCalls("DescribeSpotPriceHistory") == 0 || s.ec2.CountCalls("DescribeInstanceTypeOfferings") == 0 {
			return fmt.Errorf("it did not ask")
		}
		return nil
	})
}

// serviceConfig returns the configuration of a service on one rented machine for each replica.
func (s *awsSet) serviceConfig(name string, lines ...string) string {
	text := fmt.Sprintf("type: service\nname: %s\nimage: %s\nbackends: [aws]\nport: 8000\ncommands:\n- exec ./workload 8000\n"+
		"resources: {cpu: 2, memory: 1GB.., disk: 100GB..}\n", name, fleetImage)
	return text + strings.Join(append(lines, ""), "\n")
}

// waitForMachines waits until a number of machines costs money, and returns them.
func (s *awsSet) waitForMachines(limit time.Duration, want int) (alive []ec2test.Instance) {
	s.t.Helper()
	s.waitUntil(limit, fmt.Sprintf("%d machines are alive", want), func() error {
		if alive = s.ec2.Alive(); len(alive) != want {
			return fmt.Errorf("%d are: %+v", len(alive), alive)
		}
		return nil
	})
	return alive
}

// expectOneLaunchEach checks that no instance of the server has got two machines.
func (s *awsSet) expectOneLaunchEach() {
	s.t.Helper()
	seen := map[string]string{}
	for _, i := range s.ec2.Instances() {
		instance := i.Tags["dstack-instance"]
		if other := seen[instance]; other != "" || instance == "" {
			s.t.Errorf("the instance %q has the machines %s and %s", instance, other, i.ID)
		}
		seen[instance] = i.ID
	}
}

// gcpSet is a stand-in for Compute Engine with machines, and a server that rents them.
type gcpSet struct {
	*harness
	machines *cloudMachines
	compute  *computetest.Server
}

// newGCPSet starts a server with a backend of type gcp.
func newGCPSet(t *testing.T) *gcpSet {
	t.Helper()
	s := &gcpSet{machines: newCloudMachines(t)}
	started, err := computetest.Start(computetest.Options{
		Document: computetest.FindDocument(),
		Steps:    computetest.Steps{Lag: 2 * time.Second, Refused: time.Second},
		OnRun: func(i computetest.Instance) (string, error) {
			return s.machines.boot(i.Name, i.UserData, s.compute.Metadata(i.Name))
		},
		OnTerminate: func(i computetest.Instance) { s.machines.remove(i.Name) },
		OnAttach: func(d computetest.Disk, i computetest.Instance) error {
			return s.machines.attach(d.Name, d.SizeGB, i.Name, "google-"+d.Name)
		},
		OnDetach: func(d computetest.Disk, i computetest.Instance) { s.machines.detach(d.Name, i.Name, "google-"+d.Name) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.compute = started
	t.Cleanup(s.compute.Close)
	s.harness = newStoppedHarness(t, "process", "GCE_METADATA_HOST=127.0.0.1:9")
	key := filepath.Join(s.home, "key.json")
	s.writeFile(key, s.compute.KeyFile(""))
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	s.writeFile(filepath.Join(s.serverDir, "config.yml"), fmt.Sprintf("projects:\n- name: main\n  backends:\n  - type: gcp\n    project_id: %s\n"+
		"    creds: {type: service_account, filename: %s}\n    regions: [us-central1]\n    endpoint: %s\n", computetest.DefaultProject, key, s.compute.URL))
	s.startServer()
	return s
}

// applyCloudVolume makes the volume data on a disk of a cloud.
func (h *harness) applyCloudVolume(backend, region, zone, size string) {
	h.t.Helper()
	file := filepath.Join(h.home, "volume.dstack.yml")
	h.writeFile(file, fmt.Sprintf("type: volume\nname: data\nbackend: %s\nregion: %s\navailability_zone: %s\nsize: %s\n", backend, region, zone, size))
	h.runCLI("apply", "-f", file, "-y").expectExit(0)
}
