package main

import "runtime/debug"

// version is the version of a release, which its build sets with -ldflags '-X main.version=…'. It is empty in every
// other build.
var version string

// nextRelease is the release that the code of this repository becomes.
const nextRelease = "0.2.0"

// currentVersion returns the version that the program reports.
func currentVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return developmentVersion(nil)
	}
	return developmentVersion(info.Settings)
}

// developmentVersion names a build between two releases by the commit that Go stamped into it, such as
// 0.2.0-dev+3f1c7b2a9d04. It adds -dirty where the working tree had changes, and leaves the commit out where the build
// was not made in a clone.
func developmentVersion(settings []debug.BuildSetting) string {
	var commit, dirty string
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			commit = "+" + s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if commit == "" {
		return nextRelease + "-dev"
	}
	return nextRelease + "-dev" + commit + dirty
}
