package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// A volume is a folder below Options.VolumesDir, with the volume's ID as its name:
//
//	volume.json  volumeRecord
//	data/        what attempts see
//
// Attempts see it through a link at the path of the mount in their working folder.

var _ engine.Volumes = (*Engine)(nil)

// volumeRecord describes a volume. Its format must stay readable.
type volumeRecord struct {
	ID      dstack.VolumeID
	Name    string
	Project string
}

// sizeWarning says that a folder has no limit.
const sizeWarning = "its size is not enforced: it is a plain folder, which may grow until the disk is full"

// volumePath returns the folder of a volume, or "" if the ID cannot be the name of one.
func (e *Engine) volumePath(id string) string {
	if e.opts.VolumesDir == "" || !isValidID(dstack.AttemptID(id)) {
		return ""
	}
	return filepath.Join(e.opts.VolumesDir, id)
}

// CreateVolume implements engine.Volumes.
func (e *Engine) CreateVolume(_ context.Context, v dstack.Volume) (dstack.Volume, error) {
	if v.IsExternal {
		return v, checkFolder(v.ExternalID)
	}
	dir := e.volumePath(string(v.ID))
	if dir == "" {
		return v, &dstack.Error{Kind: dstack.Unsupported, Message: "this engine keeps no volumes", Hint: "install Docker"}
	}
	record, err := json.Marshal(volumeRecord{ID: v.ID, Name: v.Name, Project: v.ProjectName})
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "data"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "volume.json"), record, 0o600)
	}
	if err != nil {
		return v, &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("cannot create the folder of the volume %s: %s", v.Name, err),
			Hint: "see that the server's folder is writable", Cause: err}
	}
	if v.ExternalID = string(v.ID); v.SizeMiB > 0 {
		v.SizeMiB, v.Warning = 0, sizeWarning
	}
	return v, nil
}

func checkFolder(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no folder %s on the machine", path), Cause: err,
			Hint: "create it there, or correct volume_id"}
	case err != nil:
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("the folder %s cannot be read: %s", path, err), Cause: err,
			Hint: "give the user of the server access to it, or correct volume_id"}
	case !info.IsDir():
		return &dstack.Error{Kind: dstack.Invalid, Message: path + " is not a folder", Hint: "correct volume_id"}
	}
	return nil
}

// DeleteVolume implements engine.Volumes.
func (e *Engine) DeleteVolume(_ context.Context, v dstack.Volume) error {
	dir := e.volumePath(string(v.ID))
	if v.IsExternal || dir == "" {
		return nil
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	using, err := e.findMounting(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	if using != "" {
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the attempt %s still has the volume %s", using, v.Name),
			Hint: "it is deleted when the attempt is gone"}
	}
	gone := filepath.Join(e.opts.VolumesDir, ".gone-"+string(v.ID)) // at once: an interrupted deletion leaves no half of a volume
	if err := os.Rename(dir, gone); err != nil {
		return err
	}
	return folder(gone).removeAll()
}

// ListVolumes implements engine.Volumes.
func (e *Engine) ListVolumes(context.Context) (map[dstack.VolumeID]dstack.Volume, error) {
	found := map[dstack.VolumeID]dstack.Volume{}
	if e.opts.VolumesDir == "" {
		return found, nil
	}
	entries, err := os.ReadDir(e.opts.VolumesDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range entries {
		dir := e.volumePath(entry.Name())
		if dir == "" {
			continue
		}
		var record volumeRecord
		if ok, err := folder(dir).readJSON("volume.json", &record); err != nil || !ok || string(record.ID) != entry.Name() {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, "data")); err != nil || !info.IsDir() {
			continue
		}
		found[record.ID] = dstack.Volume{ID: record.ID, Name: record.Name, ProjectName: record.Project, ExternalID: entry.Name()}
	}
	return found, nil
}

// findMounting returns an attempt that has a link to the folder of a volume and has not ended; "": there is none.
func (e *Engine) findMounting(target string) (dstack.AttemptID, error) {
	entries, err := os.ReadDir(e.opts.Dir)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		dir := folder(filepath.Join(e.opts.Dir, entry.Name()))
		var mounted mountRecord
		if ok, err := dir.readJSON(mountsFile, &mounted); err != nil || !ok || dir.isOver() {
			continue
		}
		if slices.Contains(mounted.Volumes, target) {
			return dstack.AttemptID(entry.Name()), nil
		}
	}
	return "", nil
}
