#!/usr/bin/env bash
# Runs the README's first command and puts what it prints into the README, between the two marks.
# Usage: bash docs/record-demo.sh [BINARY]    (a binary that is built already; else one is built as the README says)
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-target/release/informerd}
command="$binary demo --for 20s"
if [ $# -eq 0 ]; then
    cargo build --release --quiet
    command="cargo run --release -- demo --for 20s"
fi
# With a file name that is not of one process.
output=$("$binary" demo --for 20s | sed -E 's/informerd-demo-[0-9]+/informerd-demo/; s/[ \t]+$//')
python3 - "$command" "$output" <<'PY'
import re
import sys

with open("README.md", encoding="utf-8") as file:
    text = file.read()
block = f"<!-- demo -->\n```console\n$ {sys.argv[1]}\n{sys.argv[2]}\n```\n<!-- /demo -->"
new, count = re.subn(r"<!-- demo -->.*?<!-- /demo -->", lambda _: block, text, flags=re.S)
if count != 1:
    sys.exit("README.md must have one <!-- demo --> and one <!-- /demo -->")
with open("README.md", "w", encoding="utf-8") as file:
    file.write(new)
PY
