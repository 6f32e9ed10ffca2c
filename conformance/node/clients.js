// How each client is pointed at a server of this machine, and the operation that the tests start.

import {createRequire} from 'node:module';

const port = Number(process.env.LONGHAUL_PORT);

/** What a client brings along itself: two majors of one library are installed side by side. */
function broughtBy(packageName) {
  const require = createRequire(createRequire(import.meta.url).resolve(packageName));
  return {
    exported: require(packageName),
    grpc: require('google-gax').grpc,
    auth: require('google-auth-library'),
  };
}

/** Options of CONTRIBUTING's table: an authority over gRPC; plain HTTP and no credentials over REST. */
function optionsFor(api, transport) {
  if (transport === 'grpc') {
    return {
      apiEndpoint: '127.0.0.1',
      port,
      sslCreds: api.grpc.credentials.createInsecure(),
      'grpc.default_authority': `${api.name}.googleapis.com`,
    };
  }
  const authClient = new api.auth.PassThroughClient();
  return {
    apiEndpoint: '127.0.0.1',
    port,
    protocol: 'http',
    fallback: true,
    auth: new api.auth.GoogleAuth({authClient}),
  };
}

export function connect(api, transport) {
  return new api.exported[api.client](optionsFor(api, transport));
}

export const apis = [
  {
    name: 'clouddeploy',
    ...broughtBy('@google-cloud/deploy'),
    client: 'CloudDeployClient',
    parent: project => `projects/${project}/locations/us-central1`,
    listName: project => `projects/${project}/locations/us-central1`,
    start: (client, project) =>
      client.createDeliveryPipeline({
        parent: `projects/${project}/locations/us-central1`,
        deliveryPipelineId: 'web',
        deliveryPipeline: {description: 'made by node'},
      }),
    made: response => response.description === 'made by node',
    tellsCancellation: true,
  },
  {
    name: 'privateca',
    ...broughtBy('@google-cloud/security-private-ca'),
    client: 'CertificateAuthorityServiceClient',
    parent: project => `projects/${project}/locations/us-central1`,
    listName: project => `projects/${project}/locations/us-central1`,
    start: (client, project) =>
      client.createCaPool({
        parent: `projects/${project}/locations/us-central1`,
        caPoolId: 'web',
        caPool: {tier: 'DEVOPS', labels: {made: 'by-node'}},
      }),
    made: response => response.labels.made === 'by-node',
    tellsCancellation: true,
  },
  {
    name: 'dataproc',
    ...broughtBy('@google-cloud/dataproc'),
    client: 'ClusterControllerClient',
    parent: project => `projects/${project}/regions/us-central1`,
    listName: project => `projects/${project}/regions/us-central1/operations`,
    start: (client, project) =>
      client.createCluster({
        projectId: project,
        region: 'us-central1',
        cluster: {projectId: project, clusterName: 'web', config: {}},
      }),
    made: response => response.clusterName === 'web',
    tellsCancellation: false,
  },
];
