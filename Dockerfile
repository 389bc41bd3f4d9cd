# The service: docker build -t holdfast .
# On a GPU: docker build -t holdfast --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /build
RUN python -m venv /opt/holdfast
ENV PATH=/opt/holdfast/bin:$PATH
COPY constraints.txt ./
# By itself: it is most of what is fetched, and stays as long as its version does.
RUN pip install --no-cache-dir --constraint constraints.txt --index-url "${TORCH_INDEX}" torch
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt '.[serve,dicom]'

FROM python:${PYTHON}
RUN useradd --uid 10001 --no-create-home holdfast && install --directory --owner holdfast /state
COPY --from=build /opt/holdfast /opt/holdfast
ENV PATH=/opt/holdfast/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp WANDB_MODE=disabled
USER 10001
WORKDIR /state
VOLUME /state
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# The token that it demands comes from the environment: --env HOLDFAST_TOKEN
ENTRYPOINT ["holdfast", "serve", "serve.host=0.0.0.0", "serve.port=8000", "output=/state/service"]
CMD ["source=/source"]
