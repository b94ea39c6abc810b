#!/bin/sh
# Creates what must exist before anything starts: the broker's permissions, keys and tokens. Existing files stay, so that
# permissions that were later generated from stored templates are not lost.
set -eu

permissions=/etc/handrail/permissions/permissions.conf
if [ ! -e "$permissions" ]; then
    handrail nats-permissions --template /etc/handrail/templates/refund.yaml --credentials /credentials --passwords \
        --routes nats1:6222,nats2:6222,nats3:6222 --out "$permissions"
fi

# Tokens for a small installation. With an identity provider, give the coordinators its key set instead.
handrail token anna --role finance --keys /keys --lifetime 720h --out /tokens/anna/token
handrail token ben --role finance --keys /keys --lifetime 720h --out /tokens/ben/token
handrail token olga --role operator --role starter --keys /keys --lifetime 720h --out /tokens/olga/token
handrail token vera --role viewer --keys /keys --lifetime 720h --out /tokens/vera/token
cp /keys/jwt-public.pem /public/jwt-public.pem
