package certificate

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/libdns/libdns"
)

// recordSets is the API of a provider that changes all TXT records of a name at once.
type recordSets interface {
	// changeSets changes the values of each record's name: edit returns the new values for the present ones and the
	// value of the record. The caller holds changingSets.
	changeSets(ctx context.Context, zone string, records []libdns.Record, edit editValues) error
}

// editValues returns the values of a set with a value, or without it. It does not modify values.
type editValues func(values []string, value string) []string

// changingSets is held while a set of records is read and changed: the orders of one process write the same set.
var changingSets sync.Mutex

// recordSetProvider adds and removes single records at a provider of record sets.
type recordSetProvider struct{ recordSets }

// AppendRecords implements libdns.RecordAppender.
func (p recordSetProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.change(ctx, zone, records, addValue)
}

// DeleteRecords implements libdns.RecordDeleter.
func (p recordSetProvider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.change(ctx, zone, records, removeValue)
}

func (p recordSetProvider) change(ctx context.Context, zone string, records []libdns.Record, edit editValues) error {
	changingSets.Lock()
	defer changingSets.Unlock()
	return p.changeSets(ctx, zone, records, edit)
}

func addValue(values []string, value string) []string {
	if slices.Contains(values, value) {
		return values
	}
	return append(slices.Clone(values), value)
}

func removeValue(values []string, value string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == value })
}

// maxAnswer limits the answers of providers.
const maxAnswer = 1 << 20

// readAnswer sends a request to the API of a provider, and returns the body of its answer. explain makes an error of an
// answer without success.
func readAnswer(client *http.Client, request *http.Request, explain func(status int, text []byte) error) ([]byte, error) {
	answer, err := client.Do(request)
	if err != nil {
		return nil, errors.New(rootCause(err))
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode/100 != 2 {
		return nil, explain(answer.StatusCode, text)
	}
	return text, nil
}
