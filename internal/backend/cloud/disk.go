package cloud

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// diskScript mounts and unmounts a disk on a machine. See disk.sh.
//
//go:embed disk.sh
var diskScript string

// diskLinks is where Linux has links to the disks of a machine.
const diskLinks = "/dev/disk/by-id"

// rootShell runs the script on its standard input as root.
const rootShell = `if [ "$(id -u)" = 0 ]; then exec sh -s; else exec sudo -n sh -s; fi`

// diskCommand is what diskScript is to do.
type diskCommand struct {
	action    string // mount, unmount
	links     string
	device    cloud.DeviceSelector
	folder    string
	mayFormat bool
}

// script returns the whole script.
func (c diskCommand) script() string {
	mayFormat := "no"
	if c.mayFormat {
		mayFormat = "yes"
	}
	var head strings.Builder
	for _, set := range [][2]string{
		{"action", c.action}, {"links", c.links}, {"by_id", c.device.ByID}, {"serial", c.device.Serial}, {"folder", c.folder}, {"may_format", mayFormat},
	} {
		fmt.Fprintf(&head, "%s='%s'\n", set[0], strings.ReplaceAll(set[1], "'", `'\''`))
	}
	return head.String() + diskScript
}

// mountDisk mounts an attached disk on its machine. A new disk without a file system gets one: never a disk of the user, and
// never one that had a file system before.
func (b *Backend) mountDisk(ctx context.Context, v dstack.Volume, d cloud.Disk, id dstack.InstanceID) error {
	return b.runDiskCommand(ctx, id, diskCommand{action: "mount", links: diskLinks, device: d.Device, folder: v.MountPoint(), mayFormat: !v.IsExternal && !v.IsFormatted})
}

// unmountDisk writes what the machine keeps in memory to a disk, and unmounts it.
func (b *Backend) unmountDisk(ctx context.Context, v dstack.Volume, d cloud.Disk, id dstack.InstanceID) error {
	return b.runDiskCommand(ctx, id, diskCommand{action: "unmount", links: diskLinks, device: d.Device, folder: v.MountPoint()})
}

func (b *Backend) runDiskCommand(ctx context.Context, id dstack.InstanceID, c diskCommand) error {
	if c.action == "mount" && c.device == (cloud.DeviceSelector{}) {
		return &dstack.Error{Kind: dstack.Invalid, Message: "its cloud does not say how a machine finds the disk"}
	}
	output, err := b.remote.Run(ctx, id, rootShell, strings.NewReader(c.script()))
	if err != nil {
		return err
	}
	return readDiskAnswer(output)
}

// readDiskAnswer returns the error that the last line of diskScript's output says; nil: it succeeded.
func readDiskAnswer(output string) error {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	word, rest, _ := strings.Cut(lines[len(lines)-1], " ")
	switch word {
	case "mounted", "formatted", "unmounted":
		return nil
	case "wait":
		return &dstack.Error{Kind: dstack.Unavailable, Message: rest}
	case "failed":
		return &dstack.Error{Kind: dstack.Invalid, Message: rest}
	}
	return &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("the machine answered %.200q", output)}
}
