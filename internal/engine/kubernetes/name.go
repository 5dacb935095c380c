package kubernetes

import (
	"strconv"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
)

// Labels of everything that dstack creates for attempts. The values are those that labels may have; see AnnotationRun and the others for the
// texts themselves.
const (
	LabelInstallation = "dstack.ai/installation"
	LabelRun          = "dstack.ai/run"
	LabelReplica      = "dstack.ai/replica"  // its number
	LabelAttempt      = "dstack.ai/attempt"  // ID
	LabelInstance     = "dstack.ai/instance" // ID
	labelName         = "app.kubernetes.io/name"
	labelManagedBy    = "app.kubernetes.io/managed-by"
)

// replicaName is the value of labelName of all replicas. It is not the name of the run, which users choose: Services and policies of other
// applications in the namespace select by this label, and would take a replica for one of their pods.
const replicaName = "dstack-replica"

// Annotations of pods.
const (
	AnnotationRun     = "dstack.ai/run"
	AnnotationProject = "dstack.ai/project"
	AnnotationReplica = "dstack.ai/replica-id"
	AnnotationAttempt = "dstack.ai/attempt-id"
	AnnotationPort    = "dstack.ai/port"
	// annotationUploads says whether the pod waits for code and files; no annotation: it needs none.
	annotationUploads = "dstack.ai/uploads"
	annotationImage   = "kubectl.kubernetes.io/default-container"
)

// Values of annotationUploads.
const (
	uploadsAwaited = "awaited"
	uploadsDone    = "done"
)

// mainContainer is the container of an attempt's command.
const mainContainer = "main"

// InstallationLabel returns the value of LabelInstallation.
func InstallationLabel(i dstack.Installation) string { return kubeclient.LabelValue(string(i)) }

// podName returns the name of an attempt's pod and secrets: for people, and so that the API server refuses a second pod of
// the attempt. Runs of other projects and installations have other hashes.
func podName(installation dstack.Installation, spec dstack.AttemptSpec) string {
	return kubeclient.NewName(shorten(spec.Run), strconv.Itoa(spec.ReplicaNum), strconv.Itoa(spec.AttemptNum),
		kubeclient.HashLabel(string(installation), string(spec.Attempt))[:attemptHash])
}

const (
	attemptHash = 8
	maxRunName  = 36 // of a pod's name
)

// shorten cuts the name of a run, whose hash follows in any case.
func shorten(run string) string { return run[:min(len(run), maxRunName)] }

// newLabels returns the labels of an attempt's objects.
func newLabels(installation dstack.Installation, instance dstack.InstanceID, spec dstack.AttemptSpec) map[string]string {
	return map[string]string{
		LabelInstallation: InstallationLabel(installation),
		LabelRun:          kubeclient.LabelValue(spec.Run),
		LabelReplica:      strconv.Itoa(spec.ReplicaNum),
		LabelAttempt:      kubeclient.LabelValue(string(spec.Attempt)),
		LabelInstance:     kubeclient.LabelValue(string(instance)),
		labelName:         replicaName,
		labelManagedBy:    "dstack",
	}
}

func newAnnotations(spec dstack.AttemptSpec) map[string]string {
	return map[string]string{
		AnnotationRun: spec.Run, AnnotationProject: spec.Project, AnnotationReplica: string(spec.Replica),
		AnnotationAttempt: string(spec.Attempt), AnnotationPort: strconv.Itoa(spec.Port),
		annotationImage: mainContainer,
	}
}
