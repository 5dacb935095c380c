package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// droppedCapabilities are those with which root could undo the confinement: remove the
// mounts or enter another namespace, look into the server's process, open files by their
// handles, or load code into the kernel. Docker takes them away, too.
var droppedCapabilities = []uintptr{
	unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO,
}

// confineAttributes changes the attributes of a process so that it may confine itself.
// Root gets a mount namespace. Another user also gets a user namespace with its own ID
// as the only one, and the right to mount, which it loses when it runs the command.
func confineAttributes(sys *syscall.SysProcAttr) {
	sys.Cloneflags |= syscall.CLONE_NEWNS
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		return
	}
	sys.Cloneflags |= syscall.CLONE_NEWUSER
	sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
}

// checkTimeout limits the check of the confinement.
const checkTimeout = 10 * time.Second

// checkConfinement returns an error if this system does not allow the confinement.
func checkConfinement(program string, hidden []string, work string) error {
	shell, err := exec.LookPath("sh")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	c := confinement{Hidden: hidden, Work: resolveLinks(work)}
	check := exec.CommandContext(ctx, program)
	check.Args = c.buildArgv("/", []string{shell, "-c", "exit 0"})
	check.SysProcAttr = &syscall.SysProcAttr{}
	confineAttributes(check.SysProcAttr)
	return check.Run()
}

// Confine hides folders from this process and runs a command in its place. args is what
// follows ConfineCommand. It returns an exit code for this process only if it fails.
func Confine(args []string) int {
	c, dir, argv, ok := parseConfineArgs(args)
	if !ok {
		fmt.Fprintln(os.Stderr, "dstack confine: this command is started by the server, not by hand")
		return 2
	}
	runtime.LockOSThread() // capabilities belong to a thread
	err := c.apply()
	if err == nil {
		err = dropCapabilities()
	}
	if err == nil {
		err = os.Chdir(dir) // after the mounts: a folder entered before leads out of them
	}
	if err == nil {
		err = syscall.Exec(argv[0], argv, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "dstack: cannot start the command with the server's folder hidden:", err)
	return 126
}

// apply covers the hidden folders with empty ones in the mount namespace of this process.
func (c confinement) apply() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate the mounts: %w", err)
	}
	visible, err := openVisible(append([]string{c.Work}, c.Shown...))
	if err != nil {
		return err
	}
	defer visible.close()
	for _, hidden := range c.Hidden {
		if err := unix.Mount("tmpfs", hidden, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,nr_inodes=64,mode=0755"); err != nil {
			return fmt.Errorf("cover %s: %w", hidden, err)
		}
		for _, one := range visible {
			if isWithin(one.path, hidden) && one.path != hidden {
				if err := one.show(); err != nil {
					return err
				}
			}
		}
		const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
		if err := unix.Mount("", hidden, "", flags, ""); err != nil {
			return fmt.Errorf("write-protect %s: %w", hidden, err)
		}
	}
	return nil
}

// visiblePath is an open folder that is put back after one around it was covered.
type visiblePath struct {
	path string
	file int
}

type visiblePaths []visiblePath

// openVisible opens folders.
func openVisible(paths []string) (opened visiblePaths, err error) {
	for _, path := range paths {
		file, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			opened.close()
			return nil, fmt.Errorf("open %s, which the command needs: %w", path, err)
		}
		opened = append(opened, visiblePath{path, file})
	}
	return opened, nil
}

func (v visiblePaths) close() {
	for _, one := range v {
		_ = unix.Close(one.file)
	}
}

// show makes the folder appear at its place in the covering folder.
func (v visiblePath) show() error {
	if err := os.MkdirAll(v.path, 0o755); err != nil {
		return fmt.Errorf("create the place of %s: %w", v.path, err)
	}
	source := filepath.Join("/proc/self/fd", strconv.Itoa(v.file))
	if err := unix.Mount(source, v.path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("show %s: %w", v.path, err)
	}
	return nil
}

// dropCapabilities takes away the capabilities that a command could undo the confinement
// with. The thread must be the one that runs the command.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil // without ambient capabilities, the command has none
	}
	for _, c := range droppedCapabilities {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	sets[0].Inheritable, sets[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("drop inheritable capabilities: %w", err)
	}
	return nil
}
