package kubeclient

import (
	"math"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Bytes returns a size as a quantity. It is a plain number: units such as 24GB are refused, and 0.1Gi is kept as a fraction.
func Bytes(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.DecimalSI) }

// MiB returns a size in MiB as a quantity of bytes.
func MiB(n int64) resource.Quantity { return Bytes(n << 20) }

// Count returns a whole number as a quantity: of CPUs, of GPUs.
func Count(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }

// MilliCPUs returns thousandths of a CPU as a quantity.
func MilliCPUs(n int64) resource.Quantity { return *resource.NewMilliQuantity(n, resource.DecimalSI) }

// ReadWhole returns a quantity as a whole number, fractions rounded up. One that is too large is the largest number, one below
// zero is zero: Quantity.Value returns others for them.
func ReadWhole(q resource.Quantity) int64 { return readScaled(q, 1, q.Value) }

// ReadMilli is ReadWhole for thousandths, as CPUs are counted.
func ReadMilli(q resource.Quantity) int64 { return readScaled(q, 1000, q.MilliValue) }

func readScaled(q resource.Quantity, scale int64, value func() int64) int64 {
	if q.Sign() <= 0 {
		return 0
	}
	if q.Cmp(*resource.NewQuantity(math.MaxInt64/scale, resource.DecimalSI)) >= 0 {
		return math.MaxInt64
	}
	return value()
}
