package kubeclient

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// MaxName is how long the names of objects are at most. A pod may have a longer one, but its host name is cut.
const MaxName = 63

// maxLabel is how long the value of a label may be.
const maxLabel = 63

// The parts of a name that cannot stay as it is.
const (
	nameHashLength  = 8
	labelHashLength = 16
	fallbackName    = "dstack"
)

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// NewName joins parts to a name that every kind of object may have: at most 63 of a-z, 0-9 and -, with a letter first. If
// the parts cannot stay as they are, a hash of them follows, so that different parts have different names.
func NewName(parts ...string) string {
	joined := strings.Join(parts, "-")
	fit := strings.Trim(unfit.ReplaceAllString(strings.ToLower(joined), "-"), "-")
	if fit == "" || fit[0] < 'a' {
		fit = strings.TrimSuffix(fallbackName+"-"+fit, "-")
	}
	if fit == joined && len(fit) <= MaxName {
		return fit
	}
	fit = strings.TrimRight(fit[:min(len(fit), MaxName-nameHashLength-1)], "-")
	return fit + "-" + hashTexts(parts)[:nameHashLength]
}

var labelValue = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$`)

// LabelValue returns a text as the value of a label: the text itself if it may be one, and a hash of it otherwise. The text
// itself belongs into an annotation then.
func LabelValue(text string) string {
	if len(text) <= maxLabel && labelValue.MatchString(text) {
		return text
	}
	return HashLabel(text)
}

// HashLabel returns a hash of texts that may be the value of a label. Different lists of texts have different hashes.
func HashLabel(texts ...string) string { return hashTexts(texts)[:labelHashLength] }

func hashTexts(texts []string) string {
	h := sha256.New()
	for _, t := range texts {
		h.Write([]byte(strconv.Itoa(len(t)) + ":" + t))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// EscapeDollars doubles every $ of a text. The kubelet halves them in commands, arguments and environment values, and
// replaces $(NAME) otherwise. Values of Secrets must not be escaped.
func EscapeDollars(text string) string { return strings.ReplaceAll(text, "$", "$$") }

func quote(text string) string { return strconv.Quote(text) }
