package batchapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSkew is how far a signed request's date may be from the launcher's clock.
const maxSkew = 15 * time.Minute

// authenticate says who sent the request: the principal in its context, or the
// one whose key or token it carries.
func (s *server) authenticate(r *http.Request) (Principal, error) {
	if p, ok := PrincipalOf(r.Context()); ok {
		return p, nil
	}
	scheme, credential, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	credential = strings.TrimSpace(credential)
	refuse := func(status int, why string, err error) (Principal, error) {
		s.Log.Warn("api request not let in", "from", r.RemoteAddr, "scheme", schemeName(scheme), "why", why, "err", err)
		f := newFault(status, "AuthenticationFailed", "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.")
		if status == http.StatusUnauthorized {
			f.code = "InvalidAuthenticationInfo"
			f.header = http.Header{"Www-Authenticate": {`Bearer realm="gangway"`, "SharedKey"}}
		}
		return Principal{}, f
	}
	switch {
	case s.Auth == nil || credential == "":
		return refuse(http.StatusUnauthorized, "no credentials", nil)
	case strings.EqualFold(scheme, "Bearer"):
		p, err := s.Auth.Bearer(credential)
		if err != nil {
			return refuse(http.StatusUnauthorized, "token", err)
		}
		return p, nil
	case scheme == "SharedKey":
		account, text, _ := strings.Cut(credential, ":")
		signature, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return refuse(http.StatusForbidden, "signature is not base64", nil)
		}
		keys, p, err := s.Auth.SharedKey(account)
		if err != nil {
			return refuse(http.StatusForbidden, "account", err)
		}
		date, err := http.ParseTime(signedDate(r))
		if err != nil {
			return refuse(http.StatusForbidden, "no date", err)
		}
		if skew := s.Now().Sub(date).Abs(); skew > maxSkew {
			return refuse(http.StatusForbidden, "its clock differs by "+skew.Round(time.Second).String(), nil)
		}
		for _, text := range stringsToSign(r, account) {
			for _, key := range keys {
				m := hmac.New(sha256.New, key)
				m.Write([]byte(text))
				if hmac.Equal(m.Sum(nil), signature) {
					return p, nil
				}
			}
		}
		return refuse(http.StatusForbidden, "signature", nil)
	}
	return refuse(http.StatusUnauthorized, "unknown scheme", nil)
}

// schemeName is what of an Authorization header may be logged: the first word of
// one that lacks its scheme is the secret itself.
func schemeName(s string) string {
	switch {
	case s == "", s == "SharedKey":
		return s
	case strings.EqualFold(s, "Bearer"):
		return "Bearer"
	}
	return "another"
}

func signedDate(r *http.Request) string {
	if d := r.Header.Get("ocp-date"); d != "" {
		return d
	}
	return r.Header.Get("Date")
}

// stringsToSign returns what a SharedKey signature covers: method, standard
// headers, ocp- headers, account and escaped path, decoded query. Batch's rule
// differs from Storage's. Its two families of SDKs differ in the query: Python's
// takes the first value of each name as it is and leaves out empty ones, the
// others join the values and write names in lower case; either is accepted,
// since both cover the whole request.
func stringsToSign(r *http.Request, account string) []string {
	var b strings.Builder
	b.WriteString(r.Method + "\n")
	length := ""
	if r.ContentLength > 0 || r.Method != http.MethodGet && r.Method != http.MethodHead {
		length = strconv.FormatInt(max(r.ContentLength, 0), 10)
	}
	for _, name := range []string{
		"Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type", "Date",
		"If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range",
	} {
		v := strings.Join(r.Header.Values(name), ",")
		if name == "Content-Length" {
			v = length
		}
		b.WriteString(v + "\n")
	}
	var ocp []string
	for name, values := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "ocp-") && values[0] != "" {
			ocp = append(ocp, name+":"+strings.Join(values, ",")+"\n")
		}
	}
	slices.Sort(ocp)
	b.WriteString(strings.Join(ocp, ""))
	path, rawQuery, _ := strings.Cut(sentPath(r), "?")
	b.WriteString("/" + account + path)

	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil
	}
	var first, joined []string
	lower := map[string][]string{}
	for name, values := range query {
		if values[0] != "" {
			first = append(first, name+"\x00"+values[0])
		}
		n := strings.ToLower(name)
		lower[n] = append(lower[n], values...)
	}
	for name, values := range lower {
		slices.Sort(values)
		joined = append(joined, name+"\x00"+strings.Join(values, ","))
	}
	all := make([]string, 2)
	for i, lines := range [][]string{first, joined} {
		slices.Sort(lines) // by name: the separator sorts first
		text := b.String()
		for _, l := range lines {
			text += "\n" + strings.Replace(l, "\x00", ":", 1)
		}
		all[i] = text
	}
	return all
}
