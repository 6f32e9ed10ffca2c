// Cancels with Google's Node client as somebody who may, and as some who must not.
// Prints one case a line: its name, what came, what is wanted, divided by tabs.

const {CloudDeployClient} = require('@google-cloud/deploy');

const transport = process.argv[2];
const operation = process.env.AUTH_OPERATION;
const denied = 'PERMISSION_DENIED IAM_PERMISSION_DENIED clouddeploy.googleapis.com clouddeploy.operations.cancel';
const names = {7: 'PERMISSION_DENIED', 16: 'UNAUTHENTICATED', 403: 'PERMISSION_DENIED', 401: 'UNAUTHENTICATED'};

async function cancel(keyFilename, name = operation) {
  const client = new CloudDeployClient({
    apiEndpoint: 'localhost',
    port: Number(process.env.AUTH_PORT),
    keyFilename,
    fallback: transport === 'rest',
  });
  try {
    await client.cancelOperation({name}, {timeout: 20000});
    return 'cancelled';
  } catch (error) {
    const about = error.errorInfoMetadata ?? {};
    return `${names[error.code] ?? error.code} ${error.reason} ${error.domain} ${about.permission ?? error.message}`;
  }
}

async function main() {
  const {AUTH_FILE, AUTH_VIEWER, AUTH_FOREIGN} = process.env;
  const cases = [
    ['an identity without the permission', await cancel(AUTH_VIEWER), denied],
    ['an operation of another project', await cancel(AUTH_FILE, AUTH_FOREIGN), denied],
    ['a permitted cancel with a service-account file', await cancel(AUTH_FILE), 'cancelled'],
  ];
  for (const line of cases) console.log(line.join('\t'));
}

main();
