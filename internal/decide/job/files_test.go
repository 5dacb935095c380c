package job_test

import (
	"testing"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
)

func TestCompareSpecs_Files(t *testing.T) {
	from, to := parseRunSpec(t, "files: [a, 'bb:/c']"), parseRunSpec(t, "files: [a, '/elsewhere/bb:/c']")
	to.FileArchives[0].ID = "uploaded by somebody else"
	if found := job.CompareSpecs(from, to); len(found) > 0 {
		t.Errorf("the same content from another place is a change: %+v", found)
	}
	to.FileArchives[1].Hash = "abcdefabcdef"
	found := job.CompareSpecs(from, to)
	if len(found) != 1 || found[0].Path != "files.1" || found[0].From != "/c 01234567" || found[0].To != "/c abcdefab" || found[0].Strategy != job.Rolling {
		t.Errorf("another content: %+v", found)
	}
}

func TestBuildRequirements_OuterPath(t *testing.T) {
	for text, want := range map[string]string{
		"files: [a, 'b:c/d', '../e:f']":                    "",
		"files: [a, 'bb:/etc/c']":                          "/etc/c",
		"files: ['bb:/workflow/c', 'bb:/workflow']":        "",
		"files: ['bb:/workflow/../c']":                     "/workflow/../c",
		"files: ['bb:/workflows']":                         "/workflows",
		"files: ['b:../c']":                                "../c",
		"working_dir: x\nfiles: ['b:../c', 'b:..']":        "",
		"working_dir: x\nfiles: ['b:../../c']":             "../../c",
		"files: ['b:~/c']":                                 "~/c",
		"repos: ['https://example.com/a:/a']":              "/a",
		"repos: ['https://example.com/a:a']":               "",
		"repos: ['https://example.com/a']\nfiles: ['~/x']": "~/x",
	} {
		if got := job.BuildRequirements(parseRunSpec(t, text)).OuterPath; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestBuildAttemptSpec_FilesAndRepos(t *testing.T) {
	rs := parseRunSpec(t, "files: ['aa:/b']\nrepos: [{url: 'https://example.com/a', path: /a, if_exists: skip}]")
	got := job.BuildAttemptSpec(dstack.Run{Spec: rs}, dstack.Replica{})
	if len(got.Files) != 1 || got.Files[0].Path != "/b" || got.CodePath != "/a" || !got.KeepsCodePath {
		t.Errorf("%+v", got)
	}
}
