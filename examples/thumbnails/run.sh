#!/bin/bash
# ImageMagick over a folder: a picture a task, with gangway map. Needs imagemagick.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
fail() { echo "thumbnails: $*" >&2; exit 1; }
command -v convert identify >/dev/null || fail "no convert: install imagemagick (.ci/deps.sh --all)"
make -C "$root" -s build
export PATH=$root/bin:$PATH MAGICK_THREAD_LIMIT=1
work=$root/.cache/thumbnails
rm -rf "$work"
mkdir -p "$work/in" "$work/out"
cd "$work"
for i in $(seq 12); do
	convert -size 640x480 "plasma:tomato-steelblue" -seed "$i" "in/picture $i.png"
done
gangway map --joblog log 'convert {} -resize 25% out/{/.}.jpg' ::: in/*.png
for i in $(seq 12); do
	[ "$(identify -format %wx%h "out/picture $i.jpg")" = 160x120 ] || fail "out/picture $i.jpg is not 160x120"
done
[ "$(tail -n +2 log | wc -l)" = 12 ] || fail "the log has $(wc -l <log) lines"
echo "thumbnails: 12 pictures, all 160x120"
