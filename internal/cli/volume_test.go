package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

const volumeText = "type: volume\nname: data\nbackend: ssh\nhost: gpu-1\nsize: 10GB\n"

func testVolume(change func(*api.Volume)) api.Volume {
	v := api.Volume{
		ID: "1", Name: "data", ProjectName: "main", State: dstack.VolumeActive, Status: dstack.VolumeActive, Host: "gpu-1", Fleet: "lab", User: "ann",
		VolumeID: new("dstack-data-1"), CreatedAt: api.NewTimestamp(time.Now()), Since: time.Now(), UsedBy: []string{}, EnforcedMiB: 10240,
		Configuration: spec.Volume{Name: "data", Backend: "remote", Region: "gpu-1", Size: new(spec.GB(10))},
	}
	if change != nil {
		change(&v)
	}
	return v
}

func TestVolume_ListAndGet(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	f.refusals["list"] = refusal{200, []api.Volume{}}
	u.run("volume").check(t, ExitDone, nil, []string{"no volumes in project main; create one: dstack apply -f volume.dstack.yml"})
	used := testVolume(func(v *api.Volume) {
		v.UsedBy, v.EnforcedMiB, v.Warning = []string{"web"}, 0, "its size is not enforced"
	})
	failed := testVolume(func(v *api.Volume) {
		v.Name, v.State, v.Reason, v.VolumeID = "bad", dstack.VolumeFailed, "there is no folder /x", nil
	})
	f.refusals["list"] = refusal{200, []api.Volume{used, failed}}
	u.run("volume", "list").check(t, ExitDone, []string{"NAME", "data", "gpu-1", "10GB, not enforced", "web", "bad", "there is no folder /x"}, nil)
	u.run("volume", "list", "-v").check(t, ExitDone, []string{"ssh", "dstack-data-1", "its size is not enforced"}, nil)
	var listed []api.Volume
	if got := u.run("volume", "list", "-o", "json"); json.Unmarshal([]byte(got.out), &listed) != nil || len(listed) != 2 || got.err != "" {
		t.Errorf("%+v", got)
	}
	f.refusals["get"] = refusal{200, used}
	u.run("volume", "get", "data").check(t, ExitDone, []string{"gpu-1 of the fleet lab", "active, for", "by ann", "web", "its size is not enforced"}, nil)
	f.refusals["get"] = refusedWith(dstack.NotFound, "there is no volume `dat` in project main", "did you mean data?")
	u.run("volume", "get", "dat").check(t, ExitFailed, nil, []string{"there is no volume", "did you mean data?"})
	u.run("volume", "lst").check(t, ExitInvalid, nil, []string{"unknown command `lst`"})
}

// A volume of a cluster is shown with its claim, its nodes and how pods share it.
func TestVolume_OfCluster(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	claim := testVolume(func(v *api.Volume) {
		v.Host, v.Fleet, v.Place, v.AccessModes, v.VolumeID, v.EnforcedMiB = "kubernetes", "", "k1", []string{"ReadWriteOnce"}, new("data-1f"), 20480
		v.Configuration = spec.Volume{Name: "data", Backend: "kubernetes", Size: new(spec.GB(10))}
	})
	f.refusals["list"] = refusal{200, []api.Volume{claim}}
	u.run("volume", "list", "-v").check(t, ExitDone, []string{"kubernetes, k1", "20GB", "data-1f"}, nil)
	f.refusals["get"] = refusal{200, claim}
	u.run("volume", "get", "data").check(t, ExitDone, []string{"cluster   kubernetes, k1", "claim     data-1f", "access    ReadWriteOnce", "20GB"}, nil)
	f.refusals["get"] = refusedWith(dstack.NotFound, "there is no volume", "")
	f.refusals["apply"] = refusal{200, api.AppliedVolume{Volume: claim, Created: true}}
	u.writeFile("volume.dstack.yml", "type: volume\nname: data\nbackend: kubernetes\nsize: 10GB\nstorage_class_name: fast\nread_only: true\n")
	u.run("apply", "-f", "volume.dstack.yml", "-y").check(t, ExitDone, nil,
		[]string{"the only one of the project", "a new one of 10GB, storage class fast", "ReadWriteOnce", "can only read it", "volume data is active in the cluster kubernetes, k1"})
	u.writeFile("volume.dstack.yml", "type: volume\nname: data\nbackend: kubernetes\nregion: edge\nclaim_name: models\n")
	u.run("apply", "-f", "volume.dstack.yml", "-y").check(t, ExitDone, nil, []string{"edge", "models, which must exist in its namespace"})
}

func TestVolume_Delete(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	used := testVolume(func(v *api.Volume) { v.UsedBy = []string{"web", "api"} })
	external := testVolume(func(v *api.Volume) { v.Name, v.External = "folder", true })
	f.refusals["list"] = refusal{200, []api.Volume{used, external}}
	u.run("volume", "delete", "dta", "-y").check(t, ExitFailed, nil, []string{"there is no volume `dta`", "did you mean `data`?"})
	u.run("volume", "delete", "data", "-y").check(t, ExitFailed, nil, []string{"it is used by web, api", "first: dstack stop web api"})
	u.run("volume", "delete", "folder").check(t, ExitInvalid, nil, []string{"add -y"})
	if f.hasRequest("/volumes/delete") {
		t.Error("a deletion was requested")
	}
	f.refusals["delete"] = refusal{200, nil}
	f.refusals["list"] = refusal{200, []api.Volume{testVolume(nil)}}
	u.writeFile("volume.dstack.yml", volumeText)
	u.run("delete", "-f", "volume.dstack.yml", "-y").check(t, ExitDone, nil, []string{"data is deleted"})
	f.refusals["list"] = refusal{200, []api.Volume{testVolume(func(v *api.Volume) { v.State, v.Reason = dstack.VolumeDeleting, "waits for gpu-1" })}}
	got := u.run("volume", "delete", "data", "-y", "-o", "json")
	got.check(t, ExitDone, nil, []string{"data is being deleted: waits for gpu-1"})
	expectJSON(t, got.out, `[{"name":"data","status":"deleting","reason":"waits for gpu-1"}]`)
}

func TestApply_Volume(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.writeFile("volume.dstack.yml", volumeText)
	f.refusals["get"] = refusedWith(dstack.NotFound, "there is no volume", "")
	f.refusals["apply"] = refusal{200, api.AppliedVolume{Volume: testVolume(func(v *api.Volume) { v.Warning = "may grow" }), Created: true}}
	u.run("apply", "-f", "volume.dstack.yml").check(t, ExitInvalid, nil, []string{"volume data · project main", "gpu-1", "10GB", "add -y"})
	got := u.run("apply", "-f", "volume.dstack.yml", "-y", "-o", "json")
	got.check(t, ExitDone, []string{`"name": "data"`}, []string{"volume data is active on gpu-1", "may grow"})

	f.refusals["get"] = refusal{200, testVolume(nil)}
	f.refusals["apply"] = refusal{200, api.AppliedVolume{Volume: testVolume(nil)}}
	u.run("apply", "-f", "volume.dstack.yml").check(t, ExitDone, nil, []string{"exists already and nothing changed"}) // without a question
	f.refusals["apply"] = refusedWith(dstack.Conflict, "size is 10GB, not 20GB", "use another name")
	u.run("apply", "-f", "volume.dstack.yml", "-y").check(t, ExitFailed, nil, []string{"size is 10GB, not 20GB", "use another name"})
	f.refusals["apply"] = refusal{200, api.AppliedVolume{Volume: testVolume(func(v *api.Volume) { v.State, v.Reason = dstack.VolumeFailed, "no folder" })}}
	u.run("apply", "-f", "volume.dstack.yml", "-y").check(t, ExitFailed, nil, []string{"the volume data has failed: no folder"})
	waiting := testVolume(func(v *api.Volume) { v.State, v.Reason = dstack.VolumeProvisioning, "waits for gpu-1" })
	f.refusals["apply"], f.refusals["get"] = refusal{200, api.AppliedVolume{Volume: waiting, Created: true}}, refusal{200, waiting}
	u.run("apply", "-f", "volume.dstack.yml", "-y", "--timeout", "300ms").check(t, ExitTimeout, nil, []string{"not active after", "waits for gpu-1"})
	u.run("apply", "-f", "volume.dstack.yml", "-y", "-d").check(t, ExitDone, nil, nil)

	u.run("apply", "-f", "volume.dstack.yml", "-y", "--gpu", "24GB").check(t, ExitInvalid, nil, []string{"--gpu: it does not fit a volume"})
	u.run("apply", "-f", "volume.dstack.yml", "-y", "--", "x").check(t, ExitInvalid, nil, []string{"arguments do not fit a volume"})
	u.run("apply", "-f", "volume.dstack.yml", "-y", "-n", "No").check(t, ExitInvalid, nil, []string{"`No`"})
	u.writeFile("cloud.dstack.yml", "type: volume\nname: data\nbackend: runpod\nregion: eu\nsize: 1GB\n")
	u.run("apply", "-f", "cloud.dstack.yml", "-y").check(t, ExitInvalid, nil, []string{"cloud.dstack.yml:3:10", "volumes of the backend runpod"})
	u.in = strings.NewReader(volumeText)
	f.refusals["apply"] = refusal{200, api.AppliedVolume{Volume: testVolume(nil), Created: true}}
	u.run("apply", "-f", "-", "-y").check(t, ExitDone, nil, []string{"volume data is active"})
}

// The volumes of several files come first, because services mount them.
func TestApplyMany_VolumesFirst(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.env["GREETING"] = "hello"
	u.writeFile("all/a.dstack.yml", serviceFile)
	u.writeFile("all/volume.dstack.yml", volumeText)
	f.refusals["get"] = refusedWith(dstack.NotFound, "there is no volume", "")
	f.refusals["apply"] = refusedWith(dstack.Conflict, "no host", "")
	u.run("apply", "-f", "all", "-y").check(t, ExitFailed, nil, []string{"all/volume.dstack.yml", "no host", "no run was submitted"})
	if f.hasRequest("/runs/preview") {
		t.Error("a run was planned")
	}
	u.writeFile("all/a.dstack.yml", volumeText)
	u.run("apply", "-f", "all", "-y").check(t, ExitInvalid, nil, []string{"`data` is also the name in all/a.dstack.yml"})
	u.writeFile("all/a.dstack.yml", strings.Replace(volumeText, "data", "other", 1))
	f.refusals["apply"] = refusal{200, api.AppliedVolume{Volume: testVolume(nil), Created: true}}
	got := u.run("apply", "-f", "all", "-y", "-o", "json")
	var applied []api.Volume
	if got.check(t, ExitDone, nil, nil); json.Unmarshal([]byte(got.out), &applied) != nil || len(applied) != 2 {
		t.Errorf("%s", got.out)
	}
}

// refusedWith is the answer of a server that refuses a request.
func refusedWith(kind dstack.Kind, message, hint string) refusal {
	return refusal{400, api.ErrorBody{Detail: []map[string]any{{"msg": message, "code": "error"}},
		Error: api.ErrorView{Kind: kind, Message: message, Hint: hint}}}
}
