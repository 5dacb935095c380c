package cloud

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// loopDisk is a real block device that scripts of the test see.
type loopDisk struct {
	t      *testing.T
	device string
	links  string
	folder string
}

func newLoopDisk(t *testing.T) *loopDisk {
	t.Helper()
	folder := t.TempDir()
	image := filepath.Join(folder, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Fatalf("a loop device is needed, as root: %v: %s", err, output)
	}
	d := &loopDisk{t: t, device: strings.TrimSpace(string(output)), links: filepath.Join(folder, "links"), folder: filepath.Join(folder, "mounted")}
	t.Cleanup(func() {
		_ = exec.Command("umount", d.folder).Run()
		if output, err := exec.Command("losetup", "--detach", d.device).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, output)
		}
	})
	if err := os.Mkdir(d.links, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(d.device, filepath.Join(d.links, "google-data")); err != nil {
		t.Fatal(err)
	}
	return d
}

// run runs the script as root's shell does on a machine, and returns its answer.
func (d *loopDisk) run(change func(*diskCommand)) string {
	d.t.Helper()
	c := diskCommand{action: "mount", links: d.links, device: cloud.DeviceSelector{ByID: "google-data"}, folder: d.folder, mayFormat: true}
	change(&c)
	cmd := exec.CommandContext(d.t.Context(), "sh", "-c", rootShell)
	cmd.Stdin = strings.NewReader(c.script())
	output, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%v: %s", err, output)
	}
	return strings.TrimSpace(string(output))
}

// A new disk gets a file system once, and keeps what was written to it, whoever mounts it later.
func TestDisk_IsFormattedOnce(t *testing.T) {
	d := newLoopDisk(t)
	same := func(*diskCommand) {}
	unmount := func(c *diskCommand) { c.action = "unmount" }
	if got := d.run(func(c *diskCommand) { c.mayFormat = false }); !strings.HasPrefix(got, "failed the disk has no file system, and") {
		t.Fatalf("an empty disk of the user: %s", got)
	}
	if got := d.run(same); got != "formatted "+d.device {
		t.Fatal(got)
	}
	data := filepath.Join(d.folder, "data")
	if err := os.WriteFile(data, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := d.run(same); got != "mounted "+d.device {
		t.Error(got)
	}
	busy, err := os.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.run(unmount); !strings.HasPrefix(got, "wait the volume is still in use there") {
		t.Error(got)
	}
	_ = busy.Close()
	for range 2 {
		if got := d.run(unmount); got != "unmounted" {
			t.Error(got)
		}
	}
	if _, err := os.Stat(d.folder); !os.IsNotExist(err) {
		t.Error("an empty folder is left: a replica would start with it in place of the data")
	}
	if got := d.run(same); got != "mounted "+d.device {
		t.Error(got)
	}
	if text, err := os.ReadFile(data); string(text) != "kept" {
		t.Errorf("%q, %v", text, err)
	}
}

// Whatever is on a disk keeps it from being formatted.
func TestDisk_RefusesWhatIsNotEmpty(t *testing.T) {
	for name, prepare := range map[string][]string{
		"partitions": {"sh", "-c", `printf '\203\000\000\000\000\010\000\000\000\010\000\000' | dd of="$0" bs=1 seek=450 conv=notrunc &&
			printf '\125\252' | dd of="$0" bs=1 seek=510 conv=notrunc`},
		"swap": {"mkswap"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newLoopDisk(t)
			if output, err := exec.Command(prepare[0], append(prepare[1:], d.device)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, output)
			}
			before, err := exec.Command("sha256sum", d.device).Output()
			if err != nil {
				t.Fatal(err)
			}
			if got := d.run(func(*diskCommand) {}); !strings.HasPrefix(got, "failed ") {
				t.Error(got)
			}
			if after, err := exec.Command("sha256sum", d.device).Output(); err != nil || string(after) != string(before) {
				t.Error("the disk was changed")
			}
		})
	}
	d := newLoopDisk(t)
	if got := d.run(func(c *diskCommand) { c.device.ByID = "google-other" }); got != "wait the machine does not see the disk yet" {
		t.Error(got)
	}
	if got := d.run(func(c *diskCommand) { c.device = cloud.DeviceSelector{Serial: "vol0123'; reboot; '"} }); got != "wait the machine does not see the disk yet" {
		t.Error(got)
	}
}

func TestReadDiskAnswer(t *testing.T) {
	for answer, want := range map[string]dstack.Kind{
		"mounted /dev/nvme1n1": "", "some warning\nformatted /dev/sdb\n": "", "unmounted": "", "wait busy": dstack.Unavailable, "failed no": dstack.Invalid,
		"": dstack.Unavailable, "sudo: a password is required": dstack.Unavailable,
	} {
		err := readDiskAnswer(answer)
		if err == nil && want != "" || err != nil && dstack.KindOf(err) != want {
			t.Errorf("%q: %v", answer, err)
		}
	}
}
