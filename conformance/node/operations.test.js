// Start, cancel, wait and list with the official Node clients.

import assert from 'node:assert/strict';
import {randomUUID} from 'node:crypto';
import {after, describe, test} from 'node:test';

import {apis, connect} from './clients.js';

const CANCELLED = 1;
// google-gax 5 over REST lets its HTTP library throw first, so the caller sees the HTTP code.
const isNotFound = error => [5, 404].includes(Number(error.code));
const isInvalid = error => [3, 400].includes(Number(error.code));

for (const api of apis) {
  for (const transport of ['grpc', 'rest']) {
    describe(`${api.name} over ${transport}`, {concurrency: true}, () => {
      const client = connect(api, transport);
      const newProject = () => `node-${randomUUID().slice(0, 12)}`;
      after(() => client.close());

      test('a cancelled operation rejects with code 1 and is kept', async () => {
        const project = newProject();
        const [operation] = await api.start(client, project);
        assert.ok(operation.name.startsWith(`${api.parent(project)}/operations/`));
        await operation.cancel();
        await assert.rejects(operation.promise(), {code: CANCELLED});

        const [kept] = await client.getOperation({name: operation.name});
        assert.equal(kept.done, true);
        assert.equal(kept.error.code, CANCELLED);
        assert.ok(!kept.response);
        // Not `operation.metadata`: the library leaves that as it was before the answer that says done.
        const metadata = operation.longrunningDescriptor.metadataDecoder(kept.metadata.value);
        if (api.tellsCancellation) assert.equal(metadata.requestedCancellation, true);
      });

      test('cancelling again and after the end succeeds', async () => {
        const [operation] = await api.start(client, newProject());
        await operation.cancel();
        await client.cancelOperation({name: operation.name});
        await assert.rejects(operation.promise(), {code: CANCELLED});
        await client.cancelOperation({name: operation.name});
      });

      test('an operation left alone resolves to the typed response', async () => {
        const [operation] = await api.start(client, newProject());
        const [response] = await operation.promise();
        assert.ok(api.made(response), JSON.stringify(response));
      });

      test('what never existed is not found', async () => {
        const name = `${api.parent(newProject())}/operations/absent`;
        await assert.rejects(client.getOperation({name}), isNotFound);
        await assert.rejects(client.cancelOperation({name}), isNotFound);
      });

      test('a deleted operation is gone', async () => {
        const [operation] = await api.start(client, newProject());
        await client.deleteOperation({name: operation.name});
        await assert.rejects(client.getOperation({name: operation.name}), isNotFound);
      });

      test('a list holds what was started, where the API can be told', async () => {
        const project = newProject();
        const [operation] = await api.start(client, project);
        const listed = list(client, api.listName(project));
        if (transport === 'rest' && api.name !== 'dataproc') {
          // The REST fallback knows neither a prefix nor a host of its own: several APIs fit this path.
          await assert.rejects(listed, isInvalid);
        } else {
          assert.deepEqual(await listed, [operation.name]);
        }
        await operation.cancel();
      });
    });
  }
}

async function list(client, name) {
  const names = [];
  for await (const operation of client.listOperationsAsync({name, filter: ''})) {
    names.push(operation.name);
  }
  return names;
}
