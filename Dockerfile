# mindvis for a machine with an NVIDIA GPU and its container toolkit. The two commands inside:
#
#   docker build -t mindvis .
#   docker run --rm --gpus all mindvis scripts/demo.sh
#   docker run --rm --gpus all mindvis python -m pytest -m gpu
#
# With data, and runs that stay:  -v "$PWD/data:/mindvis/data" -v "$PWD/runs:/mindvis/runs"
FROM nvidia/cuda:12.6.3-base-ubuntu24.04

# gcc and the Python headers are what torch.compile builds with; git tells a run which revision it is of
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.12 python3.12-dev python3.12-venv gcc g++ git \
    && rm -rf /var/lib/apt/lists/* \
    && python3.12 -m venv /opt/mindvis
ENV VIRTUAL_ENV=/opt/mindvis PATH=/opt/mindvis/bin:$PATH

WORKDIR /mindvis
COPY . .
# torch from pip's default index is a CUDA build, which brings its libraries
RUN pip install --no-cache-dir -e .[prepare,test]

CMD ["scripts/demo.sh"]
