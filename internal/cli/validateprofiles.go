package cli

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"dstack/internal/spec"
)

// profileList is the content of a profiles file.
type profileList struct {
	Profiles []spec.Profile `json:"profiles"`
}

// isProfilesName reports whether a path is that of a profiles file.
func isProfilesName(path string) bool { return slices.Contains(profileFileNames, filepath.Base(path)) }

// checkProfiles checks a profiles file. Fields that this version does not support
// are notes.
func checkProfiles(source sourceFile, result *fileResult) {
	profiles, err := spec.ParseProfiles(source.name, source.text)
	if err != nil {
		result.Problems = asProblems(source.name, err)
		result.err = result.Problems
		return
	}
	result.profiles = &profileList{profiles}
	var notes spec.Problems
	for i, p := range profiles {
		for _, note := range p.Unsupported() {
			note.Path = fmt.Sprintf("profiles.%d.%s", i, note.Path)
			notes = append(notes, note)
		}
	}
	notes = append(notes, spec.FindDialect(source.text).Notes()...)
	result.Notes = append(result.Notes, spec.Locate(source.name, source.text, notes)...)
}

// findProfiles returns the profiles files of a folder's configurations, which are
// in its folder .dstack.
func findProfiles(folder string) (paths []string) {
	for _, base := range profileFileNames {
		path := filepath.Join(folder, ".dstack", base)
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeType == 0 {
			paths = append(paths, path)
		}
	}
	return paths
}
