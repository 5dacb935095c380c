package gcp

import (
	"encoding/json"
	"strconv"
	"time"
)

// The objects of the API, with the fields that are used.

type instance struct {
	Name              string             `json:"name"`
	ID                string             `json:"id,omitempty"`
	Description       string             `json:"description,omitempty"`
	Zone              string             `json:"zone,omitempty"`
	Status            string             `json:"status,omitempty"`
	MachineType       string             `json:"machineType,omitempty"`
	CreationTimestamp string             `json:"creationTimestamp,omitempty"`
	Labels            map[string]string  `json:"labels,omitempty"`
	Tags              *networkTags       `json:"tags,omitempty"`
	Disks             []attachedDisk     `json:"disks,omitempty"`
	Interfaces        []networkInterface `json:"networkInterfaces,omitempty"`
	Accelerators      []accelerator      `json:"guestAccelerators,omitempty"`
	Scheduling        *scheduling        `json:"scheduling,omitempty"`
	Metadata          *metadata          `json:"metadata,omitempty"`
	ServiceAccounts   []serviceAccount   `json:"serviceAccounts,omitempty"`
	ResourcePolicies  []string           `json:"resourcePolicies,omitempty"`
}

// instanceFields are the fields of instances that listings ask for: the script of the first boot is not among them.
const instanceFields = "name,id,zone,status,machineType,creationTimestamp,labels,scheduling(provisioningModel)," +
	"networkInterfaces(networkIP,accessConfigs(natIP)),disks(source,deviceName,boot),resourcePolicies"

type networkTags struct {
	Items []string `json:"items"`
}

type attachedDisk struct {
	Boot       bool        `json:"boot,omitempty"`
	AutoDelete bool        `json:"autoDelete"`
	Source     string      `json:"source,omitempty"`
	DeviceName string      `json:"deviceName,omitempty"`
	Mode       string      `json:"mode,omitempty"`
	Parameters *diskParams `json:"initializeParams,omitempty"`
}

type diskParams struct {
	SourceImage string            `json:"sourceImage"`
	DiskName    string            `json:"diskName,omitempty"`
	DiskSizeGB  string            `json:"diskSizeGb,omitempty"`
	DiskType    string            `json:"diskType,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
}

type networkInterface struct {
	Subnetwork    string         `json:"subnetwork,omitempty"`
	NetworkIP     string         `json:"networkIP,omitempty"`
	AccessConfigs []accessConfig `json:"accessConfigs,omitempty"`
}

type accessConfig struct {
	Name  string `json:"name,omitempty"`
	Type  string `json:"type,omitempty"`
	NatIP string `json:"natIP,omitempty"`
}

type accelerator struct {
	Type  string `json:"acceleratorType"`
	Count int    `json:"acceleratorCount"`
}

type scheduling struct {
	ProvisioningModel string `json:"provisioningModel,omitempty"`
	TerminationAction string `json:"instanceTerminationAction,omitempty"`
	OnHostMaintenance string `json:"onHostMaintenance,omitempty"`
	AutomaticRestart  *bool  `json:"automaticRestart,omitempty"`
}

type metadata struct {
	Items []metadataItem `json:"items"`
}

type metadataItem struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type serviceAccount struct {
	Email  string   `json:"email"`
	Scopes []string `json:"scopes"`
}

type disk struct {
	Name              string            `json:"name"`
	Description       string            `json:"description,omitempty"`
	Zone              string            `json:"zone,omitempty"`
	Status            string            `json:"status,omitempty"`
	SizeGB            string            `json:"sizeGb,omitempty"`
	Type              string            `json:"type,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Users             []string          `json:"users,omitempty"`
	CreationTimestamp string            `json:"creationTimestamp,omitempty"`
}

const diskFields = "name,zone,status,sizeGb,type,labels,users,creationTimestamp"

type firewall struct {
	Name         string         `json:"name"`
	Description  string         `json:"description,omitempty"`
	Network      string         `json:"network"`
	Direction    string         `json:"direction,omitempty"`
	Allowed      []allowedPorts `json:"allowed,omitempty"`
	SourceRanges []string       `json:"sourceRanges,omitempty"`
	SourceTags   []string       `json:"sourceTags,omitempty"`
	TargetTags   []string       `json:"targetTags,omitempty"`
	CreatedAt    string         `json:"creationTimestamp,omitempty"`
}

type allowedPorts struct {
	Protocol string   `json:"IPProtocol"`
	Ports    []string `json:"ports,omitempty"`
}

type resourcePolicy struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Region      string          `json:"region,omitempty"`
	CreatedAt   string          `json:"creationTimestamp,omitempty"`
	Placement   *groupPlacement `json:"groupPlacementPolicy,omitempty"`
}

type groupPlacement struct {
	Collocation string `json:"collocation"`
}

type subnetwork struct {
	Name    string `json:"name"`
	Network string `json:"network"`
	Region  string `json:"region"`
	Purpose string `json:"purpose"`
}

type router struct {
	Network string            `json:"network"`
	Region  string            `json:"region"`
	NATs    []json.RawMessage `json:"nats"`
}

type zone struct {
	Name   string `json:"name"`
	Status string `json:"status"`
}

type quota struct {
	Metric string  `json:"metric"`
	Limit  float64 `json:"limit"`
}

type machineType struct {
	Name         string `json:"name"`
	CPUs         int    `json:"guestCpus"`
	MemoryMiB    int64  `json:"memoryMb"`
	IsShared     bool   `json:"isSharedCpu"`
	Architecture string `json:"architecture"`
	Accelerators []struct {
		Type  string `json:"guestAcceleratorType"`
		Count int    `json:"guestAcceleratorCount"`
	} `json:"accelerators"`
	Deprecated *struct {
		State string `json:"state"`
	} `json:"deprecated"`
}

type acceleratorType struct {
	Name     string `json:"name"`
	MaxCards int    `json:"maximumCardsPerInstance"`
}

// parseTime reads a timestamp of the API; zero: there is none.
func parseTime(text string) time.Time {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return at
}

// formatGiB returns a size in whole gigabytes, rounded up, as the API writes numbers of 64 bits.
func formatGiB(mib int64) string { return strconv.FormatInt((mib+1023)/1024, 10) }
