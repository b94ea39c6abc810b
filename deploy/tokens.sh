#!/bin/sh
# Signs the tokens of a small installation. With an identity provider, give the coordinators its key set instead.
set -eu

handrail token anna --role finance --keys /keys --lifetime 720h --out /tokens/anna/token
handrail token ben --role finance --keys /keys --lifetime 720h --out /tokens/ben/token
handrail token olga --role operator --role starter --keys /keys --lifetime 720h --out /tokens/olga/token
handrail token vera --role viewer --keys /keys --lifetime 720h --out /tokens/vera/token
cp /keys/jwt-public.pem /public/jwt-public.pem
