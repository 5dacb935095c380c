package cloud

import (
	_ "embed"
	"fmt"
	"strings"

	"dstack/internal/backend"
	"dstack/internal/dstack"
	"dstack/internal/gpu"
)

// loginUser is the user of every rented machine that the server logs in as.
const loginUser = "dstack"

// maxScriptBytes is how long a launch description may be: EC2 allows 16 KiB of user data.
const maxScriptBytes = 16 << 10

// setupScript prepares a machine at its first boot. See newLaunchScript for its variables.
//
//go:embed setup.sh
var setupScript string

// newLaunchScript returns the shell script that a machine runs as root at its first boot. It is the same for the same machine.
func (b *Backend) newLaunchScript(r backend.CreateRequest, host dstack.RentedHost) (string, error) {
	if host.Login.PrivateKey == "" || host.HostSecret == "" {
		return "", missingKeysError(host.Instance)
	}
	authorized, err := publicKeyOf(host.Login.PrivateKey)
	if err != nil {
		return "", err
	}
	if key := strings.TrimSpace(r.SSHPublicKey); key != "" {
		authorized += "\n" + key
	}
	var script strings.Builder
	script.WriteString("#!/bin/sh\n")
	for _, v := range []struct{ name, value string }{
		{"user", host.Login.User},
		{"authorized", authorized},
		{"host_key", strings.TrimSpace(host.HostSecret)},
		{"host_key_public", host.Login.HostKey},
		{"gpus", makerOfGPUs(r.Offer.Hardware.GPUs)},
	} {
		fmt.Fprintf(&script, "%s=%s\n", v.name, quote(v.value))
	}
	script.WriteString(setupScript)
	if script.Len() > maxScriptBytes {
		return "", &dstack.Error{Kind: dstack.Internal, Message: fmt.Sprintf("the launch description has %d bytes, more than %d", script.Len(), maxScriptBytes)}
	}
	return script.String(), nil
}

// makerOfGPUs returns whose driver a machine needs; empty: none.
func makerOfGPUs(gpus []dstack.GPU) string {
	if len(gpus) == 0 {
		return ""
	}
	if gpus[0].Maker == "" {
		return gpu.Nvidia
	}
	return gpus[0].Maker
}

// quote quotes a word for a shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
