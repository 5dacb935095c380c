package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
)

// publishedFlags are the settings of the ports on which the gateways of this process are served.
type publishedFlags struct{ host, https, http string }

func (p *publishedFlags) addTo(f *pflag.FlagSet) {
	f.StringVar(&p.host, "gateway-host", os.Getenv("DSTACK_GATEWAY_HOST"), "the address for gateways, all if not set (DSTACK_GATEWAY_HOST)")
	f.StringVar(&p.https, "https-port", "", "the `PORT` of gateways for HTTPS (DSTACK_GATEWAY_HTTPS_PORT, 443)")
	f.StringVar(&p.http, "http-port", "", "the `PORT` of gateways for HTTP (DSTACK_GATEWAY_HTTP_PORT, 80)")
}

// publishedPorts is where the gateways of this process listen.
type publishedPorts struct {
	host        string
	https, http int
}

// read returns the ports, from the flags or else from the environment.
func (p *publishedFlags) read() (publishedPorts, error) {
	ports := publishedPorts{host: p.host}
	var err error
	if ports.https, err = readGatewayPort("--https-port", p.https, "DSTACK_GATEWAY_HTTPS_PORT", 443); err != nil {
		return ports, err
	}
	if ports.http, err = readGatewayPort("--http-port", p.http, "DSTACK_GATEWAY_HTTP_PORT", 80); err != nil {
		return ports, err
	}
	if ports.https == ports.http {
		return ports, newInvalidError(fmt.Sprintf("gateways cannot use port %d for HTTPS and for HTTP", ports.http),
			"choose two ports with --https-port and --http-port")
	}
	return ports, nil
}
