package spec

import "strings"

// CodeFolder is the folder of uploaded code in a container.
const CodeFolder = "/workflow"

// isInCodeFolder reports whether an absolute path is that of the uploaded code or inside of it.
func isInCodeFolder(path string) bool {
	rest, ok := strings.CutPrefix(path, CodeFolder)
	return ok && (rest == "" || rest[0] == '/')
}
