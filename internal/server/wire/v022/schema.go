package v022

import "dstack/internal/server/wire"

// RequestSchema returns the schema of a configuration: its type, and whatever a file may have besides. Fields may be null.
func (Configuration) RequestSchema() wire.Schema {
	return wire.Schema{"type": "object", "required": []string{"type"},
		"description": "A configuration, as in a file. A field that is null is as if it was not given.",
		"properties":  wire.Schema{"type": wire.Schema{"enum": []string{"service", "task", "dev-environment"}}}}
}

// RequestSchema returns the schema of a profile. Fields may be null.
func (RequestProfile) RequestSchema() wire.Schema {
	return wire.Schema{"type": "object", "description": "A profile, as in a file. A field that is null is as if it was not given."}
}
