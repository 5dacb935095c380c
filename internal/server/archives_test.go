package server

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// uploadArchive uploads an archive with a user's token.
func (h *testServer) uploadArchive(token, name, content string) apiResponse {
	h.t.Helper()
	body, contentType := multipartBody(h.t, name, content)
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+api.PathUploadArchive, body)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Authorization", "Bearer "+token)
	return h.send(r)
}

// mustUploadArchive uploads an archive and returns its ID.
func (h *testServer) mustUploadArchive(token, content string) string {
	h.t.Helper()
	a := h.uploadArchive(token, hexSHA256(content), content)
	var stored api.FileArchive
	if err := json.Unmarshal([]byte(a.text), &stored); err != nil || stored.ID == "" || stored.Hash != hexSHA256(content) {
		h.t.Fatalf("%d %s", a.status, a.text)
	}
	return stored.ID
}

// withFiles returns the body of a call with a run of the named files; archives is JSON.
func (h *testServer) withFiles(name, files, archives string, revision ...int) string {
	h.t.Helper()
	rs := h.newRunSpec(name, plainService)
	raw, err := json.Marshal(rs)
	if err != nil {
		h.t.Fatal(err)
	}
	body := strings.TrimSuffix(strings.Replace(string(raw), `"configuration":{`, `"configuration":{"files":`+files+`,`, 1), "}")
	body = `{"run_spec":` + body + `,"file_archives":` + archives + `}`
	if len(revision) > 0 {
		body += fmt.Sprintf(`,"revision":%d`, revision[0])
	}
	return body + "}"
}

func TestUploadArchive(t *testing.T) {
	h := newTestServer(t, func(o *Options) { o.UploadLimit = 1 << 20 })
	ann := h.createUser("ann", dstack.RoleUser)
	file, outside := packFile(t, "app.py", "code", ""), packFile(t, "../../out", "x", "")
	link, large := packFile(t, "conf", "", "/etc"), strings.Repeat("x", 2<<20)
	for _, c := range []struct {
		name, file, content string
		status              int
		part                string
	}{
		{"content and name differ", hexSHA256("other"), file, 400, "does not match its name"},
		{"a name that is not a hash", "../../etc/passwd", file, 400, "64 hexadecimal digits"},
		{"too large", hexSHA256(large), large, 400, "exceeds the limit of 1MB"},
		{"a path out of the folder", hexSHA256(outside), outside, 400, "leads out of the folder"},
		{"a link", hexSHA256(link), link, 400, "is neither a file nor a folder"},
		{"no archive", hexSHA256("code"), "code", 400, "not a complete tar archive"},
		{"empty", hexSHA256(""), "", 400, "it is empty"},
		{"valid", hexSHA256(file), file, 200, hexSHA256(file)},
	} {
		if a := h.uploadArchive(ann, c.file, c.content); a.status != c.status || !strings.Contains(a.text, c.part) {
			t.Errorf("%s: %d %s", c.name, a.status, a.text)
		}
	}
	h.expectNoSpoolFiles()
	id := h.mustUploadArchive(ann, file)
	if again := h.mustUploadArchive(ann, file); again != id {
		t.Errorf("the same file has the IDs %s and %s", id, again)
	}
	if other := h.mustUploadArchive(h.admin, file); other == id {
		t.Error("two users have one archive")
	}
	if a := h.callAs(ann, api.PathArchiveByHash, api.GetArchiveByHash{Hash: hexSHA256(file)}); a.status != 200 || !strings.Contains(a.text, id) {
		t.Errorf("%d %s", a.status, a.text)
	}
	for _, unknown := range []string{hexSHA256("unknown"), "", "' OR 1=1 --"} {
		h.expectError(api.PathArchiveByHash, api.GetArchiveByHash{Hash: unknown}, 400, dstack.NotFound, "not uploaded")
	}
	if a := h.uploadArchive("nobody", hexSHA256(file), file); a.status != 403 {
		t.Errorf("without a token: %d %s", a.status, a.text)
	}
}

// A run gets only files that its submitter has uploaded: neither those of another member,
// nor of an admin, whatever names them.
func TestApply_FilesOfOtherUsers(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	ann := h.createUser("ann", dstack.RoleUser)
	h.mustCall(api.PathAddMembers, api.SetMembers{Members: []api.SetMember{{Username: "ann", ProjectRole: dstack.RoleUser}}}, nil)
	secret := packFile(t, "secret", "of the admin", "")
	theirs, hash := h.mustUploadArchive(h.admin, secret), hexSHA256(secret)
	own := h.mustUploadArchive(ann, packFile(t, "app.py", "x", ""))
	for name, c := range map[string]struct{ files, archives, part string }{
		"by its ID":           {`["secret"]`, `[{"id":"` + theirs + `","path":"secret"}]`, "you have not uploaded the file"},
		"by its ID and hash":  {`["secret"]`, `[{"id":"` + theirs + `","hash":"` + hash + `","path":"secret"}]`, "you have not uploaded the file"},
		"by its hash":         {`["secret"]`, `[{"hash":"` + hash + `","path":"secret"}]`, "you have not uploaded the file"},
		"with a hash of it":   {`["secret"]`, `[{"id":"` + own + `","hash":"` + hash + `","path":"secret"}]`, "you have not uploaded the file"},
		"an unknown UUID":     {`["secret"]`, `[{"id":"00000000-0000-4000-8000-000000000000","path":"secret"}]`, "you have not uploaded the file"},
		"an unknown ID":       {`["secret"]`, `[{"id":"' OR 1=1 --","path":"secret"}]`, "you have not uploaded the file"},
		"without both":        {`["secret"]`, `[{"path":"secret"}]`, "you have not uploaded the file"},
		"another path":        {`["app.py"]`, `[{"id":"` + own + `","path":"/etc/cron.d/app"}]`, "file_archives.0 has the path"},
		"without an archive":  {`["app.py"]`, `[]`, "names 1 files, and the run has 0 archives"},
		"without the mapping": {`[]`, `[{"id":"` + own + `","path":"/etc/cron.d/app"}]`, "names 0 files, and the run has 1 archives"},
	} {
		for _, path := range []string{api.PathApply, api.ProjectPrefix + "/runs/submit"} {
			body := h.withFiles("web", c.files, c.archives)
			if path == api.PathApply {
				body = h.withFiles("web", c.files, c.archives, 0)
			}
			if a := h.callAs(ann, path, body); a.status != 400 || a.errorKind() != dstack.Invalid || !strings.Contains(a.text, c.part) {
				t.Errorf("%s: %s answered %d %s", name, path, a.status, a.text)
			}
		}
	}
	if a := h.callAs(ann, api.PathApply, h.withFiles("web", `["app.py"]`, `[{"id":"`+own+`","path":"app.py"}]`, 0)); a.status != 200 {
		t.Errorf("%d %s", a.status, a.text)
	}
}

// A preview does not need the files yet, and a change of a file is a rolling change.
func TestApply_Files(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	first := packFile(t, "conf/app.yml", "one", "")
	archives := func(content string) string { return `[{"hash":"` + hexSHA256(content) + `","path":"/etc/app"}]` }
	const files = `["conf:/etc/app"]`
	var preview api.Preview
	h.mustCall(api.PathPreview, h.withFiles("web", files, archives(first)), &preview)
	if len(preview.Placements) == 0 {
		t.Errorf("%+v", preview)
	}
	h.expectError(api.PathApply, h.withFiles("web", files, archives(first), 0), 400, dstack.Invalid, "you have not uploaded the file")
	h.mustUploadArchive(h.admin, first)
	h.mustCall(api.PathApply, h.withFiles("web", files, archives(first), 0), nil)
	h.mustCall(api.PathPreview, h.withFiles("web", files, archives(first)), &preview)
	if len(preview.Changes) > 0 {
		t.Errorf("the same files are a change: %+v", preview.Changes)
	}

	var folder strings.Builder
	w := tar.NewWriter(&folder)
	for _, header := range []tar.Header{{Name: "conf", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "conf/out", Typeflag: tar.TypeSymlink, Linkname: "../.."}} {
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	second := folder.String()
	h.mustUploadArchive(h.admin, second)
	h.mustCall(api.PathPreview, h.withFiles("web", files, archives(second)), &preview)
	if len(preview.Changes) != 1 || preview.Changes[0].Path != "files.0" || preview.Strategy != api.StrategyRolling {
		t.Errorf("%+v", preview.Changes)
	}
	h.mustCall(api.PathApply, h.withFiles("web", files, archives(second), 1), nil)
	var events []api.EventView
	h.mustCall(api.PathEvents, api.EventsRequest{RunName: "web"}, &events)
	named := ""
	for _, e := range events {
		if e.Kind == dstack.EventUpload {
			named += e.Message
		}
	}
	if named != "links out of the uploaded folder are left out: /etc/app/out" {
		t.Errorf("%q", named)
	}

	offer := testOffer()
	offer.Engine = dstack.EngineCapabilities{Name: "process", SharesPorts: true}
	h.backend.offers = []dstack.Offer{offer}
	h.mustCall(api.PathPreview, h.withFiles("other", files, archives(second)), &preview)
	if len(preview.Placements) > 0 || len(preview.Rejections) != 1 || !strings.Contains(preview.Rejections[0].Reason, "/etc/app is outside") ||
		!strings.Contains(preview.Advice, "a path inside of the working directory") {
		t.Errorf("%+v, %s", preview.Rejections, preview.Advice)
	}
}

// The dialect of later clients names archives by their IDs only, and gets them back with the plan that it submits.
func TestNewestDialect_FileArchives(t *testing.T) {
	h := newTestServer(t)
	ann := h.createUser("ann", dstack.RoleUser)
	h.mustCall(api.PathAddMembers, api.SetMembers{Members: []api.SetMember{{Username: "ann", ProjectRole: dstack.RoleUser}}}, nil)
	call := func(token, path, body string) apiResponse {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/api/project/main/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set(wire.VersionHeader, "0.22.5")
		return h.send(r)
	}
	spec := func(id, more string) string {
		return `{"run_name":"web","repo_id":null,"repo_data":null,"repo_code_hash":null,"repo_dir":null,"file_archives":[{"id":"` + id + `","path":"/etc/app"}],
			"configuration_path":"a.dstack.yml","configuration":{"type":"service","name":"web","port":8000,"commands":["a"],"repos":[],
			"files":[{"local_path":"/home/ann/conf","path":"/etc/app"}]` + more + `},"profile":null,"ssh_key_pub":null}`
	}
	mine, theirs := h.mustUploadArchive(ann, packFile(t, "conf/a", "x", "")), h.mustUploadArchive(h.admin, packFile(t, "conf/a", "secret", ""))
	for path, body := range map[string]string{"runs/get_plan": `{"run_spec":` + spec(theirs, "") + `}`,
		"runs/apply": `{"plan":{"run_spec":` + spec(theirs, "") + `,"current_resource":null}}`} {
		if a := call(ann, path, body); a.status != 400 || !strings.Contains(a.text, "you have not uploaded the file with the path") {
			t.Errorf("%s with an archive of another user: %d %s", path, a.status, a.text)
		}
	}
	plan := call(ann, "runs/get_plan", `{"run_spec":`+spec(mine, "")+`}`)
	if plan.status != 200 || !strings.Contains(plan.text, `"file_archives":[{"id":"`+mine+`","path":"/etc/app"}]`) ||
		!strings.Contains(plan.text, `"files":[{"local_path":"/home/ann/conf","path":"/etc/app"}]`) {
		t.Fatalf("%d %s", plan.status, plan.text)
	}
	var planned struct {
		RunSpec json.RawMessage `json:"run_spec"`
	}
	if err := json.Unmarshal([]byte(plan.text), &planned); err != nil {
		t.Fatal(err)
	}
	if a := call(ann, "runs/apply", `{"plan":{"run_spec":`+string(planned.RunSpec)+`,"current_resource":null}}`); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.text)
	}
	withDir := strings.Replace(spec(mine, ""), `"repo_dir":null`, `"repo_dir":"/elsewhere"`, 1)
	if a := call(ann, "runs/get_plan", `{"run_spec":`+withDir+`}`); a.status != 400 || !strings.Contains(a.text, "repo_dir") {
		t.Errorf("%d %s", a.status, a.text)
	}
	if a := h.callAs(h.admin, api.ProjectPrefix+"/runs/get", api.RunName{RunName: "web"}); a.status != 200 || strings.Contains(a.text, "file_archives") {
		t.Errorf("0.18.10 does not know file_archives: %d %s", a.status, a.text)
	}
}
