// Cancels with Google's Node client as somebody who may, and as everybody who must not.
// Prints one case a line, in JSON: what the client's user sees. The suite says what it should have been.

const {createRequire} = require('node:module');
const {CloudDeployClient} = require('@google-cloud/deploy');
// The library that the client brings along itself: two majors are installed side by side.
const {GoogleAuth, OAuth2Client, PassThroughClient} = createRequire(require.resolve('@google-cloud/deploy'))(
  'google-auth-library'
);

const transport = process.argv[2];
const {AUTH_OPERATION: ours, AUTH_FOREIGN: theirs} = process.env;
const timeout = {timeout: 20000};

function client(who) {
  const [apiEndpoint, port] = process.env.AUTH_HOST.split(':');
  return new CloudDeployClient({apiEndpoint, port: Number(port), fallback: transport === 'rest', ...who});
}

function token(name) {
  const authClient = new OAuth2Client();
  authClient.setCredentials({access_token: process.env[`AUTH_${name}`]});
  // Over REST a client is taken by its GoogleAuth, over gRPC by itself.
  return transport === 'rest' ? {auth: new GoogleAuth({authClient})} : {authClient};
}

function nobody() {
  const authClient = new PassThroughClient();
  return transport === 'rest' ? {auth: new GoogleAuth({authClient})} : {authClient};
}

const file = name => ({keyFilename: process.env[`AUTH_FILE_${name}`]});

/** What comes of a call, as its caller sees it. */
async function shown(call) {
  try {
    await call();
    return 'done';
  } catch (error) {
    return {
      class: error.constructor.name,
      code: error.code,
      reason: error.reason,
      domain: error.domain,
      metadata: error.errorInfoMetadata,
      message: error.message,
    };
  }
}

const print = (name, got, more) => console.log(JSON.stringify({case: name, shown: got, ...more}));
const cancel = (who, name = ours) => shown(() => client(who).cancelOperation({name}, timeout));

async function main() {
  print('no token', await cancel(nobody()));
  print('an expired token', await cancel(token('EXPIRED')));
  print('another audience', await cancel(token('AUDIENCE')));
  print('alg none', await cancel(token('NONE')));
  print('HMAC with the public key', await cancel(token('HMAC')));
  print('a token without the scope', await cancel(token('SCOPE')));
  print('without the permission', await cancel(file('VIEWER')));
  print("another project's operation", await cancel(file('ADMIN'), theirs));

  const may = client(file('ADMIN'));
  const alike = async (verb, call, there, absent) =>
    print(`hidden: ${verb}`, await shown(() => call(there)), {absent: await shown(() => call(absent))});
  const calls = {
    get: name => may.getOperation({name}, timeout),
    // The client has no call to wait: it makes a handle of a name, which reads the operation at once.
    wait: name => may.checkCreateDeliveryPipelineProgress(name),
    cancel: name => may.cancelOperation({name}, timeout),
    delete: name => may.deleteOperation({name}, timeout),
  };
  for (const [verb, call] of Object.entries(calls)) {
    await alike(verb, call, theirs, process.env.AUTH_FOREIGN_ABSENT);
  }
  const list = name => may.operationsClient.listOperations({name, filter: ''}, timeout);
  await alike('list', list, process.env.AUTH_FOREIGN_PARENT, process.env.AUTH_ABSENT_PARENT);
  print("absent of one's own", await cancel(file('ADMIN'), process.env.AUTH_ABSENT));
  print('permitted, a token', await cancel(token('GOOD'), process.env.AUTH_BY_TOKEN));
  print("permitted, an account's file", await cancel(file('ADMIN'), process.env.AUTH_BY_FILE));
}

main();
