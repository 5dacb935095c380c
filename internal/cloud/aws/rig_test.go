package aws

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/dstack"
)

// rig is a provider of an account of the stand-in for EC2.
type rig struct {
	*Provider
	t   *testing.T
	ec2 *ec2test.Server
}

const thisInstallation = "one"

// open starts an account and opens a provider of it, with one region unless change says otherwise.
func open(t *testing.T, o ec2test.Options, change func(s *Settings)) *rig {
	t.Helper()
	server, err := ec2test.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	r := &rig{t: t, ec2: server}
	r.Provider = r.openAs(thisInstallation, change)
	return r
}

func (r *rig) openAs(installation dstack.Installation, change func(s *Settings)) *Provider {
	s := Settings{
		Credentials: Credentials{ec2test.AccessKey, ec2test.SecretKey}, Regions: []string{"us-east-1"}, DefaultVPCs: true, PublicIPs: true, Endpoint: r.ec2.URL,
	}
	if change != nil {
		change(&s)
	}
	p := Open(s, installation)
	r.t.Cleanup(p.Close)
	return p
}

// offer returns an offer of a type of the stand-in.
func offer(name, zone string) dstack.Offer {
	o := dstack.Offer{Region: zone[:len(zone)-1], Zone: zone, Type: name, Hardware: dstack.Hardware{CPUs: 2, Arch: "x86", MemoryMiB: 8 << 10, DiskMiB: 100 << 10}}
	if strings.HasPrefix(name, "g6") || strings.HasPrefix(name, "p5") {
		o.Hardware.GPUs = []dstack.GPU{{Maker: "nvidia", Name: "L4"}}
	}
	return o
}

// launch returns a launch of an offer for an instance.
func launch(id dstack.InstanceID, o dstack.Offer) cloud.Launch {
	return cloud.Launch{
		Instance: id, Token: cloud.NewToken(thisInstallation, id, o), Offer: o, UserData: "#!/bin/sh\necho ready\n",
		Name: "llama-0", Labels: map[string]string{"dstack-run": "llama"},
	}
}

func (r *rig) mustLaunch(id dstack.InstanceID, o dstack.Offer) cloud.Machine {
	r.t.Helper()
	m, err := r.Launch(r.t.Context(), launch(id, o))
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *rig) list() []cloud.Machine {
	r.t.Helper()
	machines, err := r.ListMachines(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return machines
}

// expectError checks the kind of an error and a part of its message, and returns the failure in it.
func expectError(t *testing.T, err error, kind dstack.Kind, part string) dstack.MachineFailure {
	t.Helper()
	if err == nil || dstack.KindOf(err) != kind || !strings.Contains(err.Error(), part) {
		t.Fatalf("the error is %v (%s), want %s with %q", err, dstack.KindOf(err), kind, part)
	}
	failure, ok := errors.AsType[*dstack.MachineFailure](err)
	if !ok {
		return dstack.MachineFailure{}
	}
	return *failure
}

// within returns a context with a time limit.
func (r *rig) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), d)
	r.t.Cleanup(cancel)
	return ctx
}
