package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dstack/internal/dstack"
	"dstack/internal/listen"
	"dstack/internal/loop"
)

const (
	closeTimeout      = 20 * time.Second // for a server of an earlier version to close its listener
	closePollInterval = 5 * time.Millisecond
	// lastPassTime is what the passes of such a server need to end, which begins when the listener is closed.
	lastPassTime = 300 * time.Millisecond
)

// earlierServer is a running server of a version that cannot hand over. Its sockets and its lock were copied from it.
type earlierServer struct {
	pid    int
	pidfd  int
	listen []string // its listening sockets, as /proc names them
}

// claimFromEarlierVersion copies the lock and the sockets of a running server that does not know how to hand over. Without
// one, the lock stays nil.
func (d *daemon) claimFromEarlierVersion() error {
	dir, err := filepath.EvalSymlinks(d.dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, lockName)
	pid, err := findLockHolder(path)
	if err != nil || pid == 0 {
		return err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return newCopyError(pid, err)
	}
	server := &earlierServer{pid: pid, pidfd: pidfd}
	if err := server.copyDescriptors(d, path); err != nil {
		server.Close()
		return newCopyError(pid, err)
	}
	if d.lock == nil {
		server.Close()
		return newCopyError(pid, errors.New("it has no lock"))
	}
	d.running, d.gatewayName = server, d.drainName() // the other one reports under the server's name until it ends
	d.log.Info("taking over from a running server of an earlier version", "pid", pid, "sockets", len(server.listen))
	return nil
}

func newCopyError(pid int, err error) error {
	hint := "stop it, and start this one"
	if errors.Is(err, unix.EPERM) {
		hint = "the system lets only root copy the sockets of a process (kernel.yama.ptrace_scope); " + hint
	}
	return &dstack.Error{Kind: dstack.Conflict, Cause: err,
		Message: fmt.Sprintf("cannot take over from process %d, a server of an earlier version", pid), Hint: hint}
}

// findLockHolder returns the process that has locked a file, and 0 if there is none.
func findLockHolder(path string) (pid int, err error) {
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return 0, nil
		}
		return 0, err
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0, fmt.Errorf("cannot tell which server runs: %w", err)
	}
	defer func() { _ = locks.Close() }()
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 3231 fe:00:1847 0 EOF
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], fmt.Sprintf(":%d", file.Ino)) {
			continue
		}
		pid, err := strconv.Atoi(fields[4])
		if err == nil && hasOpen(pid, path) { // another file system may have the same inode
			return pid, nil
		}
	}
	return 0, nil
}

func hasOpen(pid int, path string) bool {
	for _, target := range listDescriptors(pid) {
		if target == path {
			return true
		}
	}
	return false
}

// listDescriptors returns what the descriptors of a process refer to.
func listDescriptors(pid int) map[int]string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	targets := map[int]string{}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			targets[fd] = target
		}
	}
	return targets
}

// copyDescriptors copies the lock and the listening TCP sockets of the server into d.
func (s *earlierServer) copyDescriptors(d *daemon, lockPath string) error {
	for fd, target := range listDescriptors(s.pid) {
		isSocket := strings.HasPrefix(target, "socket:")
		if !isSocket && target != lockPath {
			continue
		}
		copied, err := unix.PidfdGetfd(s.pidfd, fd, 0)
		switch {
		case errors.Is(err, unix.EBADF): // it was closed meanwhile
			continue
		case err != nil:
			return err
		case !isSocket && d.lock == nil:
			d.lock = os.NewFile(uintptr(copied), lockName)
		case isSocket && isListener(copied):
			socket, err := listen.NewSocket("inherited", "", copied)
			if err != nil {
				return err
			}
			d.sockets.Inherit(socket)
			s.listen = append(s.listen, target)
		default:
			_ = unix.Close(copied)
		}
	}
	return nil
}

// isListener reports whether a descriptor is a TCP socket that listens.
func isListener(fd int) bool {
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || accepts == 0 {
		return false
	}
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && (family == unix.AF_INET || family == unix.AF_INET6)
}

// Begin implements runningServer: it asks the server to stop, and returns when that server serves no new connections and
// its passes have ended. The requests in flight go on until its own drain_timeout.
func (s *earlierServer) Begin(ctx context.Context) error {
	defer s.Close()
	if err := unix.PidfdSendSignal(s.pidfd, unix.SIGTERM, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) { // it has ended
			return nil
		}
		return err
	}
	limited, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	for s.listens() {
		if err := loop.Sleep(limited, closePollInterval); err != nil {
			return fmt.Errorf("process %d does not stop: %w", s.pid, err)
		}
	}
	return loop.Sleep(ctx, lastPassTime)
}

// listens reports whether one of the server's listening sockets is open in its process.
func (s *earlierServer) listens() bool {
	targets := listDescriptors(s.pid)
	for _, socket := range s.listen {
		for _, target := range targets {
			if target == socket {
				return true
			}
		}
	}
	return false
}

// Close implements runningServer.
func (s *earlierServer) Close() {
	if s.pidfd >= 0 {
		_ = unix.Close(s.pidfd)
	}
	s.pidfd = -1
}
