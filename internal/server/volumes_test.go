package server

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/backend"
	"dstack/internal/backend/backendtest"
	"dstack/internal/decide/volume"
	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

const volumeConfiguration = `{"configuration": {"type": "volume", "name": "data", "backend": "local", "region": "local", "size": "10GB"}}`

// stepVolume saves a step of a volume that is due, as the volume pass does.
func (h *testServer) stepVolume(name string, step volume.Step) {
	h.t.Helper()
	leases, err := h.store.Claim(h.t.Context(), store.Volumes, "test/1", "", now(), time.Minute, 10)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range leases {
		v, err := h.store.Volume(h.t.Context(), dstack.VolumeID(l.ID))
		if err == nil && v.Name == name {
			err = h.store.SaveVolumeStep(h.t.Context(), l, v, step, now())
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
	h.broadcast.Notify()
}

func TestVolumes(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	var created api.Volume
	h.mustCall(api.PathVolumes+"/create", volumeConfiguration, &created)
	if created.State != dstack.VolumeSubmitted || created.Host != "box" || created.ProjectName != "main" || created.Configuration.Region != "local" ||
		created.VolumeID != nil || created.External {
		t.Errorf("created %+v", created)
	}
	h.expectError(api.PathVolumes+"/create", volumeConfiguration, 400, dstack.Conflict, `"msg":"Resource exists","code":"resource_exists"`)
	h.stepVolume("data", volume.Step{To: dstack.VolumeActive, Created: &dstack.Volume{ExternalID: "dstack-data-1", Warning: "may grow"}})

	var applied api.AppliedVolume
	h.mustCall(api.PathApplyVolume, strings.Replace(volumeConfiguration, `"region": "local"`, `"host": "box"`, 1), &applied)
	if applied.Created || applied.State != dstack.VolumeActive || applied.ProvisioningData.SizeGB != 10 || *applied.VolumeID != "dstack-data-1" ||
		*applied.StatusMessage != "may grow" {
		t.Errorf("applied again: %+v", applied)
	}
	h.expectError(api.PathApplyVolume, strings.Replace(volumeConfiguration, "10GB", "20GB", 1), 400, dstack.Conflict, "size is 10GB, not 20GB")
	h.expectError(api.PathApplyVolume, strings.Replace(volumeConfiguration, `"size": "10GB"`, `"volume_id": "/srv"`, 1), 400, dstack.Conflict,
		"size is 10GB, not none, volume_id is none, not /srv")

	h.mustSubmit(api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService+"volumes: [data:/d]\n")})
	var listed []api.Volume
	h.mustCall(api.PathVolumes+"/list", "", &listed)
	if len(listed) != 1 || !slices.Equal(listed[0].UsedBy, []string{"web"}) {
		t.Errorf("listed %+v", listed)
	}
	h.expectError(api.PathVolumes+"/delete", `{"names": ["data"]}`, 400, dstack.Conflict, `"msg":"Failed to delete volume data. Volume is in use."`)
	h.expectError(api.PathVolumes+"/delete", `{"names": ["nothing"]}`, 400, dstack.NotFound, "no volume nothing")
	h.expectError(api.PathVolumes+"/get", `{"name": "dat"}`, 400, dstack.NotFound, "did you mean data?")
}

// volumes/delete answers when the volume is gone, so that clients can create it again.
func TestDeleteVolumes_WaitsUntilTheyAreGone(t *testing.T) {
	h := newTestServer(t)
	h.mustCall(api.PathVolumes+"/create", volumeConfiguration, nil)
	done := make(chan apiResponse, 1)
	go func() { done <- h.callAs(h.admin, api.PathVolumes+"/delete", `{"names": ["data"]}`) }()
	for {
		var v api.Volume
		if h.mustCall(api.PathVolumes+"/get", `{"name": "data"}`, &v); v.State == dstack.VolumeDeleting {
			if v.Status != dstack.VolumeActive {
				t.Errorf("published clients do not know the status %s", v.Status)
			}
			break
		}
	}
	h.expectError(api.PathApplyVolume, volumeConfiguration, 400, dstack.Conflict, "is being deleted")
	select {
	case a := <-done:
		t.Fatalf("answered before the volume was gone: %+v", a)
	default:
	}
	h.stepVolume("data", volume.Step{To: dstack.VolumeDeleting, IsGone: true})
	if a := <-done; a.status != 200 || a.text != "null" {
		t.Errorf("%+v", a)
	}
	h.mustCall(api.PathVolumes+"/create", volumeConfiguration, nil)
}

// The clients of 0.22 read volumes of the user's machines as those of Kubernetes.
func TestVolumes_Newest(t *testing.T) {
	h := newTestServer(t)
	h.mustCall(api.PathVolumes+"/create", strings.Replace(volumeConfiguration, `"size": "10GB"`, `"volume_id": "/srv"`, 1), nil)
	h.stepVolume("data", volume.Step{To: dstack.VolumeActive, Created: &dstack.Volume{ExternalID: "/srv"}})
	var listed []map[string]any
	h.callNewest(h.admin, api.ProjectPrefix+"/volumes/list", "", &listed)
	conf, _ := json.Marshal(listed[0]["configuration"])
	want := `{"access_modes":["ReadWriteMany"],"backend":"kubernetes","claim_name":"/srv","name":"data","region":"local","size":null,"type":"volume"}`
	if string(conf) != want || listed[0]["user"] != "admin" || listed[0]["external"] != true || listed[0]["volume_id"] != "/srv" {
		t.Errorf("%s in %v", conf, listed[0])
	}
	if len(h.callAs(h.admin, "/api/volumes/list", `{"limit": 5}`).text) < 10 {
		t.Error("the global list is empty")
	}
}

func TestVolumes_Refused(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	user := h.createUser("ann", dstack.RoleUser)
	h.mustCall(api.PathAddMembers, `{"members": [{"username": "ann", "project_role": "admin"}]}`, nil)
	external := strings.Replace(volumeConfiguration, `"size": "10GB"`, `"volume_id": "/etc"`, 1)
	if a := h.callAs(user, api.PathVolumes+"/create", external); a.status != 403 || !strings.Contains(a.text, "only global admins may register folders") {
		t.Errorf("%+v", a)
	}
	for change, want := range map[string]string{
		`"backend": "runpod", "region": "eu"`:        "volumes of the backend runpod",
		`"backend": "aws", "region": "eu"`:           "this project has no backend of type aws",
		`"backend": "ssh"`:                           "a host of a fleet",
		`"backend": "local", "host": "elsewhere"`:    "there is no host elsewhere",
		`"backend": "local", "size": "x"`:            "not a size",
		`"backend": "remote", "volume_id": "../etc"`: "not the absolute path",
	} {
		conf := `{"configuration": {"type": "volume", "name": "data", ` + change
		if !strings.Contains(change, "size") && !strings.Contains(change, "volume_id") {
			conf += `, "size": 1`
		}
		if a := h.callAs(h.admin, api.PathVolumes+"/create", conf+"}}"); a.status < 400 || !strings.Contains(a.text, want) {
			t.Errorf("%s: %+v", change, a)
		}
	}
	for yaml, want := range map[string]string{
		"volumes: [missing:/d]\n": "there is no volume missing in project main",
		"volumes: [/etc:/d]\n":    "",
	} {
		a := h.callAs(h.admin, api.ProjectPrefix+"/runs/get_plan", api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService+yaml)})
		if (a.status == 200) != (want == "") || !strings.Contains(a.text, want) {
			t.Errorf("%s: %+v", yaml, a)
		}
	}
	folder := api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService+"volumes: [/etc:/d]\n")}
	if a := h.callAs(user, api.ProjectPrefix+"/runs/submit", folder); a.status != 400 || !strings.Contains(a.text, "only global admins may mount folders such as /etc") {
		t.Errorf("%+v", a)
	}
	member := h.createUser("bob", dstack.RoleUser)
	h.mustCall(api.PathAddMembers, `{"members": [{"username": "bob", "project_role": "user"}]}`, nil)
	if a := h.callAs(member, api.ProjectPrefix+"/runs/submit", folder); a.status != 403 || !strings.Contains(a.text, "only admins of the project may mount folders") {
		t.Errorf("%+v", a)
	}
	onHost := strings.Replace(external, "local", "ssh", 1)
	if a := h.callAs(member, api.PathVolumes+"/create", onHost); a.status != 403 || !strings.Contains(a.text, "only admins of the project may register folders") {
		t.Errorf("%+v", a)
	}
}

// Applying a failed volume again may choose another machine, so it needs the same rights as registering its folder.
func TestVolumes_FailedFolderAppliedByMember(t *testing.T) {
	h := newTestServer(t)
	external := strings.Replace(volumeConfiguration, `"size": "10GB"`, `"volume_id": "/etc"`, 1)
	h.mustCall(api.PathVolumes+"/create", external, nil)
	h.stepVolume("data", volume.Step{To: dstack.VolumeFailed, Reason: "its machine is gone"})
	member := h.createUser("bob", dstack.RoleUser)
	h.mustCall(api.PathAddMembers, `{"members": [{"username": "bob", "project_role": "user"}]}`, nil)
	if a := h.callAs(member, api.PathApplyVolume, external); a.status != 403 || !strings.Contains(a.text, "may register folders") {
		t.Errorf("%+v", a)
	}
	var applied api.AppliedVolume
	if h.mustCall(api.PathApplyVolume, external, &applied); applied.State != dstack.VolumeSubmitted {
		t.Errorf("%+v", applied)
	}
}

// A volume of a cluster names the cluster as its region; only global admins may register claims.
func TestVolumes_OfClusters(t *testing.T) {
	clusters := backend.NewSet()
	for _, key := range []string{"kubernetes", "kubernetes-edge"} {
		clusters.Add("main", key, backendtest.NewFake(backendtest.FakeOptions{}))
	}
	h := newTestServer(t, func(o *Options) { o.Backends = clusters })
	with := func(fields string) string {
		return `{"configuration": {"type": "volume", "name": "data", "backend": "kubernetes", ` + fields + `}}`
	}
	h.expectError(api.PathVolumes+"/create", with(`"size": 1`), 400, dstack.Invalid, "several clusters could have the volume: cluster and edge")
	h.expectError(api.PathVolumes+"/create", with(`"size": 1, "region": "edg"`), 400, dstack.NotFound, "did you mean edge?")
	h.expectError(api.PathVolumes+"/create", with(`"size": 1, "access_modes": ["x"]`), 422, dstack.Invalid, "write one of: ReadWriteOnce")
	member := h.createUser("bob", dstack.RoleUser)
	h.mustCall(api.PathAddMembers, `{"members": [{"username": "bob", "project_role": "admin"}]}`, nil)
	existing := with(`"region": "edge", "claim_name": "models", "read_only": true`)
	if a := h.callAs(member, api.PathVolumes+"/create", existing); a.status != 403 || !strings.Contains(a.text, "only global admins may register existing claims") {
		t.Errorf("%+v", a)
	}
	var created api.Volume
	if h.mustCall(api.PathVolumes+"/create", existing, &created); created.Host != "kubernetes-edge" || !created.External || created.Configuration.Region != "edge" {
		t.Errorf("%+v", created)
	}
	h.stepVolume("data", volume.Step{To: dstack.VolumeActive, Created: &dstack.Volume{ExternalID: "models", SizeMiB: 2048,
		Reach: dstack.Reach{AccessModes: []string{"ReadOnlyMany"}, IsLimited: true, Place: "k1"}}})
	var applied api.AppliedVolume
	h.mustCall(api.PathApplyVolume, strings.Replace(existing, `"edge"`, `"kubernetes-edge"`, 1), &applied)
	if applied.Created || applied.Place != "k1" || applied.ProvisioningData.SizeGB != 2 || *applied.VolumeID != "models" {
		t.Errorf("applied again: %+v", applied)
	}
	h.expectError(api.PathApplyVolume, strings.Replace(existing, "models", "other", 1), 400, dstack.Conflict, "claim_name is models, not other")
	h.expectError(api.PathApplyVolume, strings.Replace(existing, `"edge"`, `"cluster"`, 1), 400, dstack.Conflict, "region is kubernetes-edge, not cluster")
	var listed []map[string]any
	h.callNewest(h.admin, api.ProjectPrefix+"/volumes/list", "", &listed)
	conf, _ := json.Marshal(listed[0]["configuration"])
	want := `{"access_modes":["ReadWriteOnce"],"backend":"kubernetes","claim_name":"models","name":"data","read_only":true,"region":"edge","size":null,"type":"volume"}`
	if string(conf) != want || listed[0]["external"] != true {
		t.Errorf("%s in %v", conf, listed[0])
	}
}

func TestSelectVolumes(t *testing.T) {
	found := func() []dstack.Volume {
		return []dstack.Volume{{ID: "c", CreatedAt: testTime(2)}, {ID: "a", CreatedAt: testTime(1)}, {ID: "b", CreatedAt: testTime(1), Status: dstack.VolumeFailed}}
	}
	for want, in := range map[string]api.ListVolumes{
		"cab": {}, "ca": {OnlyActive: true}, "c": {Limit: new(1)}, "bac": {Ascending: true}, "": {Limit: new(0)},
		"ab": {PrevCreatedAt: new(testTime(2)), PrevID: new("c")}, "b": {PrevCreatedAt: new(testTime(1)), PrevID: new("a")},
		"ac": {Ascending: true, PrevCreatedAt: new(testTime(1)), PrevID: new("b")},
	} {
		got := ""
		for _, v := range selectVolumes(found(), in) {
			got += string(v.ID)
		}
		if got != want {
			t.Errorf("%+v: %s, not %s", in, got, want)
		}
	}
}
