package kubeclient

import (
	"context"
	"encoding/json"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Selection chooses objects. The zero value chooses all.
type Selection struct {
	Labels string // a label selector: dstack.ai/installation=4f1c
	Fields string // a field selector: involvedObject.name=web
}

// maxPage is how many objects one page of a list has.
const maxPage = 500

// Get returns an object. The error of an object that does not exist is of kind NotFound.
func Get[T any](ctx context.Context, c *Client, r Resource[T], name string) (*T, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	u, err := r.client(c).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, c.newError(err, request{verb: "read", word: r.Word, name: name})
	}
	object, err := r.decode(u)
	return object, c.newError(err, request{verb: "read", word: r.Word, name: name})
}

// List returns the chosen objects, in the order of the API server.
func List[T any](ctx context.Context, c *Client, r Resource[T], s Selection) ([]*T, error) {
	objects, _, err := listAll(ctx, c, r, s)
	return objects, err
}

// listAll also returns the version of the list, from which a watch goes on.
func listAll[T any](ctx context.Context, c *Client, r Resource[T], s Selection) ([]*T, string, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	var objects []*T
	options := metav1.ListOptions{LabelSelector: s.Labels, FieldSelector: s.Fields, Limit: maxPage}
	for {
		page, err := r.client(c).List(ctx, options)
		if err != nil {
			return nil, "", c.newError(err, request{verb: "list", word: r.Word})
		}
		for i := range page.Items {
			object, err := r.decode(&page.Items[i])
			if err != nil {
				return nil, "", c.newError(err, request{verb: "list", word: r.Word})
			}
			objects = append(objects, object)
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return objects, page.GetResourceVersion(), nil
		}
	}
}

// Create creates an object and returns it as the API server keeps it. The error of a name that is taken has the meaning
// AlreadyExists or BeingDeleted. A Create whose answer was lost may have succeeded: callers choose the name, and ask for it.
func Create[T any](ctx context.Context, c *Client, r Resource[T], object *T) (*T, error) {
	asked := request{verb: "create", word: r.Word, name: metadata(object).GetName()}
	u, err := r.encode(object)
	if err != nil {
		return nil, c.newError(err, asked)
	}
	if err := c.checkSize(u, asked); err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	created, err := r.client(c).Create(ctx, u, metav1.CreateOptions{FieldManager: FieldManager, FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		return nil, c.newError(err, asked)
	}
	result, err := r.decode(created)
	return result, c.newError(err, asked)
}

// Apply creates an object, or changes the fields of it that it names, by server-side apply. Fields that an earlier Apply
// set and this one does not name are removed. It takes fields over from other managers. Never apply pods: an Apply that
// means to change a pod creates it again after it was deleted.
func Apply[T any](ctx context.Context, c *Client, r Resource[T], object *T) (*T, error) {
	asked := request{verb: "apply", word: r.Word, name: metadata(object).GetName()}
	u, err := r.encode(object)
	if err != nil {
		return nil, c.newError(err, asked)
	}
	if err := c.checkSize(u, asked); err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	applied, err := r.client(c).Apply(ctx, asked.name, u, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	if err != nil {
		return nil, c.newError(err, asked)
	}
	result, err := r.decode(applied)
	return result, c.newError(err, asked)
}

// Patch changes an object by a JSON merge patch, which is encoded from patch: a null removes a field. A subresource such as
// status may follow.
func Patch[T any](ctx context.Context, c *Client, r Resource[T], name string, patch any, subresource ...string) (*T, error) {
	asked := request{verb: "change", word: r.Word, name: name}
	data, err := json.Marshal(patch)
	if err != nil {
		return nil, c.newError(err, asked)
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	patched, err := r.client(c).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: FieldManager}, subresource...)
	if err != nil {
		return nil, c.newError(err, asked)
	}
	result, err := r.decode(patched)
	return result, c.newError(err, asked)
}

// DeleteOptions limit a deletion.
type DeleteOptions struct {
	UID   types.UID     // delete only this object, not a later one of the same name; empty: any
	Grace time.Duration // of a pod, in whole seconds, rounded up; zero: the pod's own. A second Delete can only shorten it
	Force bool          // forget a pod at once, though its processes may still run: only if its node is known to be gone
}

// Delete begins to delete an object, and what it owns. It is no error if the object does not exist, or if another one has
// its name now.
func Delete[T any](ctx context.Context, c *Client, r Resource[T], name string, o DeleteOptions) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	err := r.client(c).Delete(ctx, name, o.encode())
	if err = c.newError(err, request{verb: "delete", word: r.Word, name: name}); err == nil {
		return nil
	}
	if meaning := MeaningOf(err); meaning == NotFound || meaning == Changed && o.UID != "" {
		return nil
	}
	return err
}

func (o DeleteOptions) encode() metav1.DeleteOptions {
	propagation := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{PropagationPolicy: &propagation}
	if o.UID != "" {
		options.Preconditions = &metav1.Preconditions{UID: &o.UID}
	}
	switch seconds := int64((o.Grace + time.Second - 1) / time.Second); {
	case o.Force:
		options.GracePeriodSeconds = new(int64)
	case seconds > 0:
		options.GracePeriodSeconds = &seconds
	}
	return options
}
