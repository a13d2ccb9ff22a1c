#!/usr/bin/env bash
# Runs every linter, reports all that fail. usage: tools/lint.sh [FOLDER WITH THE TOOLS]
set -uo pipefail

bin=${1:-.venv/bin}
export PYTHONPATH=.
failed=()

step() { # step NAME COMMAND...
  local name=$1
  shift
  echo "== $name"
  "$@" || failed+=("$name")
}

cpp=()
while IFS= read -r file; do cpp+=("$file"); done < <(find csrc tests/cpp examples \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' \) | sort)

step "ruff check" "$bin/ruff" check .
step "ruff format" "$bin/ruff" format --check .
step "mypy" "$bin/mypy"
step "clang-format" "$bin/clang-format" --dry-run -Werror "${cpp[@]}"
step "codespell" "$bin/codespell" --toml pyproject.toml README.md CHANGELOG.md CONTRIBUTING.md docs csrc vpd tests tools configs benchmarks notebooks
step "stubs" "$bin/python" tools/stubs.py --check
step "api page" "$bin/python" tools/api.py --check
step "documentation" env NO_MKDOCS_2_WARNING=1 "$bin/python" -m mkdocs build --quiet

if [[ ${#failed[@]} -gt 0 ]]; then
  echo "lint failed: ${failed[*]}" >&2
  exit 1
fi
echo "lint: all clean"
