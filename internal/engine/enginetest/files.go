package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"

	"dstack/internal/dstack"
)

// Files is the engine.FileOpener of a fixture's engine. It has a folder and a file.
func Files(_ context.Context, file dstack.FileArchive) (io.ReadCloser, error) {
	entries := map[string][]tar.Header{
		"folder": {{Name: "conf/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "conf/a/run.sh", Mode: 0o755}, {Name: "conf/link", Typeflag: tar.TypeSymlink, Linkname: "a/run.sh"},
			{Name: "conf/out", Typeflag: tar.TypeSymlink, Linkname: "../x"}},
		"file": {{Name: "local.sh", Mode: 0o755}},
	}[file.ID]
	if len(entries) == 0 {
		return nil, fmt.Errorf("no file %q", file.ID)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		text := ""
		if h.Typeflag == 0 {
			text = "#!/bin/sh\necho run by $0"
		}
		h.Size = int64(len(text))
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, text); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(&buf), w.Close()
}

// withFiles adds files by the IDs that Files has, and their paths.
func withFiles(idsAndPaths ...string) func(*dstack.AttemptSpec) {
	return func(spec *dstack.AttemptSpec) {
		for i := 0; i < len(idsAndPaths); i += 2 {
			spec.Files = append(spec.Files, dstack.FileArchive{ID: idsAndPaths[i], Path: idsAndPaths[i+1]})
		}
	}
}

// withCode gives the attempt the code that Code has.
func withCode(spec *dstack.AttemptSpec) { spec.CodeHash = codeHash }

func seesFiles(h *harness) {
	script := "./hello.txt; ./deep/er/link; ../run.sh/a/run.sh; ls -A ../made . deep; /bin/test -e out || echo no link out"
	id := h.startAttempt(h.newSpec(script, withCode, withFiles("file", "hello.txt", "folder", "deep/er", "folder", "../run.sh", "file", "../made/now"),
		func(spec *dstack.AttemptSpec) { spec.WorkingDir = "app" }))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "run by ./hello.txt", "run by ./deep/er/link", "run by ../run.sh/a/run.sh", "now", "er", "no link out")
}

func seesOuterFiles(h *harness) {
	spec := h.newSpec("/etc/app/link; /root/x.sh; test -e /etc/app/old || echo replaced", withFiles("file", "/etc/app/old", "file", "~/x.sh", "folder", "/etc/app"))
	if !h.f.Capabilities.Containers {
		h.expectRefusal(spec, "is outside of the folder")
		return
	}
	id := h.startAttempt(spec)
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "run by /etc/app/link", "run by /root/x.sh", "replaced")
}

func seesCodeAtPath(h *harness) {
	atPath := func(path string, keeps bool) func(*dstack.AttemptSpec) {
		return func(spec *dstack.AttemptSpec) { spec.CodePath, spec.KeepsCodePath = path, keeps }
	}
	if !h.f.Capabilities.Containers {
		id := h.startAttempt(h.newSpec("cat sub/app/hello.txt; echo; sub/run.sh", withCode, atPath("sub", false)))
		h.waitForReport(id, "ended", isExited)
		h.expectLines(id, "hello from the folder", "run by sub/run.sh")
		h.expectRefusal(h.newSpec("pwd", withCode, atPath("/opt/code", false)), "/opt/code is outside of the folder")
		return
	}
	id := h.startAttempt(h.newSpec("cat ../opt/code/app/hello.txt; pwd", withCode, atPath("../opt/code", false)))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "hello from the folder/workflow")
	h.expectRefusal(h.newSpec("pwd", withCode, atPath("/etc", false)), "the image has files in /etc", "if_exists: skip")
	id = h.startAttempt(h.newSpec("test -e /etc/app || echo kept", withCode, atPath("/etc", true)))
	h.waitForReport(id, "ended", isExited)
	h.expectLines(id, "kept")
}
