# Sourced by the scripts beside it: one virtual environment in .venv, made or brought up to date when it has to be.
#
# environment_ensure EXTRAS   installs `-e .[EXTRAS]`, every version held by requirements-dev.lock. A stamp in .venv keeps
#                             what it was made from, so the second call costs nothing. Afterwards $python runs in it.
# Touches: .venv, the package index. Needs Python >= 3.11 with venv, nothing else.

environment_python_find() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        if [[ -n "$candidate" ]] && command -v "$candidate" > /dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    echo "no Python >= 3.11 with venv on the PATH: install one, or name it, as in PYTHON=/opt/python3.12/bin/python3" >&2
    return 1
}

environment_ensure() {
    local extras=$1 found stamp wanted missing have="" installed=""
    python="$PWD/.venv/bin/python"
    stamp="$PWD/.venv/headrace-stamp"
    if [[ ! -x "$python" ]] || ! "$python" -c '' > /dev/null 2>&1; then
        found=$(environment_python_find) || return 1
        echo "making .venv with $("$found" --version)" >&2
        "$found" -m venv --clear .venv || return 1
    fi
    # The place counts too: an editable install points at this checkout, and a copied .venv would test another one.
    wanted="$PWD $(cat requirements-dev.lock pyproject.toml | "$python" -c \
        'import hashlib, sys; print(sys.version.split()[0], hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
    if [[ -f "$stamp" ]]; then
        { read -r have && read -r installed; } < "$stamp" || true
    fi
    # Extras only grow, so that two scripts that need different ones do not install in turns.
    missing=$(comm -23 <(tr ',' '\n' <<< "$extras" | sort) <(tr ',' '\n' <<< "$installed" | sort))
    if [[ "$have" != "$wanted" || -n "$missing" ]]; then
        extras=$(printf '%s,%s' "$extras" "$installed" | tr ',' '\n' | sort -u | grep . | paste -sd, -)
        echo "installing headrace[$extras] into .venv" >&2
        rm -f "$stamp"
        "$python" -m pip install --quiet --disable-pip-version-check \
            --constraint requirements-dev.lock --editable ".[$extras]" >&2 || return 1
        printf '%s\n%s\n' "$wanted" "$extras" > "$stamp"
    fi
}
