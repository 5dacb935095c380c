package sshclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
)

// hostKeyGroups are the algorithms for host keys, in the order of preference. Those of one group belong to one sort of key,
// of which a server has one. Certificates are left out: dstack pins keys.
var hostKeyGroups = [][]string{
	{ssh.KeyAlgoED25519},
	{ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521},
	{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
}

// hostKeyAlgorithms returns the algorithms by which a server proves that it has a key of a type.
func hostKeyAlgorithms(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// hostKeyRules say which host keys a login accepts.
type hostKeyRules struct {
	address      string
	pinned       ssh.PublicKey // nil: none yet
	fingerprints []string      // if there are any, they alone count
}

// newHostKeyRules reads the pinned key and the fingerprints.
func newHostKeyRules(address, pinned string, fingerprints []string) (hostKeyRules, error) {
	rules := hostKeyRules{address: address}
	for _, fingerprint := range fingerprints {
		rules.fingerprints = append(rules.fingerprints, "SHA256:"+strings.TrimRight(strings.TrimPrefix(fingerprint, "SHA256:"), "="))
	}
	if pinned == "" {
		return rules, nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(pinned))
	if err != nil {
		return rules, hostKeyError(fmt.Sprintf("the stored host key of %s cannot be read", address), "", err)
	}
	rules.pinned = key
	return rules, nil
}

// algorithms returns the algorithms to ask for, one list for each connection that may be needed: fingerprints do not say
// which of its keys the server has to show.
func (r hostKeyRules) algorithms() [][]string {
	switch {
	case len(r.fingerprints) > 0 && r.pinned != nil && r.allows(r.pinned):
		first := hostKeyAlgorithms(r.pinned.Type())
		return append([][]string{first}, slices.DeleteFunc(slices.Clone(hostKeyGroups), func(group []string) bool {
			return slices.Contains(group, first[0]) && len(group) == len(first)
		})...)
	case len(r.fingerprints) > 0:
		return hostKeyGroups
	case r.pinned != nil:
		return [][]string{hostKeyAlgorithms(r.pinned.Type())}
	default:
		return [][]string{slices.Concat(hostKeyGroups...)}
	}
}

// allows reports whether a key is an accepted one. Without a pinned key and fingerprints, every key is.
func (r hostKeyRules) allows(key ssh.PublicKey) bool {
	if len(r.fingerprints) > 0 {
		return slices.Contains(r.fingerprints, ssh.FingerprintSHA256(key))
	}
	return r.pinned == nil || isSameKey(r.pinned, key)
}

func isSameKey(a, b ssh.PublicKey) bool { return string(a.Marshal()) == string(b.Marshal()) }

// refuse returns the error for a key that is not allowed.
func (r hostKeyRules) refuse(key ssh.PublicKey) error {
	shown := fmt.Sprintf("%s (%s)", ssh.FingerprintSHA256(key), key.Type())
	if len(r.fingerprints) > 0 {
		return hostKeyError(fmt.Sprintf("the host key of %s is %s, and none of the configured fingerprints: %s",
			r.address, shown, strings.Join(r.fingerprints, ", ")),
			"compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine itself, and correct host_key", nil)
	}
	return hostKeyError(fmt.Sprintf("THE HOST KEY OF %s HAS CHANGED: it was %s, and is %s now. Either the machine was set up "+
		"again, or something pretends to be it. dstack does not log in.", r.address, ssh.FingerprintSHA256(r.pinned), shown),
		"if the machine was set up again, compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine "+
			"itself, and write the new fingerprint as host_key of the host", nil)
}

// listOffered lists the algorithms that a server offers, within the bounds of a message. Before its host key is known,
// anything may be the server.
func listOffered(names []string) string {
	for i, name := range names {
		if !isPrintable(name) {
			names[i] = strconv.Quote(name)
		}
	}
	return cutText(strings.Join(names, ", "))
}

func isPrintable(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' })
}

// refuseTypes returns the error for a server that has no key of the types that were asked for.
func (r hostKeyRules) refuseTypes(offered []string) error {
	if r.pinned == nil || len(r.fingerprints) > 0 {
		return hostKeyError(fmt.Sprintf("%s has no host key that dstack accepts: it offers %s", r.address,
			listOffered(offered)), "let sshd there have an ed25519 key: ssh-keygen -A", nil)
	}
	return hostKeyError(fmt.Sprintf("%s has no host key of the pinned type %s any more: it offers %s. Either the machine was "+
		"set up again, or something pretends to be it. dstack does not log in.", r.address, r.pinned.Type(),
		listOffered(offered)), "if the keys were changed on purpose, give the fingerprint of the new one in the "+
		"fleet's configuration", nil)
}

func hostKeyError(message, hint string, cause error) error {
	return &dstack.Error{Kind: dstack.Forbidden, Message: message, Hint: hint,
		Cause: &stepError{step: dstack.HostStepHostKey, err: cause}}
}

// checkHostKey accepts or refuses the key that the server shows, and pins it.
func (c *Client) checkHostKey(ctx context.Context, rules hostKeyRules, key ssh.PublicKey) error {
	if !rules.allows(key) {
		return rules.refuse(key)
	}
	if rules.pinned != nil && isSameKey(rules.pinned, key) {
		return nil
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	if c.options.Pin != nil {
		if err := c.options.Pin(ctx, line); err != nil {
			return explainPin(rules.address, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hostKey = line
	return nil
}

// explainPin returns the error for a key that Pin did not store.
func explainPin(address string, err error) error {
	e, ok := errors.AsType[*dstack.Error](err)
	if !ok {
		e = &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("the host key of %s cannot be stored", address)}
	}
	return &dstack.Error{Kind: e.Kind, Message: e.Message, Hint: e.Hint,
		Cause: &stepError{step: dstack.HostStepHostKey, err: err}}
}
