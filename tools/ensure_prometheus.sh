#!/bin/sh
# The tests of deploy/monitoring need Prometheus and its promtool. Take them where they are installed; else unpack
# Debian's package (19 MB) into a folder, installing and starting nothing; else say that those tests will be skipped.
# Usage: ensure_prometheus.sh FOLDER
set -u
command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1 && exit 0
test -x "$1/usr/bin/promtool" && exit 0
if command -v apt-get >/dev/null 2>&1 && mkdir -p "$1" && cd "$1"; then
  { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } >/dev/null 2>&1 \
    && dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb && exit 0
fi
echo "No Prometheus could be found or unpacked: the tests of deploy/monitoring will be skipped." >&2
echo "Remedy: install your system's package 'prometheus'." >&2
