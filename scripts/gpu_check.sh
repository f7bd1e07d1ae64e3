#!/usr/bin/env bash
# Test and measure this checkout on a machine with a CUDA device, without a network.
#
#     scripts/gpu_check.sh [FOLDER_OF_WHEELS]
#
# Python packages are those that are installed, and those of the folder, if one is given. The checkout is installed into
# a folder of its own. Leaves benchmarks/results/gpu-*.json, gpu_tiles-*.json and gpu_check.log, in $OUT too if that is
# set. Ends within 10 minutes: 0 if all tests passed and the benchmark ran, 1 if not, 3 where there is no CUDA device.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
log=${OUT:-.}/gpu_check.log

if ! command -v nvidia-smi > /dev/null || ! nvidia-smi --query-gpu=name --format=csv,noheader > /dev/null 2>&1; then
    echo "no CUDA device here: nvidia-smi finds none"
    exit 3
fi
mkdir -p "${OUT:-.}"
exec > >(tee "$log") 2>&1
date -u
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,memory.total --format=csv,noheader

site=$(mktemp -d)
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}" PIP_DISABLE_PIP_VERSION_CHECK=1
if [ $# -gt 0 ]; then
    "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$1"/*.whl || echo "wheels: pip failed"
fi
# With the native kernel where there are a compiler and scikit-build-core.
if ! timeout 45 "$python" -m pip install --quiet --no-index --no-deps --no-build-isolation --target "$site" .; then
    echo "no build here: the package is copied, without the native kernel"
    cp -r ugmm_ppl "$site/ugmm_ppl"
    mkdir "$site/ugmm_ppl-0.1.0.dist-info"
    printf 'Metadata-Version: 2.1\nName: ugmm-ppl\nVersion: 0.1.0\n' > "$site/ugmm_ppl-0.1.0.dist-info/METADATA"
fi

# Both libraries share the device; JAX keeps its CPU, which float64 work of the package uses.
export JAX_PLATFORMS=cuda,cpu XLA_PYTHON_CLIENT_PREALLOCATE=false MPLBACKEND=Agg TRITON_CACHE_DIR="$site/triton"
export JAX_COMPILATION_CACHE_DIR="$site/jax"
PYTHONSAFEPATH=1 "$python" - << 'PYTHON'
import importlib

for name in ("torch", "triton", "pyro", "jax", "numpyro", "numpy", "pytest", "ugmm_ppl"):
    try:
        module = importlib.import_module(name)
        print(name, getattr(module, "__version__", "?"), module.__path__[0])
    except Exception as error:
        print(name, "is missing:", type(error).__name__, error)
try:
    from ugmm_ppl.kernels import info

    print(info())
    import torch

    print("torch sees", torch.cuda.device_count(), "CUDA devices")
    import jax

    print("JAX sees", jax.devices())
except Exception as error:
    print(type(error).__name__, error)
PYTHON

failed=0
workers=()
"$python" -c "import xdist" 2> /dev/null && workers=(-n 8)
# Warnings of other versions of the libraries are no errors here; the installed package, not the folder, is tested.
PYTHONSAFEPATH=1 timeout 170 "$python" -m pytest tests/test_gpu.py tests/test_gpu_torch.py -m gpu -q --durations=10 \
    -o addopts="-rfEs --strict-markers" -o filterwarnings=default "${workers[@]}" | tee "$site/tests.txt" || failed=1
grep -Eq "[0-9]+ passed" "$site/tests.txt" || failed=1 # tests that were all skipped have shown nothing
echo "tests: $([ $failed = 0 ] && echo passed || echo FAILED)"
(cd benchmarks && timeout 240 "$python" gpu.py --seconds 195) || { failed=1; echo "benchmark: FAILED or cut short"; }
(cd benchmarks && timeout 90 "$python" gpu_tiles.py) || { failed=1; echo "tiles: FAILED or cut short"; }
if [ -n "${OUT:-}" ]; then cp benchmarks/results/gpu[-_]*.json "$OUT"/ 2> /dev/null || echo "no results"; fi
date -u
exit $failed
