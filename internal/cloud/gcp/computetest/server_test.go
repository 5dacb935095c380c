package computetest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dstack/internal/cloud/gcp/computetest"
)

const goodMachine = `{"name": "a", "machineType": "zones/us-central1-a/machineTypes/e2-standard-2", "labels": {"team": "search"},
	"disks": [{"boot": true, "autoDelete": true, "initializeParams": {"diskSizeGb": "20", "diskType": "zones/us-central1-a/diskTypes/pd-balanced",
		"sourceImage": "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"}}],
	"networkInterfaces": [{"subnetwork": "projects/test-project/regions/us-central1/subnetworks/default"}],
	"scheduling": {"provisioningModel": "STANDARD"}, "metadata": {"items": [{"key": "user-data", "value": "#!/bin/sh"}]}}`

const zonePath = "/compute/v1/projects/test-project/zones/us-central1-a/"

// send sends a request with a token of the default account.
func send(t *testing.T, s *computetest.Server, method, path, body string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.AddToken(computetest.DefaultAccount))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

func start(t *testing.T, o computetest.Options) *computetest.Server {
	t.Helper()
	s, err := computetest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestServer_Document: requests that the API's document does not allow are refused, and those that only the API itself
// refuses, too.
func TestServer_Document(t *testing.T) {
	s := start(t, computetest.Options{Document: computetest.NeedDocument(t)})
	change := func(old, changed string) string {
		if !strings.Contains(goodMachine, old) {
			t.Fatalf("the machine has no %s", old)
		}
		return strings.Replace(goodMachine, old, changed, 1)
	}
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		message                  string
	}{
		{"a field that does not exist", "POST", zonePath + "instances", change(`"labels"`, `"label"`), 400, "Unknown name"},
		{"a number of 64 bits as a number", "POST", zonePath + "instances", change(`"20"`, `20`), 400, "wrong type"},
		{"a word for a number", "POST", zonePath + "instances", change(`"20"`, `"many"`), 400, "TYPE_INT64"},
		{"a value that is not listed", "POST", zonePath + "instances", change(`"STANDARD"`, `"CHEAP"`), 400, "Must be one of"},
		{"a name that a pattern without anchors finds", "POST", zonePath + "instances", change(`"name": "a"`, `"name": "a_B!"`), 400, "regex"},
		{"a field that the API sets", "POST", zonePath + "instances", change(`"name": "a"`, `"name": "a", "status": "RUNNING"`), 400, "set by the API only"},
		{"a parameter that does not exist", "POST", zonePath + "instances?request=1", goodMachine, 400, "Unknown name"},
		{"an ID that is none", "POST", zonePath + "instances?requestId=7", goodMachine, 400, "valid UUID"},
		{"the ID of zeros", "POST", zonePath + "instances?requestId=00000000-0000-0000-0000-000000000000", goodMachine, 400, "valid UUID"},
		{"no type", "POST", zonePath + "instances", change(`"machineType": "zones/us-central1-a/machineTypes/e2-standard-2", `, ""), 400, "resource.machineType"},
		{"no disk", "POST", zonePath + "instances", change(`"disks"`, `"params": {}, "minCpuPlatform": "x", "resourcePolicies"`), 400, ""},
		{"a disk that stays", "POST", zonePath + "instances", change(`"autoDelete": true`, `"autoDelete": false`), 400, "would stay"},
		{"a type of another zone", "POST", zonePath + "instances", change(`e2-standard-2`, `a2-highgpu-1g`), 400, "does not exist"},
		{"an image of another architecture", "POST", zonePath + "instances", change(`amd64`, `arm64`), 400, "architecture"},
		{"labels with capitals", "POST", zonePath + "instances", change(`"search"`, `"Search"`), 400, "format constraints"},
		{"a parameter that is missing", "POST", zonePath + "instances/a/detachDisk", "", 400, "Required parameter: deviceName"},
		{"a page that is too large", "GET", "/compute/v1/projects/test-project/aggregated/instances?maxResults=501", "", 400, "range"},
		{"a filter with two dialects", "GET", "/compute/v1/projects/test-project/aggregated/instances?filter=name%3Aa+AND+zone+eq+b", "", 400, "Invalid list filter"},
		{"a path that does not exist", "GET", zonePath + "instance", "", 404, ""},
		{"a good machine", "POST", zonePath + "instances?requestId=5f0c7a52-93b7-4d2f-9a55-0f3a2a5f6c10", goodMachine, 200, "operation"},
		{"the same request", "POST", zonePath + "instances?requestId=5f0c7a52-93b7-4d2f-9a55-0f3a2a5f6c10", goodMachine, 200, "operation"},
		{"the same machine in another request", "POST", zonePath + "instances", goodMachine, 409, "already exists"},
	} {
		status, answer := send(t, s, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(answer, c.message) {
			t.Errorf("%s: %d %s, want %d and %q", c.name, status, answer, c.status, c.message)
		}
	}
	if got := s.Instances(); len(got) != 1 {
		t.Errorf("machines %+v", got)
	}
}

// TestServer_Fields: a partial response has what was asked for, and no more.
func TestServer_Fields(t *testing.T) {
	s := start(t, computetest.Options{})
	send(t, s, "POST", zonePath+"instances", goodMachine)
	for fields, want := range map[string]string{
		"name,status":                             `{"name":"a","status":"RUNNING"}`,
		"scheduling(provisioningModel)":           `{"scheduling":{"provisioningModel":"STANDARD"}}`,
		"name,disks(boot),labels":                 `{"disks":[{"boot":true}],"labels":{"team":"search"},"name":"a"}`,
		"metadata/items/key":                      `{"metadata":{"items":[{"key":"user-data"}]}}`,
		"metadata(items(key)),disks/boot,status":  `{"disks":[{"boot":true}],"metadata":{"items":[{"key":"user-data"}]},"status":"RUNNING"}`,
		"networkInterfaces(accessConfigs(natIP))": `{"networkInterfaces":[{}]}`,
	} {
		_, answer := send(t, s, "GET", zonePath+"instances/a?fields="+fields, "")
		if got := strings.TrimSpace(answer); got != want {
			t.Errorf("%s: %s, want %s", fields, got, want)
		}
	}
	_, answer := send(t, s, "GET", "/compute/v1/projects/test-project/aggregated/instances?fields=items/*/warning,items/*/instances(name),nextPageToken", "")
	var page struct {
		Items map[string]struct {
			Instances []map[string]string
			Warning   *struct{ Code string }
		}
	}
	if err := json.Unmarshal([]byte(answer), &page); err != nil {
		t.Fatal(err)
	}
	if i, w := page.Items["zones/us-central1-a"].Instances, page.Items["zones/us-east1-b"].Warning; len(i) != 1 || len(i[0]) != 1 || i[0]["name"] != "a" || w == nil || w.Code != "NO_RESULTS_ON_PAGE" {
		t.Errorf("%s", answer)
	}
}

// TestServer_Hooks: machines are played by hooks, and the metadata service announces that they are taken back.
func TestServer_Hooks(t *testing.T) {
	ended := make(chan string, 1)
	s := start(t, computetest.Options{
		OnRun:       func(i computetest.Instance) (string, error) { return "127.0.0.9", nil },
		OnTerminate: func(i computetest.Instance) { ended <- i.Name },
	})
	send(t, s, "POST", zonePath+"instances", strings.Replace(goodMachine, `"STANDARD"`, `"SPOT", "instanceTerminationAction": "DELETE", "automaticRestart": false, "onHostMaintenance": "TERMINATE"`, 1))
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if i := s.Instances()[0]; i.PrivateIP != "127.0.0.9" || i.Status != "RUNNING" || !i.Spot {
		t.Errorf("%+v", i)
	}
	ask := func(path string) string {
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://metadata/computeMetadata/v1/"+path, nil)
		request.Header.Set("Metadata-Flavor", "Google")
		answer := httptest.NewRecorder()
		s.Metadata("a").ServeHTTP(answer, request)
		return answer.Body.String()
	}
	if got := ask("instance/preempted"); got != "FALSE" {
		t.Errorf("preempted: %s", got)
	}
	changed := make(chan string, 1)
	go func() { changed <- ask("instance/preempted?wait_for_change=true&last_etag=0") }()
	s.Warn("a")
	if got := <-changed; got != "TRUE" {
		t.Errorf("preempted: %s", got)
	}
	if got := ask("instance/attributes/user-data"); got != "#!/bin/sh" {
		t.Errorf("user data %q", got)
	}
	s.Interrupt("a")
	if got := <-ended; got != "a" {
		t.Errorf("%s ended", got)
	}
	if err := s.Settle(t.Context()); err != nil || len(s.Instances())+len(s.Disks()) > 0 {
		t.Errorf("%v, machines %+v, disks %+v", err, s.Instances(), s.Disks())
	}
}
