#!/bin/bash
# The history in ./repository: packed, read through, looked at line by line, and checked.
set -euo pipefail
cd repository
git gc --quiet --prune=now
git count-objects -v | grep -v size
git log --stat --format='%H %an %aI %s' | sha256sum
git log -p --all | sha256sum
git blame -w -C HEAD -- "$(git ls-tree --name-only HEAD | sed -n 1p)" | sha256sum
git diff --stat HEAD~150 HEAD | tail -n 1
git rev-list --all --objects | sha256sum
git fsck --full --strict 2>&1
git archive HEAD | sha256sum
git shortlog -s HEAD
