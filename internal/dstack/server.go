package dstack

import "time"

// ServerID identifies a server among those that share a database. It is kept in the server's folder.
type ServerID string

// MachineHost returns the host of endpoints on the machine of a server; see Endpoint.Host.
func (id ServerID) MachineHost() string { return "server/" + string(id) }

// Server is a server that shares the database with others.
type Server struct {
	ID        ServerID
	Process   string // generated at each start: a process that took over the folder has another one
	Name      string // of its machine, for people
	URL       string // at which the other servers reach it; empty: they cannot
	Version   string // of its program
	Machine   ServerMachine
	StartedAt time.Time
	SeenAt    time.Time // its last heartbeat, by the clock of the database
	IsEnded   bool      // it stopped, or was silent for ServerSilence: it holds nothing any more
}

// ServerMachine is what identifies the machine of a server.
type ServerMachine struct {
	Engines []string `json:"engines,omitempty"` // IDs of the Docker Engines that its local backends use
	BootID  string   `json:"boot_id,omitempty"` // of the machine's last boot
}

// ServerSilence is after how long without a heartbeat the other servers take over the work of a server.
const ServerSilence = 10 * time.Second
