package aws

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// jsonService is an API of Amazon with JSON. The SDK has a package for each, which this program does not need for one
// action.
type jsonService struct {
	name   string // in signatures
	host   string // with %s for the region
	target string // what the names of actions begin with
}

var (
	priceLists    = jsonService{"pricing", "https://api.pricing.%s.amazonaws.com", "AWSPriceListService"}
	serviceQuotas = jsonService{"servicequotas", "https://servicequotas.%s.amazonaws.com", "ServiceQuotasV20190624"}
)

const maxJSONAnswer = 32 << 20 // bytes of one page

// callJSON calls an action of a service in a region, which changes nothing.
func (p *Provider) callJSON(ctx context.Context, s jsonService, region, action string, in, out any) error {
	if err := checkRegionName(region); err != nil {
		return err
	}
	c := call{action: s.name + ":" + action, region: region, limit: readLimit}
	key := c.region + " " + c.action
	if left := p.pauses.left(key); left > 0 {
		return throttled(c, left, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	err := p.sendJSON(ctx, s, region, action, in, out)
	if err == nil {
		p.pauses.end(key)
		return nil
	}
	if code := codeOf(err); code != "" && meaningOf(code) == meansThrottled {
		return throttled(c, p.pauses.begin(key, retryAfter(err)), err)
	}
	return explain(c, err)
}

func (p *Provider) sendJSON(ctx context.Context, s jsonService, region, action string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	host := cmp.Or(p.settings.Endpoint, fmt.Sprintf(s.host, region))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, host+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", s.target+"."+action)
	found, err := p.credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, found, request, hex.EncodeToString(sum[:]), s.name, region, time.Now()); err != nil {
		return err
	}
	answer, err := p.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxJSONAnswer+1))
	switch {
	case err != nil:
		return err
	case len(content) > maxJSONAnswer:
		return fmt.Errorf("the answer of %s has more than %d bytes", s.name, maxJSONAnswer)
	case answer.StatusCode != http.StatusOK:
		return jsonFailure(answer, content)
	}
	if err := json.Unmarshal(content, out); err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	return nil
}

// jsonFailure returns the error of an answer.
func jsonFailure(answer *http.Response, content []byte) error {
	var said struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
		Code    string `json:"code"`
	}
	_ = json.Unmarshal(content, &said) // an answer that is not JSON has no code
	code := cmp.Or(said.Type, said.Code, fmt.Sprintf("HTTP %d", answer.StatusCode))
	failure := &smithy.GenericAPIError{Code: code, Message: said.Message}
	return &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: answer}, Err: failure}
}
