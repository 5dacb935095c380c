package kubeclient

import (
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// Resource is a kind of object of the API, whose Go type is T.
type Resource[T any] struct {
	Group, Version string
	Plural         string // in paths: pods
	Kind           string // in objects: Pod
	Word           string // in messages: pod
	IsClusterWide  bool   // its objects are outside of namespaces
}

// The resources that dstack uses. Those without a Go type of their own are optional parts of a cluster.
var (
	Pods              = Resource[corev1.Pod]{Version: "v1", Plural: "pods", Kind: "Pod", Word: "pod"}
	Secrets           = Resource[corev1.Secret]{Version: "v1", Plural: "secrets", Kind: "Secret", Word: "secret"}
	ConfigMaps        = Resource[corev1.ConfigMap]{Version: "v1", Plural: "configmaps", Kind: "ConfigMap", Word: "config map"}
	Services          = Resource[corev1.Service]{Version: "v1", Plural: "services", Kind: "Service", Word: "service"}
	Events            = Resource[corev1.Event]{Version: "v1", Plural: "events", Kind: "Event", Word: "event"}
	Quotas            = Resource[corev1.ResourceQuota]{Version: "v1", Plural: "resourcequotas", Kind: "ResourceQuota", Word: "quota"}
	Claims            = Resource[corev1.PersistentVolumeClaim]{Version: "v1", Plural: "persistentvolumeclaims", Kind: "PersistentVolumeClaim", Word: "claim"}
	ServiceAccounts   = Resource[corev1.ServiceAccount]{Version: "v1", Plural: "serviceaccounts", Kind: "ServiceAccount", Word: "service account"}
	Nodes             = Resource[corev1.Node]{Version: "v1", Plural: "nodes", Kind: "Node", Word: "node", IsClusterWide: true}
	Namespaces        = Resource[corev1.Namespace]{Version: "v1", Plural: "namespaces", Kind: "Namespace", Word: "namespace", IsClusterWide: true}
	PersistentVolumes = Resource[corev1.PersistentVolume]{Version: "v1", Plural: "persistentvolumes", Kind: "PersistentVolume", Word: "persistent volume", IsClusterWide: true}

	Deployments    = Resource[appsv1.Deployment]{Group: "apps", Version: "v1", Plural: "deployments", Kind: "Deployment", Word: "deployment"}
	StatefulSets   = Resource[appsv1.StatefulSet]{Group: "apps", Version: "v1", Plural: "statefulsets", Kind: "StatefulSet", Word: "stateful set"}
	Budgets        = Resource[policyv1.PodDisruptionBudget]{Group: "policy", Version: "v1", Plural: "poddisruptionbudgets", Kind: "PodDisruptionBudget", Word: "disruption budget"}
	EndpointSlices = Resource[discoveryv1.EndpointSlice]{Group: "discovery.k8s.io", Version: "v1", Plural: "endpointslices", Kind: "EndpointSlice", Word: "endpoint slice"}

	ResourceClaims         = Resource[resourcev1.ResourceClaim]{Group: "resource.k8s.io", Version: "v1", Plural: "resourceclaims", Kind: "ResourceClaim", Word: "device claim"}
	ResourceClaimTemplates = Resource[resourcev1.ResourceClaimTemplate]{Group: "resource.k8s.io", Version: "v1", Plural: "resourceclaimtemplates", Kind: "ResourceClaimTemplate", Word: "device claim template"}
	ResourceSlices         = Resource[resourcev1.ResourceSlice]{Group: "resource.k8s.io", Version: "v1", Plural: "resourceslices", Kind: "ResourceSlice", Word: "resource slice", IsClusterWide: true}
	DeviceClasses          = Resource[resourcev1.DeviceClass]{Group: "resource.k8s.io", Version: "v1", Plural: "deviceclasses", Kind: "DeviceClass", Word: "device class", IsClusterWide: true}

	StorageClasses  = Resource[storagev1.StorageClass]{Group: "storage.k8s.io", Version: "v1", Plural: "storageclasses", Kind: "StorageClass", Word: "storage class", IsClusterWide: true}
	PriorityClasses = Resource[schedulingv1.PriorityClass]{Group: "scheduling.k8s.io", Version: "v1", Plural: "priorityclasses", Kind: "PriorityClass", Word: "priority class", IsClusterWide: true}

	Roles               = Resource[rbacv1.Role]{Group: "rbac.authorization.k8s.io", Version: "v1", Plural: "roles", Kind: "Role", Word: "role"}
	RoleBindings        = Resource[rbacv1.RoleBinding]{Group: "rbac.authorization.k8s.io", Version: "v1", Plural: "rolebindings", Kind: "RoleBinding", Word: "role binding"}
	ClusterRoles        = Resource[rbacv1.ClusterRole]{Group: "rbac.authorization.k8s.io", Version: "v1", Plural: "clusterroles", Kind: "ClusterRole", Word: "cluster role", IsClusterWide: true}
	ClusterRoleBindings = Resource[rbacv1.ClusterRoleBinding]{Group: "rbac.authorization.k8s.io", Version: "v1", Plural: "clusterrolebindings", Kind: "ClusterRoleBinding", Word: "cluster role binding", IsClusterWide: true}

	accessReviews = Resource[authorizationv1.SelfSubjectAccessReview]{Group: "authorization.k8s.io", Version: "v1", Plural: "selfsubjectaccessreviews", Kind: "SelfSubjectAccessReview", Word: "question for a right", IsClusterWide: true}

	HTTPRoutes = Resource[unstructured.Unstructured]{Group: "gateway.networking.k8s.io", Version: "v1", Plural: "httproutes", Kind: "HTTPRoute", Word: "HTTP route"}
	Gateways   = Resource[unstructured.Unstructured]{Group: "gateway.networking.k8s.io", Version: "v1", Plural: "gateways", Kind: "Gateway", Word: "gateway"}
	NodePools  = Resource[unstructured.Unstructured]{Group: "karpenter.sh", Version: "v1", Plural: "nodepools", Kind: "NodePool", Word: "node pool", IsClusterWide: true}
)

// client returns the dynamic client of the resource, in the client's namespace if it has namespaces.
func (r Resource[T]) client(c *Client) dynamic.ResourceInterface {
	all := c.dynamic.Resource(schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Plural})
	if r.IsClusterWide {
		return all
	}
	return all.Namespace(c.namespace)
}

// encode returns an object as the API reads it. It leaves out the status, which Create and Apply do not write.
func (r Resource[T]) encode(object *T) (*unstructured.Unstructured, error) {
	if u, ok := any(object).(*unstructured.Unstructured); ok {
		return u.DeepCopy(), nil
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, err
	}
	delete(fields, "status")
	u := &unstructured.Unstructured{Object: fields}
	u.SetAPIVersion(schema.GroupVersion{Group: r.Group, Version: r.Version}.String())
	u.SetKind(r.Kind)
	return u, nil
}

// decode returns an object of the API as its Go type, without the record of who wrote which field.
func (r Resource[T]) decode(u *unstructured.Unstructured) (*T, error) {
	u.SetManagedFields(nil)
	object := new(T)
	if target, ok := any(object).(*unstructured.Unstructured); ok {
		target.Object = u.Object
		return object, nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, object); err != nil {
		return nil, err
	}
	return object, nil
}

// metadata returns the metadata of an object.
func metadata[T any](object *T) metav1.Object { return any(object).(metav1.Object) }
