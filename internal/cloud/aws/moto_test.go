package aws

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// needMoto returns the program of moto, a stand-in for AWS that others made, or skips the test where it is missing.
func needMoto(t *testing.T) string {
	t.Helper()
	program := os.Getenv("DSTACK_TEST_MOTO")
	if program == "" {
		reason := os.Getenv("DSTACK_TEST_WITHOUT_MOTO")
		if reason == "" {
			reason = "run the tests with `make test`, which brings it"
		}
		t.Skip("needs moto: " + reason)
	}
	return program
}

// startMoto starts moto.
func startMoto(t *testing.T) (endpoint string) {
	t.Helper()
	program := needMoto(t)
	images := filepath.Join(t.TempDir(), "images.json") // moto's own ones take seconds to load in each region
	image := `[{"ami_id": "ami-0123456789abcdef0", "name": "base-20261101", "description": "", "owner_id": "123456789012", "public": true,
		"virtualization_type": "hvm", "architecture": "x86_64", "state": "available", "platform": null, "image_type": "machine", "hypervisor": "xen",
		"root_device_name": "/dev/xvda", "root_device_type": "ebs", "sriov": "simple", "creation_date": "2026-11-01T08:00:00.000Z"}]`
	if err := os.WriteFile(images, []byte(image), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	host, port, _ := net.SplitHostPort(address)
	command := exec.Command(program, "-H", host, "-p", port) //nolint:gosec // a test
	command.Env = append(os.Environ(), "MOTO_AMIS_PATH="+images)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	for until := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		answer, err := http.Get("http://" + address + "/moto-api/")
		if err == nil {
			_ = answer.Body.Close()
			return "http://" + address
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// TestMoto tests what ec2test may have misread: the format of requests and answers, filters, tags, subnets and pages. Moto
// checks neither tokens nor credentials, images or zones.
func TestMoto(t *testing.T) {
	t.Parallel()
	settings := Settings{
		Credentials: Credentials{"AKIA0123456789ABCDEF", "secret"}, Regions: []string{"us-east-1"}, DefaultVPCs: true, PublicIPs: true,
		Endpoint: startMoto(t), Images: Images{CPU: &Image{Name: "base-*", Owner: "123456789012"}}, Tags: map[string]string{"team": "search & rescue"},
	}
	open := func(installation dstack.Installation) *Provider {
		p := Open(settings, installation)
		t.Cleanup(p.Close)
		regions, err := p.listEnabled(t.Context())
		if err != nil || len(regions) < 10 {
			t.Fatalf("the regions are %v, %v", regions, err)
		}
		for _, region := range regions { // moto makes a region at its first use, which takes long
			p.quiet.set(region, time.Now().Add(time.Hour))
			p.quietDisks.set(region, time.Now().Add(time.Hour))
		}
		return p
	}
	m := motoAccount{t, open("one"), open("two")}
	if err := m.one.CheckAccess(t.Context()); err != nil {
		t.Fatal(err)
	}
	machines := m.launch()
	m.expectListing(machines)
	m.attachDisk(machines[0])
	m.end(machines)
}

// motoAccount is an account with two installations.
type motoAccount struct {
	t        *testing.T
	one, two *Provider
}

func (m motoAccount) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m motoAccount) launch() []cloud.Machine {
	var machines []cloud.Machine
	for _, id := range []dstack.InstanceID{"i1", "i2", "i3"} {
		l := launch(id, offer("m6i.large", "us-east-1b"))
		l.Offer.Spot = id == "i3"
		made, err := m.one.Launch(m.t.Context(), l)
		m.check(err)
		if made.Instance != id || made.Zone != "us-east-1b" || made.Spot != l.Offer.Spot || made.State != cloud.MachinePending {
			m.t.Errorf("the machine is %+v", made)
		}
		machines = append(machines, made)
	}
	return machines
}

func (m motoAccount) expectListing(machines []cloud.Machine) {
	m.t.Helper()
	found, err := m.one.ListMachines(m.t.Context())
	m.check(err)
	for _, want := range machines {
		i := slices.IndexFunc(found, func(m cloud.Machine) bool { return m.Ref == want.Ref })
		if i < 0 || found[i].Instance != want.Instance || found[i].State != cloud.MachineRunning || found[i].Address == "" ||
			found[i].Private == found[i].Address || found[i].Type != "m6i.large" || found[i].Spot != want.Spot || found[i].LaunchedAt.IsZero() {
			m.t.Errorf("the listing is %+v", found)
		}
	}
	none, err := m.two.ListMachines(m.t.Context())
	if err != nil || len(none) != 0 || len(found) != len(machines) {
		m.t.Errorf("the other installation sees %+v, %v", none, err)
	}
}

func (m motoAccount) attachDisk(machine cloud.Machine) {
	ctx := m.t.Context()
	d, err := m.one.CreateDisk(ctx, cloud.Disk{Volume: "v1", Region: "us-east-1", Zone: "us-east-1b", SizeMiB: 20 << 10})
	m.check(err)
	again, err := m.one.CreateDisk(ctx, cloud.Disk{Volume: "v1", Region: "us-east-1", Zone: "us-east-1b", SizeMiB: 20 << 10})
	if err != nil || again.Ref != d.Ref { // by its tag: moto forgets tokens
		m.t.Errorf("the repeated request made %s, %v", again.Ref, err)
	}
	m.check(m.one.AttachDisk(ctx, d, machine))
	m.check(m.one.AttachDisk(ctx, d, machine))
	found, err := m.one.ListDisks(ctx, nil)
	if err != nil || len(found) != 1 || found[0].State != cloud.DiskInUse || found[0].Attached[0].Ref != machine.Ref || found[0].SizeMiB != 20<<10 {
		m.t.Errorf("the disks are %+v, %v", found, err)
	}
	if other, err := m.two.ListDisks(ctx, nil); err != nil || len(other) != 0 {
		m.t.Errorf("the other installation sees %+v, %v", other, err)
	}
	external := cloud.Disk{Ref: d.Ref, IsExternal: true, Region: "us-east-1"}
	if _, err := m.two.CreateDisk(ctx, external); dstack.KindOf(err) != dstack.Conflict {
		m.t.Errorf("a disk that dstack made is registered: %v", err)
	}
	if listed, err := m.two.ListDisks(ctx, []cloud.Disk{external}); err != nil || len(listed) != 1 || !listed[0].IsExternal {
		m.t.Errorf("the external disks are %+v, %v", listed, err)
	}
	m.check(m.one.DetachDisk(ctx, d, machine))
	m.check(m.one.DetachDisk(ctx, d, machine))
	m.check(m.one.DeleteDisk(ctx, d))
	m.check(m.one.DeleteDisk(ctx, d))
}

func (m motoAccount) end(machines []cloud.Machine) {
	ctx := m.t.Context()
	gone := cloud.Machine{Ref: "i-0123456789abcdef0", Region: "us-east-1"}
	m.check(m.one.Terminate(ctx, append([]cloud.Machine{gone}, machines...)))
	found, err := m.one.ListMachines(ctx)
	m.check(err)
	for _, machine := range found {
		if machine.State != cloud.MachineEnded || machine.Failure != nil {
			m.t.Errorf("the machine is %+v", machine)
		}
	}
	groups, err := m.one.listSecurityGroups(ctx, "us-east-1") // moto has no placement groups
	if err != nil || len(groups) != 1 {
		m.t.Fatalf("the security groups are %+v, %v", groups, err)
	}
	left := cloud.Leftover{Kind: kindSecurityGroup, Ref: sdk.ToString(groups[0].GroupId), Region: "us-east-1"}
	m.check(m.one.DeleteLeftover(ctx, left))
	m.check(m.one.DeleteLeftover(ctx, left))
	zones, err := m.one.ListZones(ctx, "us-east-1")
	if err != nil || !slices.Equal(zones["g6.xlarge"], []string{"us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d", "us-east-1f"}) {
		m.t.Errorf("the zones of g6.xlarge are %v, %v", zones["g6.xlarge"], err)
	}
}
