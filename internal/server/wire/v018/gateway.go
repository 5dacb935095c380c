package v018

import (
	"cmp"
	"errors"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire"
	"dstack/internal/spec"
)

// CreateGateway is the body of gateways/create: a configuration, or the fields of `dstack gateway create`.
type CreateGateway struct {
	Name          *string       `json:"name"`
	BackendType   *string       `json:"backend_type"`
	Region        *string       `json:"region"`
	Configuration *spec.Gateway `json:"configuration"`
}

// DecodeCreateGateway returns the configuration of the gateway.
func DecodeCreateGateway(in CreateGateway) (spec.Gateway, error) {
	if in.Configuration != nil {
		return ReadGatewayBackend(*in.Configuration), nil
	}
	if in.BackendType == nil {
		return spec.Gateway{}, &dstack.Error{Kind: dstack.Invalid, Message: "backend_type must be specified", Hint: "send a configuration"}
	}
	fields := map[string]any{"type": "gateway", "name": in.Name, "region": in.Region, "backend": *in.BackendType}
	conf, err := spec.DecodeGateway(fields)
	if problems, ok := errors.AsType[spec.Problems](err); ok {
		return conf, &dstack.Error{Kind: dstack.Invalid, Message: problems[0].Message, Hint: problems[0].Hint, Cause: err}
	}
	return ReadGatewayBackend(conf), err
}

// ReadGatewayBackend returns a configuration of a client with the backend that it means. Clients of later versions do not know
// the backend local, and none knows external: they write remote, and the other name as the region, as answers have it.
func ReadGatewayBackend(conf spec.Gateway) spec.Gateway {
	if conf.Backend == spec.BackendSSH && (conf.Region == spec.BackendLocal || conf.Region == spec.BackendExternal) {
		conf.Backend = conf.Region
	}
	return conf
}

// Gateway is a gateway in an answer.
type Gateway struct {
	Name           string               `json:"name"`
	Configuration  GatewayConfiguration `json:"configuration"`
	CreatedAt      api.Timestamp        `json:"created_at"`
	Status         dstack.GatewayStatus `json:"status"`
	StatusMessage  *string              `json:"status_message"`
	Hostname       *string              `json:"hostname"`
	IPAddress      *string              `json:"ip_address"`
	InstanceID     *string              `json:"instance_id"`
	Backend        string               `json:"backend"`
	Region         string               `json:"region"`
	Default        bool                 `json:"default"`
	WildcardDomain *string              `json:"wildcard_domain"`
}

// GatewayConfiguration is the configuration of a gateway in an answer.
type GatewayConfiguration struct {
	Type        string       `json:"type"`
	Name        string       `json:"name"`
	Default     bool         `json:"default"`
	Backend     string       `json:"backend"`
	Region      string       `json:"region"`
	Domain      spec.Text    `json:"domain"`
	PublicIP    bool         `json:"public_ip"`
	Certificate *Certificate `json:"certificate"`
}

// Certificate is the source of certificates in an answer. Clients know only these types, and refuse a list with another.
type Certificate struct {
	Type string `json:"type"`
}

// BuildGateways returns gateways in their order.
func BuildGateways(answers []wire.GatewayAnswer) []Gateway {
	gateways := make([]Gateway, 0, len(answers))
	for _, a := range answers {
		gateways = append(gateways, BuildGateway(a))
	}
	return gateways
}

// BuildGateway returns a gateway.
func BuildGateway(a wire.GatewayAnswer) Gateway {
	g := a.Gateway
	conf := BuildGatewayConfiguration(g.Configuration)
	conf.Name = g.Name
	gateway := Gateway{Name: g.Name, Configuration: conf, CreatedAt: api.NewTimestamp(g.CreatedAt), Status: g.Status, StatusMessage: GatewayMessage(a),
		Backend: conf.Backend, Region: conf.Region, Default: g.IsDefault}
	for _, p := range a.Serving {
		if p.Address != "" {
			gateway.Hostname, gateway.IPAddress = &p.Address, &p.Address
			break
		}
	}
	if g.Domain != "" {
		gateway.WildcardDomain = &g.Domain
	}
	return gateway
}

// GatewayMessage returns why a gateway has its status, and what to do; nil: nothing is missing.
func GatewayMessage(a wire.GatewayAnswer) *string {
	message := string(a.Gateway.Reason)
	if message == "" {
		return nil
	}
	if a.Hint != "" {
		message += " (" + a.Hint + ")"
	}
	return &message
}

// BuildGatewayConfiguration returns a configuration in words that clients know.
func BuildGatewayConfiguration(conf spec.Gateway) GatewayConfiguration {
	known := GatewayConfiguration{Type: "gateway", Name: string(conf.Name), Default: conf.Default, Backend: conf.Backend, Region: conf.Region,
		Domain: conf.Domain, PublicIP: conf.PublicIP}
	if conf.Backend == spec.BackendExternal {
		known.Backend = spec.BackendSSH
	}
	known.Region = cmp.Or(known.Region, spec.TitleBackends([]string{conf.Backend})[0])
	if conf.Certificate != nil {
		known.Certificate = &Certificate{Type: spec.CertificateLetsEncrypt}
	}
	return known
}
