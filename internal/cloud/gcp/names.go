package gcp

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// The labels that mark what the provider makes.
const (
	labelInstallation = "dstack-installation"
	labelInstance     = "dstack-instance"
	labelVolume       = "dstack-volume"
	labelRole         = "dstack-role" // of disks: roleBoot, roleVolume
)

const (
	roleBoot   = "boot"
	roleVolume = "volume"
)

var reservedLabels = []string{labelInstallation, labelInstance, labelVolume, labelRole}

// mark is what tells an installation's objects from others.
type mark struct {
	label string // value of labelInstallation
	short string // eight hexadecimal digits, for names of objects that have no labels
}

func newMark(i dstack.Installation) mark {
	return mark{label: encodeLabel(string(i)), short: digest(string(i), 8)}
}

// digest returns the first hexadecimal digits of a text's hash.
func digest(text string, length int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:length]
}

// encodeLabel returns a text as the value of a label: itself, or its hash if a label cannot have it.
func encodeLabel(text string) string {
	if labelValue.MatchString(text) {
		return text
	}
	return "x-" + digest(text, 40)
}

// maxNameLength is that of names of objects: RFC 1035.
const maxNameLength = 63

// machineNameTail is the end of a machine's name: the instance's ID without dashes, and the installation's mark.
var machineNameTail = regexp.MustCompile(`-([0-9a-f]{32})-([0-9a-f]{8})$`)

// machineName returns the name of the machine of a launch: the same for the same instance, so that a zone never has two
// machines of one instance, and the operations of a machine that does not exist any more still tell whose it was.
func (p *Provider) machineName(l cloud.Launch) string {
	id := digest(string(l.Instance), 32)
	if parsed, err := uuid.Parse(string(l.Instance)); err == nil {
		id = hex.EncodeToString(parsed[:])
	}
	return joinName(l.Name, id+"-"+p.mark.short)
}

// instanceOf returns the instance in the name of a machine of this installation. The machines of instances whose ID is
// no UUID have no ID in their names.
func (p *Provider) instanceOf(name string) (dstack.InstanceID, bool) {
	m := machineNameTail.FindStringSubmatch(name)
	if m == nil || m[2] != p.mark.short {
		return "", false
	}
	id, err := uuid.Parse(m[1])
	if err != nil {
		return "", false
	}
	return dstack.InstanceID(id.String()), true
}

// diskName returns the name of the disk of a volume.
func (p *Provider) diskName(v dstack.VolumeID) string {
	return joinName("dstack-volume", digest(string(v), 16)+"-"+p.mark.short)
}

// objectPrefix begins the names of objects that have no labels.
func (p *Provider) objectPrefix() string { return "dstack-" + p.mark.short + "-" }

var badInNames = regexp.MustCompile(`[^a-z0-9]+`)

// joinName returns a valid name that begins with as much of start as fits, and ends with tail.
func joinName(start, tail string) string {
	start = badInNames.ReplaceAllString(strings.ToLower(start), "-")
	start = strings.TrimRight(strings.TrimLeft(start, "-0123456789"), "-")
	if most := maxNameLength - len(tail) - 1; len(start) > most {
		start = strings.TrimRight(start[:most], "-")
	}
	if start == "" {
		start = "dstack"
	}
	return start + "-" + tail
}

// labelsOf returns the labels of a machine or disk: the user's, those of the launch, and the installation's.
func (p *Provider) labelsOf(others map[string]string, key, value string) map[string]string {
	labels := map[string]string{}
	for k, v := range p.settings.Tags {
		labels[k] = v
	}
	for k, v := range others {
		if k = strings.ToLower(k); labelKey.MatchString(k) {
			labels[k] = cleanLabel(v)
		}
	}
	labels[labelInstallation] = p.mark.label
	labels[key] = encodeLabel(value)
	return labels
}

var badInLabels = regexp.MustCompile(`[^a-z0-9_-]`)

// cleanLabel returns a text with characters that labels cannot have replaced.
func cleanLabel(text string) string {
	text = badInLabels.ReplaceAllString(strings.ToLower(text), "-")
	return text[:min(len(text), 63)]
}

// isOwn reports whether labels have the installation's mark.
func (p *Provider) isOwn(labels map[string]string) bool {
	return labels[labelInstallation] == p.mark.label
}

// ownFilter selects what has the installation's mark.
func (p *Provider) ownFilter() string {
	return "labels." + labelInstallation + " = " + quoteFilter(p.mark.label)
}

// quoteFilter returns a value for an expression of the API's filters.
func quoteFilter(value string) string { return `"` + value + `"` }
