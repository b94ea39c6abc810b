#!/bin/sh
# Creates what the brokers need before they start: their configuration and permissions, and everybody's credentials.
# Existing permissions stay, because they may have been generated from stored templates later.
set -eu

brokers=/etc/handrail/brokers
cp /etc/handrail/nats.conf "$brokers/nats.conf"
if [ ! -e "$brokers/permissions.conf" ]; then
    handrail nats-permissions --template /etc/handrail/templates/refund.yaml --credentials /credentials \
        --routes nats1:6222,nats2:6222,nats3:6222 --out "$brokers/permissions.conf"
fi
