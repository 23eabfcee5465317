# What runs a plan, and nothing else: TensorRT's runtime, cuda-python, NumPy and samples/deploy/infer.py.
#   docker build -f docker/run.Dockerfile -t run-plan .
#   docker run --rm --gpus all -u "$(id -u):$(id -g)" -v "$PWD:/work" run-plan out/model.plan images.npz -o scores.npz
# TensorRT must be the version that built the plan; RUNTIME=tensorrt-lean-cu13, a tenth of the size, runs plans of
# --version-compatible alone.
ARG CUDA=13.0.2
FROM nvidia/cuda:${CUDA}-base-ubuntu24.04
ARG RUNTIME=tensorrt-cu13
ARG TENSORRT=10.16.1.11
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/run/bin:$PATH PIP_NO_CACHE_DIR=1
# hadolint ignore=DL3013
RUN python3 -m venv /opt/run && pip install "${RUNTIME}==${TENSORRT}" "cuda-python>=12.6" "numpy>=2"
COPY samples/deploy/infer.py /opt/run/infer.py
USER 65534
WORKDIR /work
ENTRYPOINT ["python", "/opt/run/infer.py"]
