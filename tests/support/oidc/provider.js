// An OpenID provider for tests: the package oidc-provider with people who sign in with any password.
//
//   node provider.js PORT KEYS     KEYS is a file with a private JSON Web Key Set; SIGHUP has it read again
//
// It issues access tokens as JWTs for the audience `handrail`, signed with the first key of the set.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import { Provider } from 'oidc-provider';

const [port, keys] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const device = 'urn:ietf:params:oauth:grant-type:device_code';

// A client on this machine may be at any port.
const web = { application_type: 'native', redirect_uris: ['http://127.0.0.1/sign-in/callback'] };
const code = ['authorization_code', 'refresh_token'];

const ROLES = { olga: ['operator', 'starter'], anna: ['finance'] };

function provider() {
  const jwks = JSON.parse(readFileSync(keys, 'utf8'));
  const api = {
    audience: 'handrail',
    accessTokenFormat: 'jwt',
    accessTokenTTL: Number(process.env.TOKEN_SECONDS ?? 600),
    jwt: { sign: { alg: jwks.keys[0].alg } },
    scope: '',
  };
  return new Provider(issuer, {
    jwks,
    clients: [
      {
        client_id: 'handrail-cli',
        token_endpoint_auth_method: 'none',
        grant_types: [device, 'refresh_token'],
        redirect_uris: [],
        response_types: [],
      },
      { ...web, client_id: 'handrail-console', client_secret: 'the console: alone', grant_types: code },
      { ...web, client_id: 'public-console', token_endpoint_auth_method: 'none', grant_types: code },
      {
        client_id: 'ledger',
        client_secret: 'a secret of the ledger alone',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    clientDefaults: { id_token_signed_response_alg: jwks.keys[0].alg },
    cookies: { keys: ['a key for cookies'] },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:handrail:api',
        getResourceServerInfo: () => api,
        useGrantedResource: () => true,
      },
    },
    extraTokenClaims: (_, token) => ({
      ...(token.accountId
        ? { preferred_username: token.accountId, realm_access: { roles: ROLES[token.accountId] ?? [] } }
        : { preferred_username: token.clientId, agent: token.clientId }),
    }),
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  });
}

let handle = provider().callback();
const server = createServer((request, response) => handle(request, response));
process.on('SIGHUP', () => {
  handle = provider().callback();
  console.log('read the keys again');
});
server.listen(Number(port), '127.0.0.1', () => console.log('ready'));
