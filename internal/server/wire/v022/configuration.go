package v022

import (
	"bytes"
	"encoding/json"
	"slices"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Configuration is the configuration of a run in a request. Clients send every field of their model, with null or an empty
// list where a file has none.
type Configuration struct {
	Service spec.Service
	refusal *dstack.Error // why it is no service; nil: it is one
	fields  fields        // normalized
	sent    json.RawMessage
}

// RequestProfile is a profile in a request.
type RequestProfile struct {
	spec.Profile
	fields fields
}

// fields are the fields of a JSON object that have a value.
type fields map[string]json.RawMessage

// otherRuns are the types of runs that are not services.
var otherRuns = []string{"task", "dev-environment"}

// defaultProfileName is the name of a profile without one.
const defaultProfileName = "default"

// UnmarshalJSON reads a service in each spelling that a file may have, and a task as far as offers for it need it. The
// error is spec.Problems.
func (c *Configuration) UnmarshalJSON(text []byte) error {
	f, ok := readFields(text)
	if !ok {
		return c.Service.UnmarshalJSON(text) // says what is wrong
	}
	f.normalizeConfiguration()
	c.fields, c.sent = f, slices.Clone(text)
	if err := f.checkDuration(); err != nil {
		return err
	}
	normal, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if kind := f.text("type"); slices.Contains(otherRuns, kind) {
		c.refusal = &dstack.Error{Kind: dstack.Unsupported, Message: "not supported yet: type " + kind,
			Hint: "this server runs services: write type: service, and the port on which it listens"}
		return nil
	}
	return c.Service.UnmarshalJSON(normal)
}

// UnmarshalJSON reads a profile. The error is spec.Problems.
func (p *RequestProfile) UnmarshalJSON(text []byte) error {
	f, ok := readFields(text)
	if !ok {
		return p.Profile.UnmarshalJSON(text) // says what is wrong
	}
	f.normalizeParams()
	if name := f.text("name"); name == "" {
		f["name"] = json.RawMessage(`"` + defaultProfileName + `"`)
	}
	p.fields = f
	if err := f.checkDuration(); err != nil {
		return err
	}
	normal, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return p.Profile.UnmarshalJSON(normal)
}

// readFields reads an object without its null fields. It returns false if the text is no object, or has a name twice.
func readFields(text []byte) (fields, bool) {
	tokens := json.NewDecoder(bytes.NewReader(text))
	if start, err := tokens.Token(); err != nil || start != json.Delim('{') {
		return nil, false
	}
	f, seen := fields{}, map[string]bool{}
	for tokens.More() {
		token, err := tokens.Token()
		name, isName := token.(string)
		var value json.RawMessage
		if err != nil || !isName || seen[name] || tokens.Decode(&value) != nil {
			return nil, false
		}
		seen[name] = true
		if string(value) != "null" {
			f[name] = value
		}
	}
	return f, true
}

// text returns the value of a field that is text, and "" otherwise.
func (f fields) text(name string) string {
	var text string
	_ = json.Unmarshal(f[name], &text) // other values are no text
	return text
}

// emptyFields are the values of fields that are as if the field was not given, where the default of our language is
// another word or the field does not exist.
var emptyFields = map[string]string{
	"repos": "[]", "files": "[]", "ports": "[]", "rate_limits": "[]", "dstack": "false", "privileged": "false",
}

// mappings are the fields whose own fields may be null.
var mappings = []string{"retry", "scaling", "model"}

func (f fields) normalizeConfiguration() {
	f.normalizeParams()
	for name, empty := range emptyFields {
		if string(f[name]) == empty {
			delete(f, name)
		}
	}
	for _, name := range []string{"probes", "rate_limits"} {
		f.normalizeItems(name)
	}
	f.normalizeGroups("groups")
	f.normalizeGroups("replicas") // as in versions before 0.21.3
	f.normalizeNestedResources()
	var gateway struct{ Project, Name string }
	if json.Unmarshal(f["gateway"], &gateway) == nil && gateway.Name != "" {
		name := gateway.Name
		if gateway.Project != "" {
			name = gateway.Project + "/" + name
		}
		f.set("gateway", name)
	}
}

func (f fields) normalizeNestedResources() {
	if resources, ok := readNested(f["resources"]); ok {
		resources.normalizeResources()
		f.set("resources", resources)
	}
}

// normalizeGroups normalizes a list of groups of replicas.
func (f fields) normalizeGroups(name string) {
	f.normalizeItems(name)
	var items []json.RawMessage
	if json.Unmarshal(f[name], &items) != nil {
		return
	}
	for i, item := range items {
		group, ok := readFields(item)
		if !ok {
			return // the configuration language says what is wrong
		}
		if scaling, ok := readFields(group["scaling"]); ok {
			group.set("scaling", scaling)
		}
		group.normalizeNestedResources()
		items[i], _ = json.Marshal(group)
	}
	f.set(name, items)
}

// normalizeParams normalizes the fields that configurations and profiles have in common.
func (f fields) normalizeParams() {
	for _, name := range mappings {
		if nested, ok := readFields(f[name]); ok {
			f.set(name, nested)
		}
	}
	var backends []string
	if json.Unmarshal(f["backends"], &backends) == nil && len(backends) > 0 {
		for i, name := range backends {
			backends[i] = decodeBackend(name)
		}
		f.set("backends", backends)
	}
}

// checkDuration refuses a max_duration of 0, which for these clients is no time at all. Our language reads it as no
// limit, as 0.18.10 does.
func (f fields) checkDuration() error {
	if string(f["max_duration"]) != "0" {
		return nil
	}
	return spec.Problems{{Path: "max_duration", Message: "a `max_duration` of 0 ends the run at once",
		Hint: "write off for no limit"}}
}

// normalizeItems removes the null fields of the mappings in a list.
func (f fields) normalizeItems(name string) {
	var items []json.RawMessage
	if json.Unmarshal(f[name], &items) != nil {
		return
	}
	for i, item := range items {
		nested, ok := readFields(item)
		if !ok {
			return // the configuration language says what is wrong
		}
		items[i], _ = json.Marshal(nested)
	}
	f.set(name, items)
}

// normalizeResources removes a GPU that asks for nothing: any number of any GPUs is the default of these clients.
func (f fields) normalizeResources() {
	gpu, ok := readFields(f["gpu"])
	if !ok {
		return
	}
	var count struct{ Min, Max *int }
	if len(gpu) == 1 && json.Unmarshal(gpu["count"], &count) == nil && count.Max == nil && (count.Min == nil || *count.Min == 0) {
		f["gpu"] = json.RawMessage("null")
	}
}

// readNested reads an object with its null fields.
func readNested(text json.RawMessage) (fields, bool) {
	var f fields
	return f, json.Unmarshal(text, &f) == nil && f != nil
}

func (f fields) set(name string, value any) {
	if text, err := json.Marshal(value); err == nil {
		f[name] = text
	}
}

// offerParams are the fields of a task that choose offers.
var offerParams = []string{"backends", "regions", "instance_types", "availability_zones", "reservation", "spot_policy",
	"max_price", "fleets", "instances", "tags", "backend_options"}

// decodeOffers returns which machines the run asks for. Params of the configuration override those of the profile.
func (r RunSpec) decodeOffers() (api.GetOffers, error) {
	params, resources := fields{"name": json.RawMessage(`"` + defaultProfileName + `"`)}, json.RawMessage("{}")
	if r.Profile != nil {
		params = r.Profile.fields
	}
	for _, name := range offerParams {
		if value, ok := r.Configuration.fields[name]; ok {
			params[name] = value
		}
	}
	if value, ok := r.Configuration.fields["resources"]; ok {
		resources = value
	}
	text, err := json.Marshal(params)
	if err != nil {
		return api.GetOffers{}, err
	}
	offers := api.GetOffers{Requirements: api.OfferRequirements{Resources: resources}}
	return offers, offers.Profile.UnmarshalJSON(text)
}

// localBackend and shownBackend are our name of the server's own machine, which the enumeration of these clients lacks, and
// the name of the list that is the most truthful in a table: `dstack (local)`.
const (
	localBackend = "local"
	shownBackend = "dstack"
)

// knownBackends are the names that clients accept.
var knownBackends = []string{
	"amddevcloud", "aws", "azure", "cloudrift", "crusoe", "cudo", "datacrunch", "daytona", "digitalocean", "dstack", "gcp",
	"hotaisle", "jarvislabs", "kubernetes", "lambda", "lium", "remote", "nebius", "oci", "runpod", "seeweb", "tensordock",
	"vastai", "verda", "vultr", "slurm",
}

// encodeBackend returns the name of a backend that clients accept.
func encodeBackend(name string) string {
	if name == "ssh" {
		return "remote"
	}
	if slices.Contains(knownBackends, name) {
		return name
	}
	return shownBackend
}

// decodeBackend returns our name of a backend.
func decodeBackend(name string) string {
	if name == shownBackend {
		return localBackend
	}
	return name
}
