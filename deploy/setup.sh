#!/bin/sh
# Creates what must exist before anything starts: the broker's permissions, keys and tokens. Existing files stay, so that
# permissions that were later generated from stored templates are not lost.
set -eu

permissions=/etc/handrail/permissions/permissions.conf
if [ ! -e "$permissions" ]; then
    handrail nats-permissions --template /etc/handrail/templates/refund.yaml --credentials /credentials \
        --routes nats1:6222,nats2:6222,nats3:6222 --out "$permissions"
fi

# Tokens for a small installation. With an identity provider, give the coordinators its public key instead.
handrail token anna --role finance --keys /operator/keys --lifetime 720h --out /operator/tokens/anna
handrail token ben --role finance --keys /operator/keys --lifetime 720h --out /operator/tokens/ben
handrail token olga --role operator --role starter --keys /operator/keys --lifetime 720h --out /operator/tokens/olga
handrail token vera --role viewer --keys /operator/keys --lifetime 720h --out /operator/tokens/vera
cp /operator/keys/jwt-public.pem /public/jwt-public.pem
