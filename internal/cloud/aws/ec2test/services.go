package ec2test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"
)

func (s *Server) answerSTS(r *request) (answer, error) {
	if r.action != "GetCallerIdentity" {
		return answer{}, fail("InvalidAction", "Could not find operation %s", r.action)
	}
	body := fmt.Sprintf(`<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
		`<Arn>arn:aws:iam::%[1]s:user/dstack</Arn><UserId>AIDAEC2TEST</UserId><Account>%[1]s</Account></GetCallerIdentityResult>`+
		`<ResponseMetadata><RequestId>00000000-0000-4000-8000-000000000575</RequestId></ResponseMetadata></GetCallerIdentityResponse>`, s.options.Account)
	return answer{contentType: "text/xml", body: []byte(xml.Header + body)}, nil
}

// jsonPage is the part of a request in JSON that all services have.
type jsonPage struct {
	MaxResults  int
	NextToken   string
	ServiceCode string
	Filters     []struct{ Type, Field, Value string }
}

func (s *Server) answerPricing(r *request) (answer, error) {
	if r.action != "GetProducts" {
		return answer{}, fail("UnknownOperationException", "%s", r.action)
	}
	var q jsonPage
	if err := json.Unmarshal(r.body, &q); err != nil || q.ServiceCode != "AmazonEC2" {
		return answer{}, fail("InvalidParameterException", "the service code %q is not known: %v", q.ServiceCode, err)
	}
	products := []string{}
	for _, name := range sortedKeys(s.regions) {
		reg := s.regions[name]
		for i := range s.options.Types {
			t := &s.options.Types[i]
			if len(reg.zonesOf(t)) == 0 {
				continue
			}
			for _, product := range priceListOf(t, name) {
				if product.matches(q) {
					products = append(products, product.text)
				}
			}
		}
	}
	from, to, next, err := s.cutPage(q.NextToken, q.MaxResults, len(products))
	if err != nil {
		return answer{}, err
	}
	return jsonAnswer(map[string]any{"FormatVersion": "aws_v1", "PriceList": products[from:to], "NextToken": next})
}

// product is one entry of the price list.
type product struct {
	attributes map[string]string
	text       string
}

func (p product) matches(q jsonPage) bool {
	for _, f := range q.Filters {
		if !strings.EqualFold(p.attributes[f.Field], f.Value) {
			return false
		}
	}
	return true
}

// priceListOf returns the price of a type with Linux, and that with Windows, which a program has to leave out.
func priceListOf(t *Type, region string) []product {
	var list []product
	for _, system := range []string{"Linux", "Windows"} {
		price := t.Price
		if system == "Windows" {
			price *= 2
		}
		attributes := map[string]string{
			"instanceType": t.Name, "regionCode": region, "operatingSystem": system, "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used",
			"vcpu": fmt.Sprint(t.VCPUs), "memory": fmt.Sprintf("%d GiB", t.MemoryMiB/1024), "marketoption": "OnDemand",
			"licenseModel": "No License required",
		}
		sku := strings.ToUpper(strings.ReplaceAll(t.Name, ".", "")) + strings.ToUpper(system[:1])
		text, _ := json.Marshal(map[string]any{ // strings and maps of strings only
			"product": map[string]any{"sku": sku, "productFamily": "Compute Instance", "attributes": attributes},
			"terms": map[string]any{"OnDemand": map[string]any{sku + ".JRTCKXETXF": map[string]any{
				"priceDimensions": map[string]any{sku + ".JRTCKXETXF.6YS6EN2CT7": map[string]any{
					"unit": "Hrs", "pricePerUnit": map[string]string{"USD": fmt.Sprintf("%.10f", price)},
				}},
			}}},
			"serviceCode": "AmazonEC2", "version": "20261120000000", "publicationDate": "2026-11-20T00:00:00Z",
		})
		list = append(list, product{attributes: attributes, text: string(text)})
	}
	return list
}

func (s *Server) answerQuotas(r *request) (answer, error) {
	if r.action != "ListServiceQuotas" {
		return answer{}, fail("UnknownOperationException", "%s", r.action)
	}
	var q jsonPage
	reg := s.regions[r.region]
	if err := json.Unmarshal(r.body, &q); err != nil || q.ServiceCode != "ec2" || reg == nil {
		return answer{}, fail("NoSuchResourceException", "the service code %q is not known in %q: %v", q.ServiceCode, r.region, err)
	}
	type quota struct {
		ServiceCode, QuotaCode, QuotaName string
		Value                             float64
		Unit                              string
	}
	quotas := []quota{}
	for _, code := range sortedKeys(reg.quotas) {
		quotas = append(quotas, quota{ServiceCode: "ec2", QuotaCode: code, QuotaName: quotaNames[code], Value: float64(reg.quotas[code]), Unit: "None"})
	}
	from, to, next, err := s.cutPage(q.NextToken, q.MaxResults, len(quotas))
	if err != nil {
		return answer{}, err
	}
	body := map[string]any{"Quotas": quotas[from:to]}
	if next != "" {
		body["NextToken"] = next
	}
	return jsonAnswer(body)
}

func jsonAnswer(body map[string]any) (answer, error) {
	if body["NextToken"] == "" {
		delete(body, "NextToken")
	}
	text, err := json.Marshal(body)
	return answer{contentType: "application/x-amz-json-1.1", body: text}, err
}
