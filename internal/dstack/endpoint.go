package dstack

// Endpoint is where a replica or a machine accepts TCP connections.
type Endpoint struct {
	// Host is the machine whose network Address belongs to, as the dialer
	// knows it. Empty: Address is reachable from this process directly.
	Host string `json:",omitempty"`
	// Address is host:port. Empty: not known yet.
	Address string
}
