#!/bin/bash
# Tesseract over pages: a page a task, printed in the pages' order. Needs
# tesseract-ocr and imagemagick.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
fail() { echo "ocr: $*" >&2; exit 1; }
command -v convert tesseract >/dev/null || fail "no convert or tesseract: install imagemagick and tesseract-ocr (.ci/deps.sh --all)"
make -C "$root" -s build
export PATH=$root/bin:$PATH OMP_THREAD_LIMIT=1
work=$root/.cache/ocr
rm -rf "$work"
mkdir -p "$work"
cd "$work"
words=(zero one two three four five six seven eight nine)
for i in 1 2 3 4 5 6 7 8; do
	convert -size 900x200 xc:white -fill black -font DejaVu-Sans -pointsize 48 -gravity center -annotate 0 "Page ${words[$i]} of eight" "page-$i.png"
done
ls page-*.png | gangway map --keep-order 'tesseract {} - 2>/dev/null | grep -v "^[[:space:]]*$"' | tee text
for i in 1 2 3 4 5 6 7 8; do
	[ "$(sed -n "${i}p" text)" = "Page ${words[$i]} of eight" ] || fail "page $i reads: $(sed -n "${i}p" text)"
done
echo "ocr: eight pages, read in order"
