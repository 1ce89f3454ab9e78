#!/bin/bash
# report.sh: puts each case together and lists its largest velocity inside.
set -eu
for case in case-*; do
	reconstructPar -latestTime -case "$case" >"$case/log.reconstructPar"
	u=$case/$(cd "$case" && ls -d [0-9]* | sort -g | tail -1)/U
	awk -v nu="${case#case-}" '
		/^\($/ { inside = 1; next }
		/^\)/ { exit }
		inside { gsub(/[()]/, ""); v = sqrt($1*$1 + $2*$2); if (v > most) most = v; e += v*v; n++ }
		END { if (n == 0) exit 1; printf "nu %s: %d cells, fastest %.4f m/s, mean energy %.6f\n", nu, n, most, e / n / 2 }' "$u"
done
