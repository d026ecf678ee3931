# Sourced by demo.sh and test.sh: a virtual environment, and the package installed in it.

activate_environment() {
    [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && return
    [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
    source .venv/bin/activate
}

# install_mindvis [extra]: skipped when the same pyproject.toml was installed with these extras before.
install_mindvis() {
    activate_environment
    local stamp
    stamp="$(python -c 'import sys; print(sys.prefix)')/.mindvis-${1:-base}-$(cksum < pyproject.toml | cut -d' ' -f1)-$(pwd | cksum | cut -d' ' -f1)"
    [ -e "$stamp" ] && return
    python -m pip install --quiet --disable-pip-version-check --editable ".${1:+[$1]}"
    touch "$stamp"
}
