package e2e

import (
	"testing"
	"time"
)

// TestCloud_Service rents a machine for a service, serves it through the gateway, keeps the machine idle, and gives it back.
func TestCloud_Service(t *testing.T) {
	s := newAWSSet(t)
	v := s.applyAndWait(s.newFolder(s.serviceConfig("rented")))
	t.Logf("%+v", v)
	s.expectStatus(s.serviceURL("rented", "/who"), 200)
	alive := s.waitForMachines(time.Second, 1)
	t.Logf("%+v", alive[0])
}
