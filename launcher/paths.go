package launcher

import (
	"net/http"

	"gangway/launcher/auth"
)

// paths gives each request to whom it is for. http.ServeMux would not do: it
// answers paths that are not clean by itself, with a redirection, before anyone
// has asked who is there.
func paths(join, api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && (r.URL.Path == auth.JoinPath || r.URL.Path == auth.RenewPath) {
			join.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}
