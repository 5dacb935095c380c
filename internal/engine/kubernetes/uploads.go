package kubernetes

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// uploads are the code and the files of an attempt, and the container that gets them. The container of the command gets them
// itself before it begins, if it has a command to put off. Otherwise an init container gets them in a volume, whose folders
// and files the container of the command sees at their paths.
type uploads struct {
	items     []upload // in this order
	container string   // empty: there are none
	folder    string   // of the container, in which the paths are; empty: its root
	image     string   // of the init container
	hasImage  bool     // the container's files are those of the attempt's image
}

// upload is the code, or one file or folder.
type upload struct {
	path       string // absolute, or relative to the working folder of the image
	file       *dstack.FileArchive
	isRepo     bool // the code has a path of its own, which has to be empty
	keepsFiles bool // the code is left out if its path is not empty
}

// Names of what carries uploads.
const (
	uploadContainer = "upload"
	uploadVolume    = "uploads"
	stageFolder     = "/.dstack-uploads"
	stateFolder     = "/.dstack"
)

// waitScript waits for the uploads, and then replaces itself by the command. Its files tell how far the pod is.
const waitScript = `mkdir -p ` + stateFolder + `; : > ` + stateFolder + `/waits
while [ ! -e ` + stateFolder + `/go ]; do sleep 0.05 2>/dev/null || sleep 1; done
`

// planUploads returns what is uploaded to an attempt. The error is of kind Invalid or Unsupported.
func planUploads(spec dstack.AttemptSpec, initImage string) (uploads, error) {
	workingDir := ""
	if spec.WorkingDir != "" {
		dir, err := engine.ResolveContainerDir(spec)
		if err != nil {
			return uploads{}, err
		}
		workingDir = dir
	}
	var up uploads
	if spec.HasCode() && (spec.WorkingDir != "" || spec.CodePath != "") {
		code := upload{path: engine.CodeFolder, isRepo: spec.CodePath != "", keepsFiles: spec.KeepsCodePath}
		if code.isRepo {
			code.path = spec.CodePath
		}
		up.items = append(up.items, code)
	}
	for i := range spec.Files {
		up.items = append(up.items, upload{path: spec.Files[i].Path, file: &spec.Files[i]})
	}
	if len(up.items) == 0 {
		return up, nil
	}
	up.container, up.image, up.hasImage = mainContainer, spec.Image, initImage == ""
	if len(spec.Argv) == 0 || initImage != "" {
		up.container, up.folder = uploadContainer, stageFolder
		if initImage != "" {
			up.image = initImage
		}
	}
	for i, item := range up.items {
		if workingDir == "" && !path.IsAbs(item.path) && !dstack.IsInHome(item.path) {
			if up.folder != "" {
				return uploads{}, newRelativePathError(item.path)
			}
			continue
		}
		target, err := engine.ResolveTarget(spec, workingDir, item.path)
		if err != nil {
			return uploads{}, err
		}
		up.items[i].path = target
	}
	return up, nil
}

func newRelativePathError(name string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("a pod cannot be given %q: only its image says to which folder the path is relative", name),
		Hint: "write an absolute path, or set working_dir"}
}

// addTo makes a pod wait for its uploads.
func (u uploads) addTo(pod *corev1.Pod, main *corev1.Container) {
	if u.container == "" {
		return
	}
	pod.Annotations[annotationUploads] = uploadsAwaited
	if u.folder == "" {
		main.Command = append([]string{"/bin/sh", "-c", escape(waitScript + `cd "$PWD"; exec "$@"`), "sh"}, main.Command...)
		return
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: uploadVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	stage := corev1.VolumeMount{Name: uploadVolume, MountPath: u.folder}
	pod.Spec.InitContainers = []corev1.Container{{
		Name: uploadContainer, Image: u.image, Command: []string{"/bin/sh", "-c", escape(waitScript)},
		VolumeMounts: []corev1.VolumeMount{stage}, Resources: main.Resources, SecurityContext: main.SecurityContext,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}}
	pod.Spec.InitContainers[0].Resources.Claims = nil
	for _, target := range u.roots() {
		main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: uploadVolume, MountPath: target, SubPath: target[1:]})
	}
}

// roots returns the paths that are not below another one, sorted: each is mounted.
func (u uploads) roots() []string {
	var all []string
	for _, item := range u.items {
		all = append(all, item.path)
	}
	slices.Sort(all)
	var roots []string
	for _, p := range all {
		if !slices.ContainsFunc(roots, func(root string) bool { return p == root || strings.HasPrefix(p, root+"/") }) {
			roots = append(roots, p)
		}
	}
	return roots
}

// escape doubles each $ of a script.
func escape(text string) string { return escapeAll([]string{text})[0] }

// withoutUploads removes the uploads, for a cluster that has nothing to read them from.
func (m *manifest) withoutUploads() {
	delete(m.pod.Annotations, annotationUploads)
	m.uploads = uploads{}
}
