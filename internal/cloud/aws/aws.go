// Package aws rents machines of Amazon EC2.
package aws

import (
	"net/http"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// The tags that say what an object is for. Only objects with the tag of the own installation are ever touched.
const (
	tagInstallation = "dstack-installation"
	tagInstance     = "dstack-instance"
	tagVolume       = "dstack-volume"
)

// Provider rents machines in one account. It is a cloud.Provider with Disks, PriceList, Availability and Leftovers.
type Provider struct {
	settings     Settings
	installation dstack.Installation
	credentials  *credentials
	http         *awshttp.BuildableClient
	pauses       pauses
	quiet        quietRegions // for machines
	quietDisks   quietRegions

	regions  memo[[]string]      // what DescribeRegions says; one key
	networks memo[network]       // by region
	images   memo[image]         // by region and what it is for
	groups   memo[string]        // IDs of security groups, by region, network and name
	clusters memo[struct{}]      // placement groups that exist, by region and name
	offered  memo[zonesByType]   // by region
	products memo[[]regionPrice] // on-demand prices, by region
}

var (
	_ cloud.Provider     = (*Provider)(nil)
	_ cloud.Disks        = (*Provider)(nil)
	_ cloud.DiskTypes    = (*Provider)(nil)
	_ cloud.PriceList    = (*Provider)(nil)
	_ cloud.Availability = (*Provider)(nil)
	_ cloud.Leftovers    = (*Provider)(nil)
)

const (
	headerWait       = 20 * time.Second // how long an answer may take to begin
	idleConnsPerHost = 64               // hundreds of machines may be requested at once
)

// Open returns the provider of an account. It asks nobody: see CheckAccess.
func Open(s Settings, installation dstack.Installation) *Provider {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.ResponseHeaderTimeout = headerWait
		t.MaxIdleConnsPerHost = idleConnsPerHost
	})
	return &Provider{
		settings:     s,
		installation: installation,
		credentials:  newCredentials(s.Credentials),
		http:         client,
	}
}

// Close closes the connections that are not in use.
func (p *Provider) Close() { p.http.GetTransport().CloseIdleConnections() }

// client returns a client for a region. It is made for each call: as part of Provider, which is used as an interface, its
// type would keep all 830 actions of EC2 in the program, 30 MB. Connections are those of p.http.
func (p *Provider) client(region string) *ec2.Client {
	return ec2.New(ec2.Options{
		Region:       region,
		Credentials:  p.credentials,
		HTTPClient:   limitedClient{p.http},
		BaseEndpoint: p.endpoint(),
		Retryer:      newRetryer(),
	})
}

// maxXMLAnswer is how many bytes of an answer are read: the SDK has no limit. A page of a listing has few megabytes.
const maxXMLAnswer = 64 << 20

// limitedClient fails in answers that are too long.
type limitedClient struct{ next ec2.HTTPClient }

// Do implements ec2.HTTPClient.
func (c limitedClient) Do(r *http.Request) (*http.Response, error) {
	answer, err := c.next.Do(r)
	if err == nil {
		answer.Body = http.MaxBytesReader(nil, answer.Body, maxXMLAnswer)
	}
	return answer, err
}

// endpoint returns the endpoint that replaces those of Amazon, or nil.
func (p *Provider) endpoint() *string {
	if p.settings.Endpoint == "" {
		return nil
	}
	return sdk.String(p.settings.Endpoint)
}
