package cli

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"

	"dstack/internal/gitignore"
	"dstack/internal/human"
)

// maxNamedLeftOut is how many entries that are left out the plan names.
const maxNamedLeftOut = 12

// uploadView is the part of the result of `dstack apply -o json` about the folder.
type uploadView struct {
	Files   int            `json:"files"`
	Bytes   int64          `json:"bytes"`
	LeftOut []leftOutEntry `json:"left_out"` // what the default rules leave out
	Notes   []string       `json:"notes"`
	Named   []namedUpload  `json:"named,omitempty"` // only these, with `files`
	Repo    *namedRepo     `json:"repo,omitempty"`  // with `repos`
}

func newUploadView(a *archive) *uploadView {
	return &uploadView{Files: a.Files, Bytes: a.Bytes,
		LeftOut: append([]leftOutEntry{}, a.LeftOut...), Notes: append([]string{}, a.Notes...)}
}

// gitEnvironment returns what git's settings depend on.
func (a *app) gitEnvironment() gitignore.Environment {
	return gitignore.Environment{Home: a.home, Getenv: func(name string) string {
		value, _ := a.env(name)
		return value
	}}
}

// printUpload prints how much is uploaded, what is left out by default, and how to
// take it back. A plan of several runs prints it once.
func (j *applyCommand) printUpload() {
	if j.upload == nil {
		return
	}
	j.printUploadSizes()
	if left := sortLeftOut(j.upload.LeftOut); len(left) > 0 {
		j.printItems("left out", describeLeftOut(left))
		rule := escapeRule(left[0].findPathInFolder())
		if left[0].IsFolder {
			rule += "/"
		}
		file := path.Join(left[0].folder, ".dstackignore")
		hint := "to upload one all the same, write this into " + cleanLine(file) + ": " + cleanLine(rule)
		j.printWrapped(strings.Repeat(" ", keyWidth+1), dim, hint)
	}
	for _, note := range j.upload.Notes {
		j.printNote(note)
	}
}

// printUploadSizes prints how much is uploaded: of the folder, or of each file that the
// configuration names.
func (j *applyCommand) printUploadSizes() {
	key := "uploads"
	for _, f := range j.upload.Named {
		line := fmt.Sprintf("%s: %s → %s", formatSize(f.Files, f.Bytes), f.LocalPath, f.Path)
		j.printItems(key, []string{line})
		key = ""
	}
	if repo := j.upload.Repo; repo != nil {
		j.printItems("clones", []string{repo.describe()})
	}
	if !j.spec.Configuration.UploadsNamedFiles() {
		j.printItems(key, []string{formatSize(j.upload.Files, j.upload.Bytes)})
		return
	}
	j.printItems("", []string{"nothing else of the folder: the configuration has `files` or `repos`"})
}

func formatSize(files int, bytes int64) string {
	return human.Count(files, "file") + ", " + human.Bytes(bytes)
}

// sortLeftOut returns first the entries that git tracks, then files, then folders.
func sortLeftOut(left []leftOutEntry) []leftOutEntry {
	return slices.SortedStableFunc(slices.Values(left), func(x, y leftOutEntry) int {
		return cmp.Compare(leftOutRank(x), leftOutRank(y))
	})
}

// describeLeftOut names sorted entries. Folders of the same name are one item.
func describeLeftOut(left []leftOutEntry) []string {
	folders := map[string]int{}
	for _, e := range left {
		if e.IsFolder && !e.IsTracked {
			folders[path.Base(e.Path)]++
		}
	}
	var items []string
	for _, e := range left {
		name := path.Base(e.Path)
		switch {
		case e.IsTracked && e.IsFolder:
			items = append(items, e.Path+"/ (tracked by git)")
		case e.IsTracked:
			items = append(items, e.Path+" (tracked by git)")
		case !e.IsFolder:
			items = append(items, e.Path)
		case folders[name] == 1:
			items = append(items, e.Path+"/")
		case folders[name] > 1:
			items = append(items, fmt.Sprintf("%d × %s/", folders[name], name))
			folders[name] = 0
		}
	}
	if more := len(items) - maxNamedLeftOut; more > 0 {
		items = append(items[:maxNamedLeftOut], fmt.Sprintf("and %d more", more))
	}
	return items
}

func leftOutRank(e leftOutEntry) int {
	switch {
	case e.IsTracked:
		return 0
	case !e.IsFolder:
		return 1
	}
	return 2
}

// printItems prints a row of the plan whose items are wrapped, not cut.
func (j *applyCommand) printItems(key string, items []string) {
	width := j.err.width() - 1 - keyWidth
	line := ""
	for i, item := range items {
		item = cleanLine(item)
		if i < len(items)-1 {
			item += ","
		}
		if line != "" && width > 0 && lipgloss.Width(line)+1+lipgloss.Width(item) > width {
			j.printCommand(" " + j.err.paint(dim, padRight(key, keyWidth)) + line)
			key, line = "", ""
		}
		line = strings.TrimPrefix(line+" "+item, " ")
	}
	j.printCommand(" " + j.err.paint(dim, padRight(key, keyWidth)) + line)
}
