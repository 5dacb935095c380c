package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/cloud/aws/ec2test"
)

// TestCloud_Input has accounts with one fault each beside one that works, and asks for what cannot be had: each is told in one
// line, at the start of the server and in plans, and nothing is rented.
func TestCloud_Input(t *testing.T) {
	runParallel(t)
	east := ec2test.Region{Zones: []string{"us-east-1a", "us-east-1b", "us-east-1c"}, VPCs: []ec2test.VPC{
		{ID: "vpc-11111111", IsDefault: true, Subnets: []ec2test.Subnet{{Zone: "us-east-1a", IsPublic: true}, {Zone: "us-east-1c", IsPublic: true}}},
		{ID: "vpc-22222222"},
	}}
	ec2, err := ec2test.Start(ec2test.Options{
		Keys: map[string]ec2test.Key{
			ec2test.AccessKey:   {Secret: ec2test.SecretKey},
			"AKIDOLD0000000001": {Secret: ec2test.SecretKey, IsExpired: true},
			"AKIDWEAK000000001": {Secret: ec2test.SecretKey, Denied: []string{"ec2:RunInstances", "ec2:CreateTags"}},
		},
		Regions: map[string]ec2test.Region{"us-east-1": east},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ec2.Close)
	h := newStoppedHarness(t, "process", "AWS_EC2_METADATA_DISABLED=true")
	account := func(key string, more ...string) string {
		return fmt.Sprintf("  - {type: aws, regions: [us-east-1], endpoint: '%s', creds: {type: access_key, access_key: %s, secret_key: %s}%s}\n",
			ec2.URL, key, ec2test.SecretKey, strings.Join(append([]string{""}, more...), ", "))
	}
	h.writeFile(filepath.Join(h.serverDir, "config.yml"), "projects:\n- name: main\n  backends:\n"+account(ec2test.AccessKey)+
		account("AKIDOLD0000000001", "name: old")+account("AKIDWEAK000000001", "name: weak")+account(ec2test.AccessKey, "name: bare", "vpc_ids: {us-east-1: vpc-22222222}")+
		account(ec2test.AccessKey, "name: blank", "os_images: {cpu: {name: nothing-*, owner: self}}")+
		"- name: poor\n  budget: {per_day: 0.01}\n  backends:\n"+account(ec2test.AccessKey))
	h.startServer()
	h.waitForText("aws-old: us-east-1: cannot be used: aws: the credentials are wrong or have expired")
	h.waitForText("aws-weak: us-east-1: cannot be used: aws: the credentials lack the right ec2:RunInstances in us-east-1 (allow ec2:RunInstances")
	h.waitForText("aws-bare: us-east-1: cannot be used: aws us-east-1: vpc-22222222 has no subnet (add a subnet")
	h.waitForText(`aws-blank: us-east-1: cannot be used: aws us-east-1: there is no image for x86 with the name "nothing-*" of self (copy the image`)

	h.applyCloudVolume("aws", "us-east-1", "us-east-1a", "1GB")
	const small = "resources: {cpu: 2.., memory: 1GB..}\n"
	for _, c := range []struct{ lines, says string }{
		{small + "max_price: 0.001", "the cheapest is 0.0035 $/h; raise max_price to 0.0035"},
		{"resources: {gpu: 'H100:8'}\nvolumes: ['data:/data']", "but the volume data is in us-east-1a of aws: use a volume there"},
		{small + "regions: [mars]", "this server has the regions: us-east-1"},
		{"resources: {gpu: tpu}", "tpu"},
	} {
		dir := h.newFolder("type: service\nname: web\nimage: alpine\nport: 80\nbackends: [aws]\ncommands: [sleep 1]\n" + c.lines + "\n")
		r := h.runCLIIn(dir, "apply", "-f", "service.dstack.yml", "-y", "-d").expectText(c.says)
		if r.code == 0 {
			t.Errorf("it was accepted: %s", r.out)
		}
	}
	h.runCLI("config", "--project", "poor", "--url", h.serverURL(), "--token", h.token).expectExit(0)
	dear := h.newFolder("type: service\nname: dear\nimage: alpine\nport: 80\ncommands: [sleep 1]\nmax_price: 60\nresources: {gpu: 'H100:8'}\n")
	h.runCLIIn(dear, "apply", "-f", "service.dstack.yml", "--project", "poor", "-y", "-d").
		expectText("the budget of project poor is 0.01 $ a day", "raise `budget: {per_day: ").expectText("until midnight")
	if n := ec2.CountCalls("RunInstances"); len(ec2.Instances()) > 0 {
		t.Errorf("%d calls of RunInstances have made %v", n, ec2.Instances())
	}
}
