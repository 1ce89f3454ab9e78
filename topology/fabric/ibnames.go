package fabric

import (
	"strings"
)

// hostAndHCA takes a node description apart: "n1 mlx5_0" and "n1 HCA-1" are what
// rdma-ndd and the older openibd write. It returns no host where nobody has set
// the description: then it names the product, a GUID, or an HCA alone. A machine
// that calls itself localhost is a host, with a name to be set (isNameless).
func hostAndHCA(desc string) (host, hca string) {
	words := strings.Fields(strings.Trim(desc, `'"`))
	if len(words) == 0 || isProduct(desc) {
		return "", ""
	}
	host = words[0]
	if len(words) > 1 {
		hca = words[len(words)-1]
	}
	switch {
	case isGUID(host), host == "(none)", host == "%h":
		return "", hca
	case len(words) == 1 && isHCA(host):
		return "", host
	}
	return host, hca
}

// isNameless says that a host's name is the one before it is given one.
func isNameless(host string) bool {
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasPrefix(host, "localhost.")
}

// isProduct says that a description is what the hardware calls itself.
func isProduct(desc string) bool {
	lower := strings.ToLower(desc)
	if strings.Contains(lower, "mellanox technologies") || strings.Contains(lower, "nvidia technologies") {
		return true
	}
	words := strings.Fields(lower)
	if len(words) < 2 {
		return false
	}
	mt := len(words[0]) > 3 && strings.HasPrefix(words[0], "mt") && strings.Trim(words[0][2:], "0123456789") == ""
	return mt || strings.Contains(words[0], "connectx") || strings.Contains(words[1], "connectx")
}

// isAggregation says that a description is of a switch's in-network reduction
// (SHARP), which appears as a channel adapter but is no host.
func isAggregation(desc string) bool {
	return strings.Contains(strings.ToLower(desc), "aggregation node")
}

func isGUID(s string) bool {
	s = strings.TrimPrefix(strings.ToLower(s), "0x")
	s = strings.ReplaceAll(s, ":", "")
	return len(s) == 16 && strings.Trim(s, "0123456789abcdef") == ""
}

// isHCA says that a word is an RDMA device's name rather than a host's.
func isHCA(s string) bool {
	lower := strings.ToLower(s)
	for _, p := range []string{"hca-", "mlx4_", "mlx5_", "hfi1_", "mthca", "qib", "irdma", "bnxt_re", "ibp", "roce"} {
		if rest, ok := strings.CutPrefix(lower, p); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			return true
		}
	}
	return false
}

// switchNames returns the short name of a switch's description and the longer
// ones to fall back to where several switches share it: the ASICs of a chassis
// ("MF0;core:CS7520/L01/U1") have one name. None: nobody has named it.
func switchNames(desc string) []string {
	desc = strings.TrimSpace(desc)
	if desc == "" || isGUID(desc) || isProduct(desc) {
		return nil
	}
	prefix, rest, ok := strings.Cut(desc, ";")
	if !ok || strings.ContainsAny(prefix, " \t") {
		return []string{desc}
	}
	name, module, _ := cutLast(rest, ":")
	if name = strings.TrimSpace(name); name == "" {
		return nil
	}
	out := []string{name}
	if _, part, ok := strings.Cut(module, "/"); ok {
		out = append(out, name+"/"+part)
	}
	return out
}

// cutLast cuts s around the last sep.
func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// laneGbps is what one lane of a link carries, in 10^9 bit/s, as sysfs counts:
// 4X EDR is 100.
func laneGbps(speed string) (float64, bool) {
	switch strings.ToUpper(speed) {
	case "SDR":
		return 2.5, true
	case "DDR":
		return 5, true
	case "QDR", "FDR10":
		return 10, true
	case "FDR":
		return 14, true
	case "EDR":
		return 25, true
	case "HDR":
		return 50, true
	case "NDR":
		return 100, true
	case "XDR":
		return 200, true
	}
	return 0, false
}

// linkGbps reads "4xNDR".
func linkGbps(word string) (float64, bool) {
	width, speed, ok := strings.Cut(word, "x")
	lanes := map[string]float64{"1": 1, "2": 2, "4": 4, "8": 8, "12": 12}[width]
	lane, known := laneGbps(speed)
	return lanes * lane, ok && known && lanes > 0
}
