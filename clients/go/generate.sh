#!/usr/bin/env bash
# Makes gen/ anew from proto/. Needs Go and buf (for example `pip install buf-bin`); CI checks that gen/ is up to date.
set -euo pipefail
cd "$(dirname "$0")"
"${BUF:-buf}" generate ../../proto --template buf.gen.yaml
