#!/bin/sh
# Make .venv from the first Python that is new enough, or say in one sentence what is missing.
#     sh scripts/venv.sh [PYTHON]
new_enough='import sys; sys.exit(sys.version_info < (3, 11))' # as requires-python in pyproject.toml

if .venv/bin/python -c "$new_enough" 2>/dev/null; then
    # One is there already; what uv made has no pip yet.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip
    exit
fi

python=
[ $# -gt 0 ] || set -- python3 python3.13 python3.12 python3.11
for candidate; do
    # Starting it is the only proof: a command of that name may be a stub that starts nothing.
    if "$candidate" -c "$new_enough" 2>/dev/null; then
        python=$candidate
        break
    fi
done

if [ -z "$python" ]; then
    found=$("$1" --version 2>&1) || found="$1 does not start"
    echo "The course needs Python 3.11 or newer and found none ($found): install one, then run" \
        "\`make lab PYTHON=/path/to/python3.12\`, or use conda with environment.yml." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "$python cannot make virtual environments: install its venv module (Debian, Ubuntu:" \
        "\`sudo apt install python3-venv\`), then run the same command again." >&2
    exit 1
fi

echo "Making .venv from $("$python" --version) ..."
"$python" -m venv --clear .venv
