package gitrepo

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
)

// Older versions of git ignore http.curloptResolve: they resolve a host again, and connect
// to an address that was not checked.
const minMajor, minMinor = 2, 37

const hintInstall = "install git on the server's machine, or upload the folder instead: dstack init --local"

// checkedGits has the paths of the programs whose version is known to be new enough.
var checkedGits sync.Map

// findGit returns the program git, if its version can be used.
func findGit(ctx context.Context) (string, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return "", &dstack.Error{Kind: dstack.Unsupported, Cause: err, Hint: hintInstall,
			Message: "the server's machine has no program git, which reads repositories"}
	}
	if _, isChecked := checkedGits.Load(program); isChecked {
		return program, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out boundedBuffer
	if err := runGroup(exec.CommandContext(ctx, program, "version"), 0, &out, &out); err != nil {
		return "", fmt.Errorf("git version: %w", err)
	}
	if err := checkVersion(strings.TrimSpace(out.String())); err != nil {
		return "", err
	}
	checkedGits.Store(program, true)
	return program, nil
}

var versionPattern = regexp.MustCompile(`^git version ((\d+)\.(\d+)\S*)`)

// checkVersion checks the output of git version.
func checkVersion(text string) error {
	version := shortenText(text)
	if found := versionPattern.FindStringSubmatch(text); found != nil {
		major, _ := strconv.Atoi(found[2]) // a number too large is new enough
		minor, _ := strconv.Atoi(found[3])
		if major > minMajor || major == minMajor && minor >= minMinor {
			return nil
		}
		version = found[1]
	}
	return &dstack.Error{Kind: dstack.Unsupported, Hint: hintInstall,
		Message: fmt.Sprintf("the server's git is version %s; version %d.%d or later is needed", version, minMajor, minMinor)}
}
