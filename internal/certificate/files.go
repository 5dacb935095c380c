package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"dstack/internal/dstack"
)

// fileInterval is how often files are looked at.
const fileInterval = time.Second

// maxFileSize limits the size of a file with a certificate or a key.
const maxFileSize = 1 << 20

// loadFiles reads a certificate from files if they changed since seen. It returns
// nil if they did not.
func loadFiles(certFile, keyFile, domain, seen string, now time.Time) (cert *tls.Certificate, state string, err error) {
	state, err = describeFiles(certFile, keyFile)
	if err != nil || state == seen {
		return nil, seen, err
	}
	certText, err := os.ReadFile(certFile)
	if err != nil {
		return nil, "", explainFile(certFile, err)
	}
	keyText, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, "", explainFile(keyFile, err)
	}
	cert, err = parsePair(certText, keyText)
	if err != nil {
		return nil, state, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%s and %s: %v", certFile, keyFile, err),
			Hint: "write the certificate with its chain into one file and its private key into the other, both in PEM"}
	}
	if err := checkPair(cert.Leaf, certFile, domain, now); err != nil {
		return nil, state, err
	}
	return cert, state, nil
}

// describeFiles returns the sizes and times of files, which differ when they are replaced.
func describeFiles(paths ...string) (string, error) {
	var b strings.Builder
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return "", explainFile(path, err)
		case !info.Mode().IsRegular():
			return "", &dstack.Error{Kind: dstack.Invalid, Message: path + " is not a file"}
		case info.Size() > maxFileSize:
			return "", &dstack.Error{Kind: dstack.Invalid, Message: path + " is larger than 1 MiB"}
		}
		fmt.Fprintf(&b, "%d %d;", info.Size(), info.ModTime().UnixNano())
	}
	return b.String(), nil
}

// explainFile returns the error for a file that cannot be read.
func explainFile(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &dstack.Error{Kind: dstack.Invalid, Message: path + " does not exist on the machine of the gateway",
			Hint: "write the file there, or change cert: and key: of the gateway", Cause: err}
	case errors.Is(err, fs.ErrPermission):
		return &dstack.Error{Kind: dstack.Invalid, Message: path + " cannot be read by the gateway",
			Hint: "let the user of the gateway's process read it", Cause: err}
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%s cannot be read: %v", path, err), Cause: err}
}

// parsePair parses a certificate with its chain and its key.
func parsePair(certText, keyText []byte) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "tls: "))
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &cert, nil
}

// checkPair checks that a certificate of the user can serve a domain now.
func checkPair(leaf *x509.Certificate, file, domain string, now time.Time) error {
	invalid := func(hint, format string, args ...any) error {
		return &dstack.Error{Kind: dstack.Invalid, Message: file + fmt.Sprintf(format, args...), Hint: hint}
	}
	switch {
	case now.After(leaf.NotAfter):
		return invalid("replace it; it is read again by itself", " expired on %s", formatDay(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		return invalid("check the clock of this machine", " is not valid before %s", formatDay(leaf.NotBefore))
	case len(namesBelow(leaf, domain)) == 0:
		return invalid("it needs the name *."+domain, " is not for *.%s, but for %s", domain, describeNames(leaf))
	}
	return nil
}

// namesBelow returns the names of a certificate that are a domain or below it,
// as servedCertificates has them.
func namesBelow(leaf *x509.Certificate, domain string) (names []string) {
	for _, name := range leaf.DNSNames {
		name = normalizeName(name)
		if name == domain || strings.HasSuffix(name, "."+domain) || strings.HasPrefix(name, "*.") && name[2:] == domain {
			names = append(names, name)
		}
	}
	return names
}

// describeNames lists the names of a certificate for a message.
func describeNames(leaf *x509.Certificate) string {
	switch names := leaf.DNSNames; {
	case len(names) == 0:
		return "no name"
	case len(names) > 3:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	default:
		return strings.Join(names, ", ")
	}
}
