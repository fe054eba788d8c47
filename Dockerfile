# docker build -t finetune .                                            the CPU build of torch
# docker build -t finetune --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .     a CUDA build
# docker run --rm -v "$PWD:/work" finetune ner --dataset_name samples --output_dir runs/ner
# With a CUDA build: docker run --gpus all ...
ARG PYTHON=3.13
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH=torch==2.13.0
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "${TORCH}"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY finetune finetune
COPY recipes recipes
RUN pip install --no-cache-dir ".[offline]"
WORKDIR /work
ENTRYPOINT ["finetune"]
