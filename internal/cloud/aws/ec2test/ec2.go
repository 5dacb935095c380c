package ec2test

// handler answers an action of EC2 in a region.
type handler func(s *Server, r *request, reg *region) ([]node, error)

// handlers are the actions that the server knows.
var handlers = map[string]handler{
	"AttachVolume":                  (*Server).attachVolume,
	"AuthorizeSecurityGroupIngress": (*Server).authorizeIngress,
	"CreatePlacementGroup":          (*Server).createPlacementGroup,
	"CreateSecurityGroup":           (*Server).createSecurityGroup,
	"CreateVolume":                  (*Server).createVolume,
	"DeletePlacementGroup":          (*Server).deletePlacementGroup,
	"DeleteSecurityGroup":           (*Server).deleteSecurityGroup,
	"DeleteVolume":                  (*Server).deleteVolume,
	"DescribeAvailabilityZones":     (*Server).describeZones,
	"DescribeImages":                (*Server).describeImages,
	"DescribeInstanceTypeOfferings": (*Server).describeOfferings,
	"DescribeInstanceTypes":         (*Server).describeTypes,
	"DescribeInstances":             (*Server).describeInstances,
	"DescribePlacementGroups":       (*Server).describePlacementGroups,
	"DescribeRegions":               (*Server).describeRegions,
	"DescribeRouteTables":           (*Server).describeRouteTables,
	"DescribeSecurityGroups":        (*Server).describeSecurityGroups,
	"DescribeSpotPriceHistory":      (*Server).describeSpotPrices,
	"DescribeSubnets":               (*Server).describeSubnets,
	"DescribeVolumes":               (*Server).describeVolumes,
	"DescribeVpcs":                  (*Server).describeVPCs,
	"DetachVolume":                  (*Server).detachVolume,
	"RevokeSecurityGroupIngress":    (*Server).revokeIngress,
	"TerminateInstances":            (*Server).terminateInstances,
}

func (s *Server) answerEC2(r *request, f *Fault) (answer, error) {
	reg, handle := s.regions[r.region], handlers[r.action]
	if reg == nil {
		return answer{}, &apiError{401, "AuthFailure", "AWS was not able to validate the provided access credentials"}
	}
	var children []node
	var err error
	switch {
	case r.action == "RunInstances":
		children, err = s.runInstances(r, reg, f)
	case handle != nil:
		children, err = handle(s, r, reg)
	default:
		err = fail("InvalidAction", "The action %s is not valid for this web service.", r.action)
	}
	if err == nil {
		r.params.get("DryRun")
		err = r.params.checkAllRead()
	}
	if err != nil {
		return answer{}, err
	}
	return xmlAnswer(r.action, children), nil
}
