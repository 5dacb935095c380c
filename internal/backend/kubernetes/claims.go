package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"dstack/internal/decide/node"
	"dstack/internal/dstack"
	enginekube "dstack/internal/engine/kubernetes"
	"dstack/internal/kubeclient"
)

// The labels and annotations of claims that dstack creates. The annotations have the texts themselves.
const (
	labelVolume       = "dstack.ai/volume" // ID
	labelManagedBy    = "app.kubernetes.io/managed-by"
	annotationVolume  = "dstack.ai/volume-name"
	annotationProject = "dstack.ai/project"
	annotationUser    = "dstack.ai/user"
)

// claimRights are what volumes need. Without them, a cluster runs services without volumes.
var claimRights = []kubeclient.Right{
	{Verb: "create", Resource: "persistentvolumeclaims", IsOptional: true, Purpose: "create volumes"},
	{Verb: "get", Resource: "persistentvolumeclaims", IsOptional: true, Purpose: "use volumes"},
	{Verb: "list", Resource: "persistentvolumeclaims", IsOptional: true, Purpose: "use volumes"},
	{Verb: "delete", Resource: "persistentvolumeclaims", IsOptional: true, Purpose: "delete volumes"},
	{Verb: "get", Resource: "persistentvolumes", IsClusterWide: true, IsOptional: true, Purpose: "know which nodes can mount a volume"},
	{Verb: "get", Group: "storage.k8s.io", Resource: "storageclasses", IsClusterWide: true, IsOptional: true, Purpose: "know when a volume gets its disk"},
	{Verb: "list", Group: "storage.k8s.io", Resource: "storageclasses", IsClusterWide: true, IsOptional: true, Purpose: "say which storage classes there are"},
}

// How long a list of the claims is used again: several volumes are looked at together. Claims that change soon are listed
// more often.
const (
	claimListAge        = 20 * time.Second
	changingClaimsAge   = time.Second
	maxNamedPods        = 3
	maxNamedStorageHint = 10
)

// claims is the volumes of one cluster.
type claims struct {
	client       *kubeclient.Client
	key          string // of the backend
	installation dstack.Installation
	nodes        func() (nodes []node.Facts, isComplete bool)
	anyNode      func() dstack.InstanceID // empty: the cluster has only the nodes that it shows

	mu       sync.Mutex
	external map[dstack.VolumeID]string            // the existing claims of volumes that were checked
	disks    map[types.UID]corev1.PersistentVolume // of bound claims, by the claim; what is read of them does not change
	listed   map[dstack.VolumeID]dstack.Volume
	listedAt time.Time
	maxAge   time.Duration
}

// claimName returns the name of the claim of a new volume: the same for each try.
func (c *claims) claimName(v dstack.Volume) string {
	return kubeclient.NewName(v.Name, kubeclient.HashLabel(string(c.installation), string(v.ID))[:8])
}

// create creates the claim of a volume, or checks an existing one.
func (c *claims) create(ctx context.Context, v dstack.Volume) error {
	if v.IsExternal {
		return c.checkExisting(ctx, v)
	}
	claim := c.newClaim(v)
	_, err := kubeclient.Create(ctx, c.client, kubeclient.Claims, claim)
	c.forgetList()
	switch meaning := kubeclient.MeaningOf(err); {
	case meaning == kubeclient.AlreadyExists:
		return c.checkOwn(ctx, v, claim.Name)
	case meaning == kubeclient.BeingDeleted:
		return &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("the claim %s of an earlier try is being deleted", claim.Name), Cause: err}
	}
	return err
}

// newClaim returns the claim of a new volume.
func (c *claims) newClaim(v dstack.Volume) *corev1.PersistentVolumeClaim {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: c.claimName(v),
			Labels: map[string]string{
				enginekube.LabelInstallation: enginekube.InstallationLabel(c.installation), labelVolume: kubeclient.LabelValue(string(v.ID)),
				labelManagedBy: "dstack",
			},
			Annotations: map[string]string{annotationVolume: v.Name, annotationProject: v.ProjectName, annotationUser: v.User, annotationVolumeID: string(v.ID)},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: kubeclient.MiB(v.SizeMiB)}},
		},
	}
	for _, mode := range v.Configuration.NewClaimModes() {
		claim.Spec.AccessModes = append(claim.Spec.AccessModes, corev1.PersistentVolumeAccessMode(mode))
	}
	if class := string(v.Configuration.StorageClass); class != "" {
		claim.Spec.StorageClassName = &class
	}
	return claim
}

// annotationVolumeID has the ID of the volume of a claim.
const annotationVolumeID = "dstack.ai/volume-id"

// checkOwn returns an error if a claim is not that of a volume.
func (c *claims) checkOwn(ctx context.Context, v dstack.Volume, name string) error {
	claim, err := kubeclient.Get(ctx, c.client, kubeclient.Claims, name)
	if err != nil {
		return err
	}
	if !c.isOf(claim, v) {
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the namespace %s has a claim %s already, which belongs to something else", c.client.Namespace(), name),
			Hint: "choose another name for the volume"}
	}
	return nil
}

// isOurs reports whether this installation created a claim.
func (c *claims) isOurs(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Labels[enginekube.LabelInstallation] == enginekube.InstallationLabel(c.installation) && claim.Labels[labelVolume] != ""
}

// isOf reports whether a claim was created for a volume.
func (c *claims) isOf(claim *corev1.PersistentVolumeClaim, v dstack.Volume) bool {
	return c.isOurs(claim) && claim.Annotations[annotationVolumeID] == string(v.ID)
}

// checkExisting returns an error if an existing claim cannot be used by a volume. Afterwards, list has it.
func (c *claims) checkExisting(ctx context.Context, v dstack.Volume) error {
	claim, err := kubeclient.Get(ctx, c.client, kubeclient.Claims, v.ExternalID)
	switch {
	case kubeclient.MeaningOf(err) == kubeclient.NotFound:
		return &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the namespace %s of the cluster %s has no claim %s", c.client.Namespace(), c.key, v.ExternalID),
			Hint: "list them: kubectl get pvc -n " + c.client.Namespace(), Cause: err}
	case err != nil:
		return err
	case claim.Labels[labelVolume] != "":
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the claim %s belongs to the volume %s of the project %s", v.ExternalID,
			claim.Annotations[annotationVolume], claim.Annotations[annotationProject]), Hint: "use that volume, or register another claim"}
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		return &dstack.Error{Kind: dstack.Unsupported, Message: fmt.Sprintf("the claim %s is a raw block device, which cannot be mounted as a folder", v.ExternalID),
			Hint: "register a claim with volumeMode: Filesystem"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.external == nil {
		c.external = map[dstack.VolumeID]string{}
	}
	if c.external[v.ID] != v.ExternalID {
		c.external[v.ID], c.listed = v.ExternalID, nil
	}
	return nil
}

// remove requests the deletion of a volume's claim, unless pods mount it. An existing claim that was registered stays.
func (c *claims) remove(ctx context.Context, v dstack.Volume) error {
	c.forgetList()
	if v.IsExternal {
		c.mu.Lock()
		delete(c.external, v.ID)
		c.mu.Unlock()
		return nil
	}
	name := v.ExternalID
	if name == "" {
		name = c.claimName(v)
	}
	claim, err := kubeclient.Get(ctx, c.client, kubeclient.Claims, name)
	if meaning := kubeclient.MeaningOf(err); meaning == kubeclient.NotFound || meaning == kubeclient.NamespaceMissing {
		return nil
	}
	if err != nil {
		return err
	}
	if !c.isOf(claim, v) || claim.DeletionTimestamp != nil {
		return nil
	}
	users, err := c.findPods(ctx, name)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		verb := map[bool]string{true: "mounts", false: "mount"}[len(users) == 1]
		return &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("%s of the namespace %s %s it", describePods(users), c.client.Namespace(), verb),
			Hint: "it is deleted when they have ended"}
	}
	err = kubeclient.Delete(ctx, c.client, kubeclient.Claims, name, kubeclient.DeleteOptions{UID: claim.UID})
	c.forgetList()
	return err
}

// findPods returns the names of the pods that mount a claim and have not ended.
func (c *claims) findPods(ctx context.Context, claim string) (names []string, err error) {
	pods, err := kubeclient.List(ctx, c.client, kubeclient.Pods, kubeclient.Selection{Fields: "status.phase!=Succeeded,status.phase!=Failed"})
	for _, p := range pods {
		if slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
		}) {
			names = append(names, p.Name)
		}
	}
	return names, err
}

func describePods(names []string) string {
	if len(names) == 1 {
		return "the pod " + names[0]
	}
	text := "the pods " + strings.Join(names[:min(len(names), maxNamedPods)], ", ")
	if more := len(names) - maxNamedPods; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// forgetList makes the next list ask the API server.
func (c *claims) forgetList() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listed = nil
}

// list returns the volumes of the installation, and the existing claims that were checked.
func (c *claims) list(ctx context.Context) (map[dstack.VolumeID]dstack.Volume, error) {
	c.mu.Lock()
	if c.listed != nil && time.Since(c.listedAt) < c.maxAge {
		defer c.mu.Unlock()
		return c.listed, nil
	}
	external := make(map[dstack.VolumeID]string, len(c.external))
	for id, name := range c.external {
		external[id] = name
	}
	c.mu.Unlock()
	begin := time.Now()
	found, err := kubeclient.List(ctx, c.client, kubeclient.Claims, kubeclient.Selection{
		Labels: enginekube.LabelInstallation + "=" + enginekube.InstallationLabel(c.installation) + "," + labelVolume,
	})
	if err != nil {
		return nil, err
	}
	look := &claimLook{claims: c, ctx: ctx, classes: map[string]*storagev1.StorageClass{}}
	listed := map[dstack.VolumeID]dstack.Volume{}
	for _, claim := range found {
		v := dstack.Volume{ID: dstack.VolumeID(claim.Annotations[annotationVolumeID]), Name: claim.Annotations[annotationVolume]}
		if listed[v.ID], err = look.read(v, claim); err != nil {
			return nil, err
		}
	}
	for id, name := range external {
		claim, err := kubeclient.Get(ctx, c.client, kubeclient.Claims, name)
		if kubeclient.MeaningOf(err) == kubeclient.NotFound {
			continue
		}
		if err == nil {
			listed[id], err = look.read(dstack.Volume{ID: id, IsExternal: true}, claim)
		}
		if err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listed, c.listedAt, c.maxAge = listed, begin, claimListAge
	if look.isChanging {
		c.maxAge = changingClaimsAge
	}
	return listed, nil
}
