# Put uv into .uv/ with nothing but Python 3 and its pip or venv; no root.
version=0.13.9
echo "uv is not installed: putting uv $version into .uv/"
rm -rf .uv
python3 -m venv .uv >/dev/null 2>&1 && .uv/bin/pip install --quiet "uv==$version" && exit
rm -rf .uv
python3 -m pip install --quiet --target .uv "uv==$version" && exit
rm -rf .uv
echo "uv could not be installed: install it (https://docs.astral.sh/uv), or Python's venv (Debian: python3-venv), then run make again." >&2
exit 1
