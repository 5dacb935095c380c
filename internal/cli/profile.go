package cli

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"dstack/internal/human"
	"dstack/internal/spec"
)

var profileFileNames = []string{"profiles.yml", "profiles.yaml"}

// chosenProfile is the profile of a run and its position in a file.
type chosenProfile struct {
	spec.Profile
	file  sourceFile // without a name if there is no file
	index int        // in the file, from 0
}

// chooseProfile returns the named profile or, without a name, the default one. It
// searches the current folder's file, then the home's. The files are not merged;
// the second one is only read if the first one has no such profile.
func (a *app) chooseProfile(flag string) (chosenProfile, spec.Problems) {
	noProfile := chosenProfile{Profile: spec.Profile{Name: "default"}}
	name, source := flag, "--profile"
	if name == "" {
		name, _ = a.env(profileVariable)
		source = profileVariable
	}
	var names, files []string
	for _, folder := range a.profileFolders() {
		file, profiles, problems := a.readProfiles(folder)
		if len(problems) > 0 {
			return noProfile, problems
		}
		for i, p := range profiles {
			if p.Name == name || name == "" && p.Default {
				return chosenProfile{p, file, i}, nil
			}
			if !slices.Contains(names, p.Name) {
				names = append(names, p.Name)
			}
		}
		files = append(files, filepath.Join(folder, profileFileNames[0]))
	}
	if name == "" {
		return noProfile, nil
	}
	hint := "write it into " + strings.Join(files, " or ")
	if len(names) > 0 {
		hint = didYouMean(name, names, "there is: "+strings.Join(names, ", "))
	}
	return noProfile, spec.Problems{flagProblem(source, hint, "no such profile: %s", name)}
}

// profileFolders returns the folders of profiles files, in the order in which
// they are searched.
func (a *app) profileFolders() []string {
	folders := []string{".dstack"}
	if a.home != "" {
		folders = append(folders, filepath.Join(a.home, ".dstack"))
	}
	return folders
}

// readProfiles reads the profiles file of a folder. A missing file has no
// profiles; files of both names are a problem.
func (a *app) readProfiles(folder string) (file sourceFile, profiles []spec.Profile, problems spec.Problems) {
	for _, base := range profileFileNames {
		name := filepath.Join(folder, base)
		text, err := a.readFile(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return file, nil, spec.Problems{{File: name, Message: "this file cannot be read: " + human.DescribeFailure(err),
				Hint: "make it readable, or move it"}}
		case file.name != "":
			return file, nil, spec.Problems{{File: name, Message: "there is also " + file.name, Hint: "keep one of them"}}
		}
		file = sourceFile{name, text}
	}
	if file.name == "" {
		return file, nil, nil
	}
	profiles, err := spec.ParseProfiles(file.name, file.text)
	if err != nil {
		return file, nil, asProblems(file.name, err)
	}
	return file, profiles, nil
}
