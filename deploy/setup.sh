#!/bin/sh
# What has to be there before anything starts: the broker's permissions, keys, tokens. What is there already stays, so that
# permissions which were generated from stored templates later on are not lost.
set -eu

permissions=/etc/handrail/permissions/permissions.conf
if [ ! -e "$permissions" ]; then
    handrail nats-permissions --template /etc/handrail/templates/refund.yaml --credentials /credentials \
        --routes nats1:6222,nats2:6222,nats3:6222 --out "$permissions"
fi

# Tokens of a small installation. One with an identity provider gives the coordinators that one's public key instead.
handrail token anna --role finance --keys /operator/keys --lifetime 720h --out /operator/tokens/anna
handrail token ben --role finance --keys /operator/keys --lifetime 720h --out /operator/tokens/ben
handrail token olga --role operator --role starter --keys /operator/keys --lifetime 720h --out /operator/tokens/olga
handrail token vera --role viewer --keys /operator/keys --lifetime 720h --out /operator/tokens/vera
cp /operator/keys/jwt-public.pem /public/jwt-public.pem
