package certificate

import "dstack/internal/spec"

// The types of certificates.
const (
	typeACME     = "lets-encrypt"
	typeFiles    = "files"
	typeInternal = "internal"
)

func hasDNS(*spec.Certificate) bool { return false }

func filesOf(c *spec.Certificate) (cert, key string) { return c.Name, c.ARN }

func cloneSource(c *spec.Certificate) *spec.Certificate { copied := *c; return &copied }
