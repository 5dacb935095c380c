package cli

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// serverRecord is what .dstack/servers.yml says about an entry of config.yml. It has a
// file of its own because the published client 0.18.10 takes a config.yml with a field
// that it does not know for an empty one, and then overwrites it.
type serverRecord struct {
	Name         string `yaml:"name"`
	URL          string `yaml:"url"`
	Project      string `yaml:"project,omitempty"`      // see projectConfig
	Installation string `yaml:"installation,omitempty"` // see projectConfig

	MoreURLs []string `yaml:"more_urls,omitempty"` // see projectConfig
}

const serversHeader = "# Written by dstack. It says more about the entries of config.yml; tokens are only there.\n"

// serversPath returns the path of servers.yml below a home folder.
func serversPath(home string) string { return filepath.Join(home, ".dstack", "servers.yml") }

// readServerRecords reads servers.yml. A missing or damaged file has no records: an
// entry without a record is one that the user wrote.
func readServerRecords(home string) []serverRecord {
	var file struct {
		Entries []serverRecord `yaml:"entries"`
	}
	content, err := os.ReadFile(serversPath(home))
	if err != nil || len(content) > maxConfigSize || yaml.Load(content, &file) != nil {
		return nil
	}
	return file.Entries
}

// writeServerRecords replaces servers.yml if its content changes. Without records no
// file is created.
func writeServerRecords(home string, records []serverRecord) error {
	path := serversPath(home)
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && len(records) == 0 {
		return nil
	}
	content, err := yaml.Dump(map[string]any{"entries": records})
	if err != nil {
		return err
	}
	content = append([]byte(serversHeader), content...)
	if bytes.Equal(old, content) {
		return nil
	}
	return replaceFile(path, content)
}

// addRecords completes the entries with their records. The installation of an entry, and
// its other servers, count only while the entry has the URL of the record: otherwise the user has changed
// it, and it may belong to another server.
func (c *clientConfig) addRecords(records []serverRecord) {
	for i := range c.Projects {
		entry := &c.Projects[i]
		at := slices.IndexFunc(records, func(r serverRecord) bool { return strings.EqualFold(r.Name, entry.Name) })
		if at < 0 {
			continue
		}
		entry.Project = records[at].Project
		if records[at].URL == entry.URL {
			entry.Installation, entry.MoreURLs = records[at].Installation, records[at].MoreURLs
		}
	}
}

// serverRecords returns the records of the entries that need one.
func (c *clientConfig) serverRecords() []serverRecord {
	var records []serverRecord
	for _, entry := range c.Projects {
		if entry.Project != "" || entry.Installation != "" || len(entry.MoreURLs) > 0 {
			records = append(records, serverRecord{entry.Name, entry.URL, entry.Project, entry.Installation, entry.MoreURLs})
		}
	}
	return records
}
