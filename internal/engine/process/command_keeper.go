package process

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	ossignal "os/signal"
	"syscall"
	"time"
)

// File descriptors that the keeper of a command inherits: the command's three standard
// streams, and the pipe for the commandResult.
const (
	commandFD       = 3
	commandResultFD = 6
)

// hangUpTime is the time from SIGHUP to SIGKILL for a command whose caller is gone.
const hangUpTime = time.Second

// KeepCommand runs a command beside an attempt, whose folder is path, and returns once the
// command and all of its descendants have ended. It returns an exit code for this process.
// KeepCommand is the hidden command "dstack keep-command FOLDER", which only the engine
// calls: it passes the files from commandFD on, and a commandLaunch on standard input, whose
// end ends the command. So the command ends, too, if the server is killed.
func KeepCommand(path string) int {
	// Not Ignore: the command would inherit that.
	ossignal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTERM)
	for fd := commandFD; fd <= commandResultFD; fd++ {
		syscall.CloseOnExec(fd)
	}
	out := os.NewFile(commandResultFD, "result")
	if err := json.NewEncoder(out).Encode(runCommand(folder(path))); err != nil {
		fmt.Fprintln(os.Stderr, "dstack keep-command:", err)
		return 1
	}
	return 0
}

// runCommand runs the command that standard input describes until its end.
func runCommand(dir folder) commandResult {
	var launch commandLaunch
	if err := json.NewDecoder(os.Stdin).Decode(&launch); err != nil {
		return commandResult{Error: "this command is started by the server, not by hand"}
	}
	if err := becomeReaper(); err != nil {
		return commandResult{Error: fmt.Sprintf("cannot adopt orphans: %v", err)}
	}
	k := &keeper{dir: dir, leaderExited: make(chan syscall.WaitStatus, 1), childless: make(chan struct{})}
	var err error
	attributes := &syscall.ProcAttr{
		Dir: launch.Dir, Env: launch.Env, Files: []uintptr{commandFD, commandFD + 1, commandFD + 2},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: launch.Terminal},
	}
	k.leaderPID, err = launch.start(launch.Argv, attributes)
	for fd := commandFD; fd < commandResultFD; fd++ {
		_ = syscall.Close(fd) // so that the engine sees the end of the output
	}
	if err != nil {
		return commandResult{Error: fmt.Sprintf("cannot run %s: %v", launch.Argv[0], err)}
	}
	go k.reapChildren() // ends when no child is left; waitForTree waits for that
	return k.waitForCommand()
}

// waitForCommand waits until the command's process tree has ended. It ends the tree when
// the command, the attempt or the caller has ended.
func (k *keeper) waitForCommand() commandResult {
	callerGone, attemptEnded := make(chan struct{}), make(chan struct{})
	go func() { // ends with this process
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(callerGone)
	}()
	go func() { // ends with this process
		k.dir.waitUntilUnlocked()
		close(attemptEnded)
	}()
	var result commandResult
	for leaderRuns := true; leaderRuns; {
		select {
		case status := <-k.leaderExited:
			result.ExitCode, leaderRuns = exitCodeOf(status), false
		case <-callerGone:
			callerGone = nil
			signalTree(os.Getpid(), k.leaderPID, syscall.SIGHUP)
			signalTree(os.Getpid(), k.leaderPID, syscall.SIGCONT) // a stopped process ends, too
			k.killTimer = time.After(hangUpTime)
		case <-attemptEnded:
			attemptEnded, result.AttemptEnded = nil, true
			k.killTree()
		case <-k.killTimer:
			k.killTree()
		}
	}
	k.killTree()
	k.waitForTree(0)
	return result
}

// waitUntilUnlocked waits until the attempt's keeper has ended, which releases the lock.
func (f folder) waitUntilUnlocked() {
	file, err := os.Open(f.path("lock"))
	if err != nil {
		return
	}
	defer file.Close()
	_ = retryInterrupted(func() error { return syscall.Flock(int(file.Fd()), syscall.LOCK_SH) })
}
