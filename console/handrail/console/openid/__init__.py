"""Signing in at an identity provider by OpenID Connect: the authorization code flow with PKCE, as a client.

1. `Provider.metadata` says where people sign in, and `authorization.link` leads them there. What has to be known when
   they come back is in a `Begun`, which their browser keeps as a sealed cookie (`Seal`).
2. `authorization.code_of` takes the code from the answer, if it is the answer to what this browser asked.
3. `tokens.exchange` gets the tokens for the code, `id_token.check` whether they belong to this sign-in.
4. `tokens.refresh` gets the next token of a session; `Revocations` ends what the provider gave when it is over.

Nothing here knows pages or sessions. The coordinator judges the access token, as it does every other.
"""
