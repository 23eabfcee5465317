# trtbuild with NVIDIA's TensorRT: builds, verifies and times engines. Run it on the kind of GPU that will run them.
#   docker build -f docker/build.Dockerfile -t trtbuild .
#   docker run --rm --gpus all -v "$PWD:/work" trtbuild engine model.onnx --int8 --data calib.npz -o out
ARG CUDA=13.0.2
FROM nvidia/cuda:${CUDA}-base-ubuntu24.04
ARG TENSORRT=10.16.1.11
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/trtbuild/bin:$PATH PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/trtbuild && pip install "tensorrt-cu13==${TENSORRT}"
COPY pyproject.toml README.md LICENSE /src/
COPY calibrators /src/calibrators
COPY trtbuild /src/trtbuild
COPY samples/quickstart /src/samples/quickstart
RUN pip install "/src[tensorrt]" && rm -rf /src
WORKDIR /work
ENTRYPOINT ["trtbuild"]
CMD ["doctor"]
