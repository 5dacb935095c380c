package cloud

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// setupHost is a machine on which setup.sh runs: its folders are in a temporary one, and its commands are stand-ins beside
// the few that only work with text and files.
type setupHost struct {
	t      *testing.T
	folder string
}

// textCommands are what every image has.
var textCommands = []string{"awk", "cat", "chmod", "cp", "cut", "grep", "mkdir", "mv", "rm", "sed", "tail", "tr"}

func newSetupHost(t *testing.T) *setupHost {
	t.Helper()
	h := &setupHost{t: t, folder: t.TempDir()}
	for _, folder := range []string{"bin", "etc/ssh", "etc/systemd/system", "etc/apt/sources.list.d", "etc/yum.repos.d", "home/.ssh", "run", "usr/share/keyrings", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(h.folder, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range textCommands {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(h.folder, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"id", "usermod", "chown", "groupadd", "sudo", "sleep", "iptables", "modprobe"} {
		h.add(name, "exit 0")
	}
	h.add("getent", `echo "dstack:x:1000:1000::$root/home:/bin/sh"`)
	h.add("iptables", `[ "$3" != -C ]`)
	return h
}

// add adds a command. Its script may use $root, the folder of the machine, and count, which counts its calls.
func (h *setupHost) add(name, script string) {
	h.t.Helper()
	const begin = `echo "$name $*" >>"$root/calls"
count() { grep -c "^$name" "$root/calls"; }
last() { [ "$(count)" -gt "$1" ]; }
`
	text := "#!/bin/sh\nroot='" + h.folder + "' name='" + name + "'\n" + begin + script + "\n"
	if err := os.WriteFile(filepath.Join(h.folder, "bin", name), []byte(text), 0o700); err != nil {
		h.t.Fatal(err)
	}
}

// addInstalled returns a script that adds a command to the machine, which succeeds.
func (h *setupHost) addInstalled(name string) string {
	return `printf '#!/bin/sh\n' >"$root/bin/` + name + `" && chmod 755 "$root/bin/` + name + `"`
}

// run runs the setup for a machine with an offer, and returns what it reported last.
func (h *setupHost) run(gpus string) string {
	h.t.Helper()
	request := newRequest("one", smallInNorth)
	script, err := newBackend(Options{}).newLaunchScript(request, newTestHost(h.t))
	if err != nil {
		h.t.Fatal(err)
	}
	script = strings.Replace(script, "gpus=''", "gpus='"+gpus+"'", 1)
	script = strings.Replace(script, "PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", "PATH="+h.folder+"/bin\n", 1)
	for _, folder := range []string{"/etc/", "/run/", "/var/lib/", "/usr/share/"} {
		for _, before := range []string{" ", "=", ">", `"`} {
			script = strings.ReplaceAll(script, before+folder, before+h.folder+folder)
		}
	}
	file := filepath.Join(h.folder, "user-data")
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		h.t.Fatal(err)
	}
	out, _ := exec.Command("/bin/sh", file).CombinedOutput()
	state, err := os.ReadFile(filepath.Join(h.folder, "var/lib/dstack/setup"))
	if err != nil {
		h.t.Fatalf("%v; it printed %s", err, out)
	}
	return strings.TrimSpace(string(state))
}

// calls returns the commands that were called.
func (h *setupHost) calls() string { return h.read("calls") }

func (h *setupHost) read(name string) string {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.folder, name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// A machine with Docker needs nothing from the network.
func TestSetup_InstallsNothingThatIsThere(t *testing.T) {
	h := newSetupHost(t)
	h.add("docker", "exit 0")
	h.add("apt-get", "exit 100")
	for range 2 {
		if got := h.run(""); got != "done" {
			t.Errorf("it says %q", got)
		}
	}
	if strings.Contains(h.calls(), "apt-get") {
		t.Errorf("it calls %s", h.calls())
	}
}

// Names are answered at the address of the metadata service on Google Cloud, so containers may ask for them there.
func TestSetup_HidesMetadataButNotNames(t *testing.T) {
	h := newSetupHost(t)
	h.add("docker", "exit 0")
	if got := h.run(""); got != "done" {
		t.Fatalf("it says %q", got)
	}
	for _, protocol := range []string{"tcp", "udp"} {
		for _, chain := range []string{"DOCKER-USER", "INPUT ! -i lo"} {
			rule := "iptables -w 10 -I " + chain + " -d 169.254.169.254 -p " + protocol + " ! --dport 53 -j REJECT\n"
			if !strings.Contains(h.calls(), rule) {
				t.Errorf("there is no %s in %s", rule, h.calls())
			}
		}
	}
}

// What fails for a while ends well: each case is a command that fails at first.
func TestSetup_Repeats(t *testing.T) {
	const installs = `case "$*" in *" install "*) `
	for name, aptGet := range map[string]string{
		"the lists are locked by an upgrade": `case "$*" in *" update") [ "$(grep -c " update$" "$root/calls")" -gt 3 ] || { echo "E: Could not get lock" >&2; exit 100; }; >"$root/lists" ;; esac
` + installs + `[ -e "$root/lists" ] || { echo "E: Package 'docker.io' has no installation candidate"; exit 100; }; DOCKER ;; esac`,
		"a mirror fails, which apt-get update does not say": `case "$*" in *" update") [ "$(grep -c " update$" "$root/calls")" -gt 2 ] && >"$root/lists"; exit 0 ;; esac
` + installs + `[ -e "$root/lists" ] || { echo "E: Unable to locate package docker.io"; exit 100; }; DOCKER ;; esac`,
		"one list cannot be read, and nothing needs it": `case "$*" in *" update") echo "E: Failed to fetch http://other"; exit 100 ;; esac
` + installs + `DOCKER ;; esac`,
		"dpkg was interrupted by a reboot": installs + `[ -e "$root/configured" ] || { echo "E: dpkg was interrupted"; exit 100; }; DOCKER ;; esac`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newSetupHost(t)
			h.add("apt-get", strings.ReplaceAll(aptGet, "DOCKER", h.addInstalled("docker")))
			h.add("dpkg", `>"$root/configured"`)
			if got := h.run(""); got != "done" {
				t.Errorf("it says %q after %s", got, h.calls())
			}
		})
	}
}

// The reason of a failure is the line that says what is wrong, not the advice after it.
func TestSetup_ExplainsFailures(t *testing.T) {
	for name, c := range map[string]struct{ command, script, want string }{
		"disk full": {"apt-get", `case "$*" in *" install "*) cat <<-E
			Unpacking docker.io ...
			dpkg: error processing archive /var/cache/docker.io.deb (--unpack):
			 cannot copy extracted data: No space left on device
			Errors were encountered while processing:
			 /var/cache/docker.io.deb
			E: Sub-process /usr/bin/dpkg returned an error code (1)
			E
			exit 100 ;; esac`, "failed: Docker cannot be installed: dpkg: error processing archive /var/cache/docker.io.deb (--unpack): cannot copy extracted data: No space left on device"},
		"disk full at once": {"apt-get", "echo 'E: Write error - write (28: No space left on device)'; exit 100",
			"failed: Docker cannot be installed: E: Write error - write (28: No space left on device)"},
		"mirror": {"apt-get", `case "$*" in *" update") echo 'E: Failed to fetch http://mirror/x 503 Service Unavailable' ;; *) echo 'E: Unable to locate package docker.io' ;; esac; exit 100`,
			"failed: Docker cannot be installed: E: Unable to locate package docker.io (E: Failed to fetch http://mirror/x 503 Service Unavailable)"},
		"clock": {"apt-get", `case "$*" in *" update") echo 'E: Release file for http://mirror/x is not valid yet (invalid for another 3h)' ;; *) echo 'E: Unable to locate package docker.io' ;; esac; exit 100`,
			"failed: Docker cannot be installed: E: Unable to locate package docker.io (E: Release file for http://mirror/x is not valid yet (invalid for another 3h))"},
		"dnf": {"dnf", "echo 'No match for argument: docker'; echo 'You can try to add to command line:'; echo '  --skip-unavailable'; exit 1",
			"failed: Docker cannot be installed: No match for argument: docker"},
		"other system": {"zypper", "exit 0", "failed: Docker cannot be installed: there is no apt-get, dnf or yum"},
		"docker":       {"docker", "echo 'Client: 1'; echo 'Cannot connect to the Docker daemon'; exit 1", "failed: Docker does not answer: Cannot connect to the Docker daemon"},
		"user":         {"id", "exit 1", "failed: the user dstack cannot be added: useradd: cannot lock /etc/passwd"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newSetupHost(t)
			h.add("useradd", "echo 'useradd: cannot lock /etc/passwd'; exit 1")
			h.add("dpkg", "exit 1")
			h.add(c.command, c.script)
			if got := h.run(""); got != c.want {
				t.Errorf("it says\n%q, want\n%q", got, c.want)
			}
		})
	}
}

// A full disk keeps the reason from nobody.
func TestSetup_ReportsWithFullDisk(t *testing.T) {
	h := newSetupHost(t)
	h.add("apt-get", "echo 'E: You do not have enough free space in /var/cache/apt/archives/.'; exit 100")
	h.add("dpkg", "exit 1")
	if err := os.MkdirAll(filepath.Join(h.folder, "var/lib/dstack/setup.new"), 0o700); err != nil { // it cannot be written
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.folder, "var/lib/dstack/setup"), []byte("running: adds the user"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.run("")
	if got := h.read("run/dstack/setup"); !strings.HasPrefix(got, "failed: Docker cannot be installed: E: You do not have enough free space") {
		t.Errorf("it says %q", got)
	}
}

// NVIDIA's toolkit comes from NVIDIA's packages. A download that breaks leaves no half list behind.
func TestSetup_AddsToolkit(t *testing.T) {
	for _, system := range []string{"apt-get", "dnf"} {
		h := newSetupHost(t)
		h.add("docker", `[ "$1" != info ] || echo '{"runc":{}}'`)
		h.add("nvidia-smi", "exit 0")
		h.add("dpkg", "exit 0")
		h.add("curl", `
while [ "$1" != -o ]; do shift; done
case $3 in
*gpgkey) echo KEY >"$2" ;;
*) last 3 || { echo 'curl: (22) The requested URL returned error: 503' >&2; exit 22; }
   echo 'deb https://nvidia.github.io/x /' >"$2" ;;
esac`)
		h.add(system, `case "$*" in *toolkit*) grep -qs nvidia "$root"/etc/*/*toolkit.repo "$root"/etc/apt/*/*toolkit.list || exit 1; `+h.addInstalled("nvidia-ctk")+` ;; esac`)
		if got := h.run("nvidia"); got != "done" {
			t.Fatalf("%s: it says %q after %s", system, got, h.calls())
		}
		if system == "apt-get" {
			const want = "deb [signed-by=/usr/share/keyrings/nvidia-container-toolkit.asc] https://nvidia.github.io/x /\n"
			if got := strings.ReplaceAll(h.read("etc/apt/sources.list.d/nvidia-container-toolkit.list"), h.folder, ""); got != want {
				t.Errorf("the source is %q", got)
			}
		}
	}
	h := newSetupHost(t)
	h.add("docker", "exit 0")
	h.add("dnf", "exit 0")
	if got := h.run("nvidia"); got != "failed: the image has no driver of NVIDIA: configure an image that has one" {
		t.Errorf("it says %q", got)
	}
}

// A reboot in the middle begins the setup again, which cloud-init does not. When it has ended, nothing is left.
func TestSetup_BeginsAgainAfterReboot(t *testing.T) {
	h := newSetupHost(t)
	h.add("docker", "exit 0")
	h.add("journalctl", "exit 0")
	h.add("systemctl", `case "$*" in
"start docker") cp "$root/var/lib/dstack/setup.sh" "$root/copy" || exit 1; last 6 || { echo 'Job for docker.service failed'; exit 1; } ;;
esac`)
	if err := os.MkdirAll(filepath.Join(h.folder, "run/systemd/system"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := h.run(""); got != "done" {
		t.Fatalf("it says %q after %s", got, h.calls())
	}
	if unit := h.read("etc/systemd/system/dstack-setup.service"); !strings.Contains(unit, "ConditionPathExists="+h.folder+"/var/lib/dstack/setup.sh\n") {
		t.Errorf("the unit is %s", unit)
	}
	if h.read("copy") != h.read("user-data") || !strings.Contains(h.calls(), "systemctl enable dstack-setup.service") {
		t.Errorf("it would not begin again: %s", h.calls())
	}
	if _, err := os.Stat(filepath.Join(h.folder, "var/lib/dstack/setup.sh")); err == nil {
		t.Error("it would begin again although it has ended")
	}
}
