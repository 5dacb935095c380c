package gcp

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
)

// operation is a change that the API accepted. It is done when Status says so, and may have failed.
type operation struct {
	Name         string `json:"name"`
	Type         string `json:"operationType"`
	Status       string `json:"status"`
	TargetLink   string `json:"targetLink"`
	User         string `json:"user"`
	InsertTime   string `json:"insertTime"`
	EndTime      string `json:"endTime"`
	HTTPStatus   int    `json:"httpErrorStatusCode"`
	ErrorMessage string `json:"httpErrorMessage"`
	Error        *struct {
		Errors []struct {
			Code    string        `json:"code"`
			Message string        `json:"message"`
			Details []errorDetail `json:"errorDetails"`
		} `json:"errors"`
	} `json:"error"`
}

const operationFields = "name,operationType,status,targetLink,user,insertTime,endTime,httpErrorStatusCode,httpErrorMessage,error"

// The types of operations that end machines, or fail to make them.
const (
	operationInsert    = "insert"
	operationDelete    = "delete"
	operationPreempted = "compute.instances.preempted"
)

func (o operation) isDone() bool { return o.Status == "DONE" }

// failure returns why an operation failed; nil: it did not, so far.
func (o operation) failure(what string) error {
	if o.Error == nil || len(o.Error.Errors) == 0 {
		return nil
	}
	e := &apiError{what: what, status: o.HTTPStatus, message: o.Error.Errors[0].Message}
	if e.message == "" {
		e.message = o.ErrorMessage
	}
	for _, one := range o.Error.Errors {
		e.codes = append(e.codes, one.Code)
		e.addDetails(one.Details)
	}
	return e
}

// operationPlace is where an operation is found: projects/p/zones/z, projects/p/regions/r or projects/p/global.
type operationPlace string

func (p *Provider) zonePlace(zone string) operationPlace {
	return operationPlace("projects/" + p.settings.ProjectID + "/zones/" + zone)
}

func (p *Provider) regionPlace(region string) operationPlace {
	return operationPlace("projects/" + p.settings.ProjectID + "/regions/" + region)
}

// change sends a request that makes an operation, and waits for its end, but not long. The operation may not
// be done afterwards.
func (p *Provider) change(ctx context.Context, r call, at operationPlace) (operation, error) {
	var o operation
	if err := p.client.send(ctx, r, &o); err != nil {
		return o, err
	}
	return p.waitForOperation(ctx, o, at, r.what)
}

// operationWait is how long a request waits for its operation. Missing capacity and other refusals show within seconds. A
// launch that fails later is found by ListMachines.
const operationWait = 4 * time.Second

// firstLook is when an operation is looked at for the first time. The pauses after it double.
const firstLook = 250 * time.Millisecond

// waitForOperation polls an operation until it is done or the time is up.
func (p *Provider) waitForOperation(ctx context.Context, o operation, at operationPlace, what string) (operation, error) {
	until := time.Now().Add(p.wait)
	for look := p.look; !o.isDone(); look *= 2 {
		if time.Until(until) < look || pause(ctx, look) != nil {
			return o, nil
		}
		next, err := p.readOperation(ctx, o.Name, at, what)
		if err != nil {
			if ctx.Err() != nil || hasMeaning(err, meansNotFound) {
				return o, nil
			}
			return o, err
		}
		o = next
	}
	return o, o.failure(what)
}

// readOperation reads an operation.
func (p *Provider) readOperation(ctx context.Context, name string, at operationPlace, what string) (operation, error) {
	var o operation
	err := p.client.send(ctx, call{method: http.MethodGet, url: p.client.compute + string(at) + "/operations/" + name,
		query: url.Values{"fields": {operationFields}}, what: what}, &o)
	return o, err
}

// requestSpace is the name space of IDs of requests.
var requestSpace = uuid.MustParse("5f0c7a52-93b7-4d2f-9a55-0f3a2a5f6c10")

// requestID returns the ID of a request: the API carries out one of several requests with the same ID.
func requestID(parts ...string) string {
	text := ""
	for _, part := range parts {
		text += part + "\x00"
	}
	return uuid.NewSHA1(requestSpace, []byte(text)).String()
}

// errIncomplete is a listing that lacks a part.
var errIncomplete = errors.New("a zone did not answer, so the list is incomplete")
