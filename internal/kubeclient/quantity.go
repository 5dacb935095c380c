package kubeclient

import "k8s.io/apimachinery/pkg/api/resource"

// Bytes returns a size as a quantity.
func Bytes(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.DecimalSI) }

// MiB returns a size in MiB as a quantity of bytes.
func MiB(n int64) resource.Quantity { return Bytes(n << 20) }

// Count returns a whole number as a quantity: of CPUs, of GPUs.
func Count(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }
