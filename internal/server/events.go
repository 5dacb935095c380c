package server

import (
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// listEvents lists the events of all runs with a name; without a name, those of the
// project that concern no run. If there is none yet and
// the request allows it, it waits for one.
func (s *Server) listEvents(c *apiCall, in api.EventsRequest) ([]api.EventView, error) {
	var deadline <-chan time.Time // nil: do not wait
	if in.WaitSeconds > 0 {
		defer c.endWhenStopping()()
		timer := time.NewTimer(time.Duration(in.WaitSeconds) * time.Second)
		defer timer.Stop()
		deadline = timer.C
	}
	for {
		changed := s.broadcast.Changed()
		found, err := s.store.Events(c.ctx, c.project.ID, in.RunName, in.After, in.Limit)
		if err != nil || len(found) > 0 || deadline == nil {
			if err == nil && len(found) == 0 && in.After == 0 && in.RunName != "" {
				_, err = s.findRunDetails(c, in.RunName) // fails if there is no such run
			}
			return buildEventViews(found), err
		}
		if again, err := waitForChange(c.ctx, changed, deadline); !again {
			return []api.EventView{}, err
		}
	}
}

func buildEventViews(found []dstack.Event) []api.EventView {
	views := make([]api.EventView, 0, len(found))
	for _, e := range found {
		views = append(views, api.EventView{ID: e.ID, At: e.At.UTC(), RunID: e.Run, RunName: e.RunName, Kind: e.Kind,
			Revision: e.Revision, Replica: e.Replica, Group: e.Group, From: e.From, To: e.To, User: e.User, Message: e.Message})
	}
	return views
}
