# One image for all services: brokers, coordinators, agents, set-up. It contains no secret.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /build && \
    /build/bin/pip install --quiet --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml ./
COPY mesh mesh
COPY analysis analysis
COPY agents agents
COPY coordinator coordinator
COPY cli cli
COPY testing testing
COPY gen gen
RUN /build/bin/hatchling build --target wheel --directory /dist

FROM python:3.11-slim-bookworm
COPY requirements-runtime.lock /tmp/
COPY --from=build /dist /tmp/dist
RUN python -m venv /opt/handrail && \
    /opt/handrail/bin/pip install --quiet --no-cache-dir --require-hashes --requirement /tmp/requirements-runtime.lock && \
    /opt/handrail/bin/pip install --quiet --no-cache-dir --no-deps /tmp/dist/*.whl && \
    rm -r /tmp/dist /tmp/requirements-runtime.lock
COPY deploy/nats.conf /etc/handrail/nats.conf
COPY deploy/setup.sh /etc/handrail/setup.sh
COPY agents/demos/payments/refund.yaml /etc/handrail/templates/refund.yaml
COPY agents/demos/payments/chargebacks.jsonl /etc/handrail/chargebacks.jsonl

# A new volume gets the owner of the folder on which it is mounted.
RUN useradd --system --uid 10001 --no-create-home handrail && \
    mkdir -p /etc/handrail/permissions /data /public /run/handrail /keys /tokens /credentials && \
    for user in coordinator detection enrichment refunds ledger notification; do mkdir "/credentials/$user"; done && \
    for person in olga anna ben vera; do mkdir "/tokens/$person"; done && \
    chown -R handrail:handrail /etc/handrail/permissions /data /public /run/handrail /keys /tokens /credentials
ENV PATH=/opt/handrail/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER handrail
WORKDIR /data
CMD ["handrail", "--help"]
