# The HTTP service with its web page, on CPU. Versions are those of constraints-cpu.txt.
#   docker build -t earwitness . && docker run --rm -p 8000:8000 earwitness
FROM python:3.11-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false GRADIO_ANALYTICS_ENABLED=False

WORKDIR /opt/earwitness
COPY constraints-cpu.txt ./
# PyTorch's own index has the CPU build of the pinned version; PyPI's would bring CUDA along.
RUN pip install -c constraints-cpu.txt --index-url https://download.pytorch.org/whl/cpu \
      --extra-index-url https://pypi.org/simple "torch==$(sed -n 's/^torch==//p' constraints-cpu.txt)"

COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
COPY examples examples
COPY recipes recipes
RUN pip install -c constraints-cpu.txt ".[serve,demo]"

# Nothing is written but temporary files: the root may be mounted read-only with a tmpfs on /tmp.
RUN useradd --create-home --uid 10001 listener \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/earwitness
# By number: Kubernetes' runAsNonRoot cannot tell by a name.
USER 10001
WORKDIR /home/listener

EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8000/ready', timeout=4)"]
# SIGTERM lets accepted requests finish; give `docker stop --time` as long as --timeout.
ENTRYPOINT ["earwitness", "serve", "--host", "0.0.0.0"]
