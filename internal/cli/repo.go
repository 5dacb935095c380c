package cli

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strings"

	"dstack/internal/api"
)

// newLocalRepo returns the repo of a folder. Its ID depends on the path alone.
func newLocalRepo(dir string) api.InitRepo {
	info, _ := json.Marshal(map[string]string{"repo_type": "local", "repo_dir": dir}) // strings always encode
	return api.InitRepo{RepoID: repoID(dir), RepoInfo: info}
}

// repoID returns <name>-<8 characters>. The characters are from the path's SHA-256
// in base 36, the same as in the published client (spec §3.4).
func repoID(dir string) string {
	return fmt.Sprintf("%.40s-%s", cleanRepoName(filepath.Base(dir)), hashPath(dir))
}

// cleanRepoName returns the part of a name that the ID of a repo may have.
func cleanRepoName(name string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '.', r == '-':
			return r
		}
		return -1
	}, name)
	return cmp.Or(clean, "folder")
}

func hashPath(key string) string {
	sum := sha256.Sum256([]byte(key))
	slices.Reverse(sum[:]) // little-endian
	digits := new(big.Int).SetBytes(sum[:]).Text(36)
	if len(digits) < 32 {
		digits = strings.Repeat("0", 32-len(digits)) + digits
	}
	return digits[len(digits)-32:][:8]
}
