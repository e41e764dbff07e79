#!/bin/sh
# The UI tests need a Chromium. Take one that is here; else install one; else say that those tests will be skipped.
# Usage: ensure_browser.sh PYTHON
set -u
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null && exit 0
fi
"$1" -m playwright install chromium >/dev/null 2>&1 && exit 0
echo "No Chromium could be found or installed: the tests marked 'ui' will be skipped." >&2
echo "Remedy: install your system's package 'chromium'." >&2
