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
	work, err := unix.Open(c.Work, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the working folder: %w", err)
	}
	defer unix.Close(work)
	for _, folder := range c.Hidden {
		if err := unix.Mount("tmpfs", folder, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,nr_inodes=64,mode=0755"); err != nil {
			return fmt.Errorf("cover %s: %w", folder, err)
		}
		if isWithin(c.Work, folder) && c.Work != folder {
			if err := c.showWork(work); err != nil {
				return err
			}
		}
		const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
		if err := unix.Mount("", folder, "", flags, ""); err != nil {
			return fmt.Errorf("write-protect %s: %w", folder, err)
		}
	}
	return nil
}

// showWork makes the working folder appear at its place in the covering folder. work is
// an open file descriptor of it.
func (c confinement) showWork(work int) error {
	if err := os.MkdirAll(c.Work, 0o755); err != nil {
		return fmt.Errorf("create the place of the working folder: %w", err)
	}
	source := filepath.Join("/proc/self/fd", strconv.Itoa(work))
	if err := unix.Mount(source, c.Work, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("show the working folder: %w", err)
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
