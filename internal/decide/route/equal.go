package route

import "slices"

// IsSame reports whether two routes are certainly the same. It may report false for equal ones, whose templates or limits
// were read again.
func (r *Route) IsSame(other *Route) bool {
	return r.Run == other.Run && r.Project == other.Project && r.Name == other.Name && r.Auth == other.Auth && r.Model == other.Model &&
		r.Prefix == other.Prefix && r.Format == other.Format && r.Template == other.Template && r.Since == other.Since &&
		slices.Equal(r.Ready, other.Ready) && r.State == other.State && r.IsStopping == other.IsStopping &&
		r.IsSleeping == other.IsSleeping && r.NeverServes == other.NeverServes && r.PanicMode == other.PanicMode &&
		r.Rules.isSame(other.Rules) && r.Gateway == other.Gateway
}

func (r Rules) isSame(other Rules) bool {
	isSameList := len(r.Limits) == len(other.Limits) && (len(r.Limits) == 0 || &r.Limits[0] == &other.Limits[0])
	return r.Window == other.Window && isSameList && r.Hold == other.Hold
}
