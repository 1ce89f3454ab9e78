package launcher

import (
	"testing"

	"gangway/launcher/auth"
)

func TestOnlyAdminsRunAsTheAgentsRoot(t *testing.T) {
	for _, c := range []struct {
		p    auth.Principal
		user string
	}{
		{auth.Principal{Name: "ann", Role: auth.Submitter}, "ann"},
		{auth.Principal{Name: "ann", Role: auth.Submitter, NodeUser: "cfd"}, "cfd"},
		{auth.Principal{Name: "ops", Role: auth.Admin}, ""},
	} {
		if got := withUser(c.p).NodeUser; got != c.user {
			t.Errorf("%+v runs as %q, want %q", c.p, got, c.user)
		}
	}
}
