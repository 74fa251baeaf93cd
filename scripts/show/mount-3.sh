#!/usr/bin/env bash
# Show 3: pjdfstest passes at least 375 of 398 cases, each other one is listed with its reason in
# scripts/posix-known.txt; 20,000 operations of fsx pass.
PJD_MIN=375 exec "$(dirname "$0")/../posix.sh" 20000
