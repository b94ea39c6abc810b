# One image for coordinators, agents and set-up. It contains no secret. The brokers have the official image.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /build && \
    /build/bin/pip install --quiet --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY mesh mesh
COPY analysis analysis
COPY agents agents
COPY coordinator coordinator
COPY visibility visibility
COPY console console
COPY cli cli
COPY testing testing
COPY gen gen
RUN /build/bin/hatchling build --target wheel --directory /dist && \
    cd agents/demos && /build/bin/hatchling build --target wheel --directory /dist

FROM python:3.11.14-slim-bookworm
COPY requirements-runtime.lock /tmp/
COPY --from=build /dist /tmp/dist
RUN python -m venv /opt/handrail && \
    /opt/handrail/bin/pip install --quiet --no-cache-dir --require-hashes --requirement /tmp/requirements-runtime.lock && \
    /opt/handrail/bin/pip install --quiet --no-cache-dir --no-deps /tmp/dist/*.whl && \
    rm -r /tmp/dist /tmp/requirements-runtime.lock
COPY deploy/nats.conf /etc/handrail/nats.conf
COPY deploy/setup.sh /etc/handrail/setup.sh
COPY deploy/tokens.sh /etc/handrail/tokens.sh
COPY agents/demos/payments/refund.yaml /etc/handrail/templates/refund.yaml
COPY agents/demos/payments/chargebacks.jsonl /etc/handrail/chargebacks.jsonl

# A new volume gets the owner of the folder on which it is first mounted. Brokers run as the same user: `setup` mounts
# their data before they do.
RUN useradd --system --uid 10001 --no-create-home handrail && \
    mkdir -p /etc/handrail/brokers /data /public /run/handrail /run/retention /run/tls /keys /tokens /credentials /certificates && \
    for user in coordinator setup visibility retention detection enrichment refunds ledger notification; do mkdir "/credentials/$user"; done && \
    for person in olga anna ben vera; do mkdir "/tokens/$person"; done && \
    for server in authority nats1 nats2 nats3 coordinator1 coordinator2 visibility console; do mkdir "/certificates/$server"; done && \
    for server in nats1 nats2 nats3; do mkdir -p "/brokers/$server"; done && \
    chown -R handrail:handrail /etc/handrail/brokers /data /public /run/handrail /run/retention /run/tls /keys /tokens /credentials \
        /certificates /brokers
ENV PATH=/opt/handrail/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER handrail
WORKDIR /data
CMD ["handrail", "--help"]
