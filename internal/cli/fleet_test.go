package cli

import (
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/api"
	"dstack/internal/spec"
)

// fakeFleets answers requests about fleets, and records them.
type fakeFleets struct {
	preview api.FleetPreview
	views   []api.FleetView // of each request, the last one again and again
	applied []string        // the bodies
	drained []api.DrainRequest
	deleted []string
}

func (f *fakeFleets) answer(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/preview"):
		writeAnswer(w, 200, f.preview)
	case strings.HasSuffix(path, "/apply"):
		f.applied = append(f.applied, string(decodeBody[json.RawMessage](r)))
		writeAnswer(w, 200, f.next())
	case strings.HasSuffix(path, "/views"):
		writeAnswer(w, 200, []api.FleetView{f.next()})
	case strings.HasSuffix(path, "/drain"):
		f.drained = append(f.drained, decodeBody[api.DrainRequest](r))
		writeAnswer(w, 200, f.next())
	default:
		f.deleted = append(f.deleted, path+" "+string(decodeBody[json.RawMessage](r)))
		f.views = []api.FleetView{{}}
		writeAnswer(w, 200, nil)
	}
}

func (f *fakeFleets) next() api.FleetView {
	view := f.views[0]
	if len(f.views) > 1 {
		f.views = f.views[1:]
	}
	return view
}

// newTestKey returns a private key, with a passphrase if it is not empty.
func newTestKey(t *testing.T, passphrase string) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

func (u *testUser) writeHome(name, text string) {
	u.t.Helper()
	path := filepath.Join(u.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

const fleetFile = `type: fleet
name: boxes
env:
  - MODE
ssh_config:
  user: ubuntu
  identity_file: key
  hosts:
    - 192.0.2.1
    - 192.0.2.2
`

func hostView(num int, name string, status api.HostStatus) api.HostView {
	h := api.HostView{ID: name, Num: num, Name: name, Address: name + ":22", User: "ubuntu", Status: status, Since: time.Now(), IsChecked: status != api.HostStatusChecking}
	if h.IsChecked {
		h.CheckedAt = new(time.Now())
	}
	if status == api.HostStatusFailed {
		h.Step, h.Message, h.Hint = "docker", "permission denied", "add ubuntu to the group docker"
	}
	if status == api.HostStatusIdle || status == api.HostStatusBusy {
		h.Found = api.HostFound{DockerVersion: "28.2.2", DockerAccess: "sudo stdio", DriverVersion: "570.1", CPUs: 16, MemoryMiB: 64 << 10, DiskMiB: 200 << 10,
			GPUs: []api.HostGPU{{Name: "L4", MemoryMiB: 24 << 10}, {Name: "L4", MemoryMiB: 24 << 10}}}
	}
	if status == api.HostStatusBusy {
		h.Replicas = []string{"web replica 0"}
	}
	return h
}

// newFleetServer returns a server whose fleet has two hosts: one becomes ready, the other has this status.
func newFleetServer(t *testing.T, second api.HostStatus) *fakeServer {
	f := newFakeServer(t)
	added := func(name string) api.HostChange {
		return api.HostChange{Action: api.HostAdded, Name: name, Address: name + ":22", User: "ubuntu", NeedsKey: true}
	}
	f.fleets.preview = api.FleetPreview{Project: "main", User: "admin", Name: "boxes", IsChanged: true, Hosts: []api.HostChange{added("192.0.2.1"), added("192.0.2.2")}}
	for _, status := range []api.HostStatus{api.HostStatusChecking, second} {
		f.fleets.views = append(f.fleets.views, api.FleetView{Name: "boxes", Project: "main",
			Hosts: []api.HostView{hostView(0, "192.0.2.1", api.HostStatusIdle), hostView(1, "192.0.2.2", status)}})
	}
	return f
}

func TestApplyFleet_FollowsChecks(t *testing.T) {
	f := newFleetServer(t, api.HostStatusFailed)
	u := newTestUser(t, f)
	u.env["MODE"] = "fast"
	u.writeFile("fleet.dstack.yml", fleetFile)
	key := newTestKey(t, "")
	u.writeFile("key", key)
	result := u.run("apply", "-f", "fleet.dstack.yml", "-y")
	result.check(t, ExitNoCapacity, nil, []string{
		" fleet boxes · project main · as admin",
		" +  192.0.2.1  ubuntu@192.0.2.1:22  -        added",
		"   192.0.2.1  ready   SSH, Docker 28.2.2 (with sudo), 16 cpu, 64GB, 200GB disk, 2×L4 24GB (driver 570.1)",
		"   192.0.2.2  failed  docker: permission denied\n              try     add ubuntu to the group docker",
		"error: 1 of 2 hosts cannot be used: 192.0.2.2",
	})
	if len(f.fleets.applied) != 1 || !strings.Contains(f.fleets.applied[0], `"MODE":"fast"`) || !strings.Contains(f.fleets.applied[0], "OPENSSH PRIVATE KEY") {
		t.Errorf("%s", f.fleets.applied)
	}
	if strings.Contains(result.out+result.err, "PRIVATE KEY") {
		t.Error("the output contains a key")
	}
}

// What is written for rented machines has no effect, and is not silently ignored.
func TestApplyFleet_RentedFields(t *testing.T) {
	f := newFleetServer(t, api.HostStatusIdle)
	u := newTestUser(t, f)
	u.env["MODE"] = "fast"
	u.writeFile("fleet.dstack.yml", fleetFile+"regions: [eu]\nmax_price: null\n")
	u.writeFile("key", newTestKey(t, ""))
	note := "note: `regions` has no effect with `ssh_config`: it is about rented machines; remove it, or set it in the service"
	u.run("apply", "-f", "fleet.dstack.yml", "-y").check(t, ExitDone, nil, []string{"fleet.dstack.yml:11:1: " + note})
	result := u.run("validate", "fleet.dstack.yml")
	if all := result.out + result.err; !strings.Contains(all, note) || strings.Contains(all, "max_price") {
		t.Error(all)
	}
}

func TestApplyFleet_Ready(t *testing.T) {
	f := newFleetServer(t, api.HostStatusIdle)
	u := newTestUser(t, f)
	u.writeFile("fleet.dstack.yml", fleetFile)
	u.writeFile("key", newTestKey(t, ""))
	u.run("apply", "-f", "fleet.dstack.yml", "-e", "MODE=x", "-y", "-o", "json").check(t, ExitDone, []string{`"status": "idle"`}, []string{" boxes is ready with 2 hosts"})
	u.run("apply", "-f", "fleet.dstack.yml", "-e", "MODE=x", "-y", "-d").check(t, ExitDone, nil, []string{"see what its checks find: dstack fleet get boxes"})
	u.run("apply", "-f", "fleet.dstack.yml", "-e", "MODE=x").check(t, ExitInvalid, nil, []string{"add -y to answer yes"})
}

func TestApplyFleet_Unchanged(t *testing.T) {
	f := newFleetServer(t, api.HostStatusIdle)
	f.fleets.preview.IsChanged, f.fleets.preview.Current = false, &f.fleets.views[1]
	for i := range f.fleets.preview.Hosts {
		f.fleets.preview.Hosts[i].Action, f.fleets.preview.Hosts[i].NeedsKey = api.HostKept, false
	}
	u := newTestUser(t, f)
	u.env["MODE"] = "x"
	u.writeFile("fleet.dstack.yml", fleetFile) // without the key, which the server has
	u.run("apply", "-f", "fleet.dstack.yml").check(t, ExitDone, nil, []string{" boxes exists and nothing changed; check its hosts again with --force",
		"note key: cannot be read: no such file or directory; the server uses the key that it has"})
	if len(f.fleets.applied) != 0 {
		t.Errorf("%s", f.fleets.applied)
	}
	u.run("apply", "-f", "fleet.dstack.yml", "-y", "--force").check(t, ExitDone, nil, []string{"stays"})
	if len(f.fleets.applied) != 1 {
		t.Errorf("%s", f.fleets.applied)
	}
}

func TestApplyFleet_Timeout(t *testing.T) {
	f := newFleetServer(t, api.HostStatusChecking)
	u := newTestUser(t, f)
	u.writeFile("fleet.dstack.yml", fleetFile)
	u.writeFile("key", newTestKey(t, ""))
	u.run("apply", "-f", "fleet.dstack.yml", "-e", "MODE=x", "-y", "--wait", "ready", "--timeout", "1s").
		check(t, ExitTimeout, nil, []string{"error: 1 host is not checked after 1s: 192.0.2.2", "dstack fleet get boxes"})
}

// Each mistake is shown with its place, before anything is sent.
func TestApplyFleet_BadInput(t *testing.T) {
	for name, c := range map[string]struct {
		file, key string
		args      []string
		want      []string
	}{
		"no file":      {fleetFile, "", nil, []string{"fleet.dstack.yml:7:18: key: cannot be read: "}},
		"passphrase":   {fleetFile, newTestKey(t, "secret"), nil, []string{"fleet.dstack.yml:7:18: key: the private key has a passphrase", "apply from a terminal"}},
		"public key":   {fleetFile, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA x", nil, []string{"this is a public key, not the private one"}},
		"no variable":  {strings.Replace(fleetFile, "MODE", "UNSET", 1), "", nil, []string{"fleet.dstack.yml:4:5: environment variable `UNSET` is not set"}},
		"other flags":  {fleetFile, "", []string{"--gpu", "24GB"}, []string{"--gpu: it does not fit a fleet"}},
		"rented":       {"type: fleet\nname: boxes\nnodes: 2\nreservation: r\n", "", nil, []string{"fleet.dstack.yml:4:14: not supported yet: reservation"}},
		"a wrong name": {strings.Replace(fleetFile, "boxes", "My Boxes", 1), "", nil, []string{"`My Boxes` is not a valid name for a fleet"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleetServer(t, api.HostStatusIdle)
			u := newTestUser(t, f)
			u.env["MODE"] = "x"
			u.writeFile("fleet.dstack.yml", c.file)
			if c.key != "" {
				u.writeFile("key", c.key)
			}
			u.run(append([]string{"apply", "-f", "fleet.dstack.yml", "-y"}, c.args...)...).check(t, ExitInvalid, nil, c.want)
			if len(f.fleets.applied) != 0 {
				t.Errorf("applied: %s", f.fleets.applied)
			}
		})
	}
}

func TestApplyFleet_NoIdentity(t *testing.T) {
	f := newFleetServer(t, api.HostStatusIdle)
	u := newTestUser(t, f)
	u.writeFile("fleet.dstack.yml", "type: fleet\nssh_config:\n  user: u\n  hosts: [192.0.2.1]\n")
	u.run("apply", "-f", "fleet.dstack.yml", "-y").check(t, ExitInvalid, nil, []string{"fleet.dstack.yml:4:11: there is no private key for host 192.0.2.1", "ssh-keygen -t ed25519"})
	u.env["SSH_AUTH_SOCK"] = "/run/agent"
	u.run("apply", "-f", "fleet.dstack.yml", "-y").check(t, ExitInvalid, nil, []string{"keys of ssh-agent stay in it"})
	u.writeHome(".ssh/id_ed25519", newTestKey(t, ""))
	u.run("apply", "-f", "fleet.dstack.yml", "-y").check(t, ExitDone, nil, []string{"is ready"})
	if !strings.Contains(f.fleets.applied[0], `"identity_file":"~/.ssh/id_ed25519","ssh_key":{"private":"-----BEGIN`) {
		t.Errorf("%s", f.fleets.applied[0])
	}
}

func TestSSHAliases(t *testing.T) {
	u := newTestUser(t, nil)
	u.env["USER"] = "alice"
	u.writeHome(".ssh/id_ed25519", "x")
	u.writeHome(".ssh/gpu", "x")
	u.writeHome(".ssh/config", `Host gpu1
  HostName 10.0.0.5
  User root
  Port 2222
  IdentityFile ~/.ssh/missing
  IdentityFile ~/.ssh/gpu
  ProxyJump bob@bastion:2200
Host bastion
  HostName 192.0.2.1
Host weird
  ProxyCommand nc %h %p
Host chain
  ProxyJump a,b
`)
	a := newApp(Options{Home: u.home, Dir: u.dir, Env: func(name string) (string, bool) { v, ok := u.env[name]; return v, ok }})
	fill := func(text string) (string, spec.Problems) {
		c, err := spec.ParseConfiguration("f", []byte("type: fleet\nssh_config:\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		f := c.(*spec.Fleet)
		problems := a.readSSHAliases().fillIn(f.SSH)
		out, err := json.Marshal(f.SSH.Hosts)
		if err != nil {
			t.Fatal(err)
		}
		return string(out), problems
	}
	got, problems := fill("  hosts: [gpu1, 192.0.2.9]\n")
	want := `[{"hostname":"10.0.0.5","port":2222,"user":"root","identity_file":"~/.ssh/gpu","ssh_key":null,"name":"gpu1",` +
		`"proxy_jump":{"hostname":"192.0.2.1","port":2200,"user":"bob","identity_file":"~/.ssh/id_ed25519","ssh_key":null}},` +
		`{"hostname":"192.0.2.9","port":null,"user":"alice","identity_file":"~/.ssh/id_ed25519","ssh_key":null}]`
	if got != want || len(problems) > 0 {
		t.Errorf("got  %s\nwant %s\n%v", got, want, problems)
	}
	// What the configuration says comes first.
	if got, _ := fill("  user: u\n  port: 1\n  identity_file: k\n  proxy_jump: {hostname: x, user: y}\n  hosts: [192.0.2.9]\n"); got != `["192.0.2.9"]` {
		t.Errorf("got %s", got)
	}
	if _, problems := fill("  user: u\n  hosts: [weird, chain]\n"); len(problems) != 2 || !strings.Contains(problems[0].Message, "ProxyCommand") || problems[1].Path != "ssh_config.hosts.1" {
		t.Errorf("%v", problems)
	}
}

func TestFleetList(t *testing.T) {
	f := newFakeServer(t)
	f.fleets.views = []api.FleetView{{Name: "boxes", Project: "main", Hosts: []api.HostView{hostView(0, "gpu-box", api.HostStatusBusy), hostView(3, "old\x1b[2J", api.HostStatusFailed)}}}
	u := newTestUser(t, f)
	u.run("fleet").check(t, 0, []string{
		" FLEET  HOST     STATUS  GPU                       RESOURCES                 AGE",
		" boxes  gpu-box  busy    2×L4 24GB (driver 570.1)  16 cpu, 64GB, 200GB disk  0s",
		"docker: permission denied", "try: add ubuntu to the group docker"}, nil)
	u.run("fleet", "get", "boxes").check(t, 0, []string{"web replica 0", "28.2.2", "ubuntu@gpu-box:22"}, nil)
	u.run("fleet", "list", "-o", "json").check(t, 0, []string{`"status": "busy"`, `"gpus": [`}, nil)
}

func TestFleetDrainAndDelete(t *testing.T) {
	f := newFakeServer(t)
	f.fleets.views = []api.FleetView{{Name: "boxes", Hosts: []api.HostView{hostView(0, "gpu-box", api.HostStatusBusy), hostView(3, "other", api.HostStatusIdle)}}}
	u := newTestUser(t, f)
	u.run("fleet", "drain", "boxes").check(t, ExitInvalid, nil, []string{"name hosts of the fleet, or all: --all"})
	u.run("fleet", "drain", "boxes", "gpu-bx").check(t, ExitFailed, nil, []string{"has no host `gpu-bx`", "did you mean `gpu-box`"})
	u.run("fleet", "drain", "boxes", "gpu-box", "3").check(t, 0, nil, []string{" gpu-box is draining; these move to other hosts with room: web replica 0", " other is drained"})
	u.run("fleet", "resume", "boxes", "--all").check(t, 0, nil, []string{" other is used again"})
	if d := f.fleets.drained; len(d) != 2 || len(d[0].InstanceNums) != 2 || !d[0].Drain || d[1].Drain || len(d[1].InstanceNums) != 0 {
		t.Errorf("%+v", d)
	}
	u.run("fleet", "drain", "other").check(t, 0, nil, []string{" other is drained"})
	if d := f.fleets.drained; len(d) != 3 || d[2].Name != "boxes" || !slices.Equal(d[2].InstanceNums, []int{3}) {
		t.Errorf("%+v", d)
	}
	u.run("fleet", "drain", "othr").check(t, ExitFailed, nil, []string{"there is no fleet and no host `othr`", "did you mean `other`"})
	u.run("fleet", "delete", "boxes", "other", "-y").check(t, 0, nil, []string{" other is deleted"})
	if d := f.fleets.deleted; len(d) != 1 || !strings.Contains(d[0], `delete_instances {"name":"boxes","instance_nums":[3]}`) {
		t.Errorf("%q", d)
	}
}

// A host can be named without its fleet, unless several fleets have it.
func TestFindFleetOfHosts(t *testing.T) {
	fleets := []api.FleetView{
		{Name: "boxes", Hosts: []api.HostView{hostView(0, "gpu-box", api.HostStatusBusy), hostView(3, "other", api.HostStatusIdle)}},
		{Name: "more", Hosts: []api.HostView{hostView(0, "other", api.HostStatusIdle)}},
	}
	for _, c := range []struct {
		names             []string
		fleet, hosts, err string
	}{
		{[]string{"gpu-box"}, "boxes", "gpu-box", ""},
		{[]string{"gpu-box", "other"}, "boxes", "gpu-box other", ""},
		{[]string{"more", "other"}, "more", "other", ""},
		{[]string{"more"}, "more", "", ""},
		{[]string{"other"}, "", "", "several fleets have a host `other`"},
		{[]string{"othr"}, "", "", "there is no fleet and no host `othr`"},
	} {
		fleet, hosts, err := findFleetOfHosts(fleets, c.names)
		if fleet.Name != c.fleet || strings.Join(hosts, " ") != c.hosts || (c.err == "") != (err == nil) || err != nil && err.Error() != c.err {
			t.Errorf("%q: fleet %q, hosts %q, error %v", c.names, fleet.Name, hosts, err)
		}
	}
}
