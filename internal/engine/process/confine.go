package process

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Replicas must not read the server's folder: it has the database, the key of its
// secrets and the code of other replicas. Where the system allows it, the keeper starts
// a command in a mount namespace of its own, in which empty folders cover the hidden
// ones, and only the attempt's working folder is put back. Everything else looks the
// same. See Confine.

// ConfineCommand is the hidden command of the dstack program that calls Confine.
const ConfineCommand = "confine"

// confinement is what a command must not see, and what it sees nevertheless.
type confinement struct {
	Hidden []string `json:",omitempty"` // absolute folders, none in another; empty: nothing is hidden
	Work   string   `json:",omitempty"` // the folder that stays visible
	Shown  []string `json:",omitempty"` // further folders that stay visible: the attempt's volumes
}

// shownMark precedes the paths of Shown in the arguments of ConfineCommand.
const shownMark = "+"

// buildArgv returns the command line that runs argv in dir, confined.
func (c confinement) buildArgv(dir string, argv []string) []string {
	confined := append([]string{"dstack", ConfineCommand, dir, c.Work}, c.Hidden...)
	for _, path := range c.Shown {
		confined = append(confined, shownMark+path)
	}
	return append(append(confined, "--"), argv...)
}

// start runs a command line, confined, and returns the number of its process. It changes
// the attributes accordingly.
func (c confinement) start(argv []string, attributes *syscall.ProcAttr) (pid int, err error) {
	if len(c.Hidden) == 0 {
		return syscall.ForkExec(argv[0], argv, attributes)
	}
	if err := checkProgram(argv[0]); err != nil {
		return 0, err // the confining process could not report it
	}
	confined := c.buildArgv(attributes.Dir, argv)
	attributes.Dir = "/"
	confineAttributes(attributes.Sys)
	return syscall.ForkExec("/proc/self/exe", confined, attributes)
}

// checkProgram returns an error if a file cannot be executed.
func checkProgram(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return syscall.EACCES
	}
	if err == nil {
		err = unix.Access(path, unix.X_OK)
	}
	return err
}

// parseConfineArgs parses what follows ConfineCommand in the result of buildArgv.
func parseConfineArgs(args []string) (c confinement, dir string, argv []string, ok bool) {
	end := slices.Index(args, "--")
	if end < 2 || end == len(args)-1 {
		return c, "", nil, false
	}
	c.Work = args[1]
	for _, arg := range args[2:end] {
		if shown, ok := strings.CutPrefix(arg, shownMark); ok {
			c.Shown = append(c.Shown, shown)
		} else {
			c.Hidden = append(c.Hidden, arg)
		}
	}
	return c, args[0], args[end+1:], true
}

// selectHidden returns the folders that can be hidden: those that exist, without links
// in their paths, and none in another. A folder that contains one of the needed paths,
// such as the home folder, is not hidden: programs would miss what is in there.
func selectHidden(folders []string, needed ...string) []string {
	var all []string
	for _, folder := range folders {
		real, err := filepath.EvalSymlinks(folder)
		if err != nil || !filepath.IsAbs(real) {
			continue
		}
		contains := func(path string) bool { return path != "" && isWithin(resolveLinks(path), real) }
		if !slices.ContainsFunc(needed, contains) {
			all = append(all, real)
		}
	}
	var outer []string
	for _, folder := range all {
		inAnother := func(other string) bool { return other != folder && isWithin(folder, other) }
		if !slices.ContainsFunc(all, inAnother) && !slices.Contains(outer, folder) {
			outer = append(outer, folder)
		}
	}
	return outer
}

// isWithin reports whether a clean absolute path is a folder or something in it.
func isWithin(path, folder string) bool {
	return path == folder || folder == "/" || strings.HasPrefix(path, folder+"/")
}

// resolveLinks returns a path without links, or the path itself if it does not exist.
func resolveLinks(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// findHidden returns the folders of the options that exist, and can be hidden if this system
// lets the engine hide folders at all.
func findHidden(opts Options) []string {
	home, _ := os.UserHomeDir()
	return selectHidden(opts.Hidden, home, os.TempDir())
}

// canHide reports whether this system lets the engine hide folders from replicas.
func canHide(opts Options) bool {
	hidden := findHidden(opts)
	return len(hidden) > 0 && checkConfinement(opts.KeeperProgram, hidden, opts.Dir) == nil
}

// newConfinement returns what the commands of an attempt must not see. A folder may have been
// created since the engine was opened, such as ~/.dstack at the first start of a server.
func (e *Engine) newConfinement(dir folder) confinement {
	c := confinement{Work: resolveLinks(dir.path("work"))}
	if !e.hides {
		return c
	}
	c.Hidden = findHidden(e.opts)
	var mounted mountRecord
	_, _ = dir.readJSON(mountsFile, &mounted) // without it, the attempt has no volumes
	for _, path := range mounted.Volumes {
		c.Shown = append(c.Shown, resolveLinks(path))
	}
	return c
}

// HidesServer reports whether replicas cannot read the folders of Options.Hidden, apart from
// those that do not exist yet.
func (e *Engine) HidesServer() bool {
	var hidden []string
	if e.hides {
		hidden = findHidden(e.opts)
	}
	return len(e.opts.Hidden) > 0 && !slices.ContainsFunc(e.opts.Hidden, func(folder string) bool {
		real := resolveLinks(folder)
		isCovered := func(covering string) bool { return isWithin(real, covering) }
		_, err := os.Stat(real)
		return err == nil && !slices.ContainsFunc(hidden, isCovered)
	})
}
