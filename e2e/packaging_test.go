package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// buildWithScript runs scripts/build.sh with the binary of the tests.
func buildWithScript(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../scripts/build.sh", args...)
	cmd.Env = append(os.Environ(), "BINARY="+dstackBinary, "NFPM="+os.Getenv("DSTACK_TEST_NFPM"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("scripts/build.sh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// packageStory installs, upgrades, removes and purges the package on Debian, and prints what a test looks at. systemctl
// only notes how it is called: systemd itself does not run.
const packageStory = `
set -e
printf '#!/bin/sh\necho "$@" >>/calls\n' >/usr/bin/systemctl && chmod +x /usr/bin/systemctl && mkdir -p /run/systemd/system
section() { echo "== $1"; ! [ -e /calls ] || sed 's/^/systemctl /' /calls; rm -f /calls; }
dpkg -i /dstack.deb
section installed
dstack version
getent passwd dstack
stat -c '%a %U %n' /usr/bin/dstack /usr/lib/systemd/system/dstack*.service
mkdir -p /var/lib/dstack && echo precious >/var/lib/dstack/encryption.key
dpkg -i /dstack.deb
section upgraded
dpkg -r dstack
section removed
dpkg -P dstack
section purged
cat /var/lib/dstack/encryption.key
ls /usr/bin/dstack /usr/lib/systemd/system/dstack* 2>/dev/null || echo gone
`

// TestPackaging_Debian builds the Debian package and takes it through its life in a container of Debian: it creates the
// user, starts nothing by itself, replaces running services in place at an upgrade, and never deletes data.
func TestPackaging_Debian(t *testing.T) {
	runParallel(t)
	needPiece(t, "nfpm", "DSTACK_TEST_NFPM")
	needBaseImage(t)
	buildWithScript(t, "package", "0.0.0-e2e")
	packages, err := filepath.Glob("../dist/dstack_0.0.0~e2e_*.deb")
	if err != nil || len(packages) != 1 {
		t.Fatalf("built %v, %v", packages, err)
	}
	path, err := filepath.Abs(packages[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	story := runDocker(t, "run", "--rm", "--network", "none", "-v", path+":/dstack.deb:ro", baseImage, "bash", "-c", packageStory)
	for _, expected := range []string{
		"== installed\nsystemctl daemon-reload\ndstack 0.0.0-e2e\ndstack:x:",
		":/var/lib/dstack:/usr/sbin/nologin\n755 root /usr/bin/dstack\n644 root /usr/lib/systemd/system/dstack",
		"== upgraded\nsystemctl daemon-reload\nsystemctl try-reload-or-restart dstack.service dstack-gateway.service\n",
		"== removed\nsystemctl --no-reload disable --now dstack.service dstack-gateway.service\nsystemctl daemon-reload\n",
		"the data in /var/lib/dstack is kept; to delete it: rm -r /var/lib/dstack\n== purged\n",
		"precious\ngone",
	} {
		if !strings.Contains(story, expected) {
			t.Errorf("the output has no %q:\n%s", expected, story)
		}
	}
	if strings.Count(story, "The next step") != 1 {
		t.Errorf("the next step is not printed once, at the first installation:\n%s", story)
	}
	// The units start the program where the package puts it.
	units, err := filepath.Glob("../packaging/systemd/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("units: %v, %v", units, err)
	}
	for _, unit := range units {
		if name := filepath.Base(unit); !strings.Contains(story, "644 root /usr/lib/systemd/system/"+name) {
			t.Errorf("the package has no %s:\n%s", name, story)
		}
		text, err := os.ReadFile(filepath.Join("../dist/package/systemd", filepath.Base(unit)))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "ExecStart=/usr/bin/dstack ") || strings.Contains(string(text), "/usr/local/bin") {
			t.Errorf("%s starts another program than /usr/bin/dstack:\n%s", unit, text)
		}
	}
}

// TestPackaging_Image builds the image without a pull and runs a server from it: as a user without rights, on a read-only
// file system, with its data in a volume that a second container finds again.
func TestPackaging_Image(t *testing.T) {
	runParallel(t)
	needPiece(t, "docker", "DSTACK_TEST_DOCKER")
	tag := fmt.Sprintf("dstack-e2e-%d:image", os.Getpid())
	createImageOnce(t, tag, func() { buildWithScript(t, "image", tag) })
	volume := fmt.Sprintf("dstack-e2e-%d-image", os.Getpid())
	t.Cleanup(func() { _ = exec.Command("docker", "volume", "rm", "-f", volume).Run() })
	if version := runDocker(t, "run", "--rm", "--network", "none", tag, "version"); version != "dstack 0.0.0-e2e" {
		t.Errorf("the image runs %q", version)
	}
	const token = "a-token-of-the-image-with-enough-characters"
	var installations []string
	for range 2 {
		container := runDocker(t, "run", "-d", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
			"-v", volume+":/var/lib/dstack", "-e", "DSTACK_SERVER_ADMIN_TOKEN="+token, "-p", "127.0.0.1::3000", tag)
		remove := func() { _ = exec.Command("docker", "rm", "-f", "-v", container).Run() }
		t.Cleanup(remove)
		address, _, _ := strings.Cut(runDocker(t, "port", container, "3000"), "\n")
		installations = append(installations, awaitUser(t, "http://"+address, token))
		if user := runDocker(t, "inspect", "-f", "{{.Config.User}}", container); user != "65532:65532" {
			t.Errorf("the image runs as %s", user)
		}
		runDocker(t, "stop", "--time", "5", container)
		if code := runDocker(t, "inspect", "-f", "{{.State.ExitCode}}", container); code != "0" {
			t.Errorf("the server ends with %s", code)
		}
		remove()
	}
	if installations[0] == "" || !slices.Equal(installations[:1], installations[1:]) {
		t.Errorf("the second container has other data: %v", installations)
	}
}

// awaitUser waits until a server answers, and returns what it says about the user of a token.
func awaitUser(t *testing.T, url, token string) string {
	t.Helper()
	var answer string
	deadline := time.Now().Add(30 * time.Second)
	for ; ; <-time.After(50 * time.Millisecond) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/users/get_my_user", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			body, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if answer = string(body); response.StatusCode == http.StatusOK {
				return answer
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v %s", url, err, answer)
		}
	}
}
