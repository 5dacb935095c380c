package aws

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"dstack/internal/cloud"
	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/dstack"
)

// openAt opens a provider of an endpoint that answers as a test wants.
func openAt(t *testing.T, answer http.HandlerFunc) *Provider {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	p := Open(Settings{Credentials: Credentials{ec2test.AccessKey, ec2test.SecretKey}, Regions: []string{"us-east-1"}, DefaultVPCs: true, Endpoint: server.URL}, thisInstallation)
	t.Cleanup(p.Close)
	return p
}

func writeXML(w http.ResponseWriter, action, content string) {
	fmt.Fprintf(w, `<%[1]sResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">%[2]s</%[1]sResponse>`, action, content)
}

// An endpoint that does not know filters lists everything of the account. Nothing of that is taken for dstack's own.
func TestListings_DoNotTrustFilters(t *testing.T) {
	foreign := `<tagSet><item><key>dstack-installation</key><value>another</value></item><item><key>dstack-volume</key><value>v1</value></item></tagSet>`
	none := `<tagSet/>`
	p := openAt(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		action, content := r.Form.Get("Action"), ""
		for i, tags := range []string{foreign, none} {
			switch action {
			case "DescribeInstances":
				content += fmt.Sprintf(`<item><instancesSet><item><instanceId>i-0%d</instanceId><instanceState><name>running</name></instanceState>%s</item></instancesSet></item>`, i, tags)
			case "DescribeVolumes":
				content += fmt.Sprintf(`<item><volumeId>vol-0%d</volumeId><status>available</status>%s</item>`, i, tags)
			case "DescribeSecurityGroups":
				content += fmt.Sprintf(`<item><groupId>sg-0%d</groupId><groupName>dstack-x</groupName>%s</item>`, i, tags)
			case "DescribePlacementGroups":
				content += fmt.Sprintf(`<item><groupName>group-%d</groupName><state>available</state>%s</item>`, i, tags)
			}
		}
		if action == "DescribeRegions" {
			writeXML(w, action, `<regionInfo><item><regionName>us-east-1</regionName></item></regionInfo>`)
			return
		}
		set := map[string]string{"DescribeInstances": "reservationSet", "DescribeVolumes": "volumeSet", "DescribeSecurityGroups": "securityGroupInfo", "DescribePlacementGroups": "placementGroupSet"}[action]
		if set == "" {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		writeXML(w, action, "<"+set+">"+content+"</"+set+">")
	})
	if machines, err := p.ListMachines(t.Context()); err != nil || len(machines) > 0 {
		t.Errorf("machines %+v, %v", machines, err)
	}
	if disks, err := p.ListDisks(t.Context(), nil); err != nil || len(disks) > 0 {
		t.Errorf("disks %+v, %v", disks, err)
	}
	if left, err := p.ListLeftovers(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("leftovers %+v, %v", left, err)
	}
	if d, err := p.CreateDisk(t.Context(), cloud.Disk{Volume: "v1", Region: "us-east-1", Zone: "us-east-1a", SizeMiB: 1 << 10}); err == nil {
		t.Errorf("the disk of another installation is %+v", d)
	}
}

// What a cloud says about a machine is stored and shown: it has no end otherwise.
func TestListMachines_ShortensReasons(t *testing.T) {
	p := openAt(t, func(w http.ResponseWriter, r *http.Request) {
		writeXML(w, "DescribeInstances", `<reservationSet><item><instancesSet><item><instanceId>i-01</instanceId><instanceState><name>terminated</name></instanceState>`+
			`<stateReason><code>Server.InternalError</code><message>`+strings.Repeat("x", 1<<20)+`</message></stateReason>`+
			`<tagSet><item><key>dstack-installation</key><value>`+thisInstallation+`</value></item></tagSet></item></instancesSet></item></reservationSet>`)
	})
	machines, err := p.listInRegion(t.Context(), "us-east-1")
	if err != nil || len(machines) != 1 || machines[0].Failure == nil || len(machines[0].Failure.Message) > 1000 {
		t.Errorf("%d machines, %v", len(machines), err)
	}
}

// A disk that an installation made is not a disk of the user: the sweep of that installation deletes it once its volume is gone.
func TestCreateDisk_RefusesToRegisterAMarkedDisk(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	made, err := r.CreateDisk(t.Context(), cloud.Disk{Volume: "v1", Region: "us-east-1", Zone: "us-east-1a", SizeMiB: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Provider{r.Provider, r.openAs("another", nil)} {
		_, err := p.CreateDisk(t.Context(), cloud.Disk{Ref: made.Ref, IsExternal: true, Region: "us-east-1"})
		expectError(t, err, dstack.Conflict, "dstack made the disk "+made.Ref)
	}
}

// An answer without end does not use up the memory.
func TestListMachines_HugeAnswer(t *testing.T) {
	var longest atomic.Int64
	p := openAt(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `<DescribeInstancesResponse><reservationSet>`)
		padding := []byte("<a>" + strings.Repeat("x", 1<<20) + "</a>")
		for written := int64(0); r.Context().Err() == nil && written < 2*maxXMLAnswer; {
			n, err := w.Write(padding)
			written += int64(n)
			longest.Store(max(longest.Load(), written))
			if err != nil {
				return
			}
		}
	})
	if _, err := p.listInRegion(t.Context(), "us-east-1"); err == nil || longest.Load() > maxXMLAnswer+32<<20 {
		t.Errorf("%v after %d MB", err, longest.Load()>>20)
	}
}

// A region is a part of the name of the host that gets the signed request, with the session's token.
func TestCall_RefusesARegionThatIsNone(t *testing.T) {
	for _, region := range []string{"evil.example/#", "evil.example/", "a@evil.example", "evil.example:443", "", "us-east-1.evil.example", "US-EAST-1", "us-east-1\n"} {
		p := Open(Settings{Credentials: Credentials{ec2test.AccessKey, ec2test.SecretKey}}, thisInstallation)
		if _, err := p.ListQuotas(t.Context(), region); dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "region") {
			t.Errorf("quotas of %q: %v", region, err)
		}
		if _, err := p.CreateDisk(t.Context(), cloud.Disk{Volume: "v1", Region: region, SizeMiB: 1 << 10}); dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "region") {
			t.Errorf("a disk in %q: %v", region, err)
		}
	}
}
