// node-opcua's client against the simulated machines: browses, listens for some seconds, reads a history; prints what it saw as JSON.
import { AttributeIds, ClientSubscription, MessageSecurityMode, OPCUAClient, SecurityPolicy, TimestampsToReturn } from "node-opcua";

const { url, uri, seconds } = JSON.parse(process.argv[2]);
const say = console.log;
console.log = console.info = console.warn = console.error;
const client = OPCUAClient.create({ endpointMustExist: false, securityMode: MessageSecurityMode.None, securityPolicy: SecurityPolicy.None });
await client.connect(url);
const session = await client.createSession();
const index = (await session.readNamespaceArray()).indexOf(uri);
const row = (tag, data) => [tag, data.value.value, data.sourceTimestamp.toISOString().slice(0, 23)];

const found = [];
for (const machine of (await session.browse(`ns=${index};s=Machines`)).references)
  for (const variable of (await session.browse(machine.nodeId.toString())).references)
    if (variable.nodeClass === 2) found.push([`${machine.browseName.name}/${variable.browseName.name}`, variable.nodeId.toString()]);

const subscription = await session.createSubscription2({
  requestedPublishingInterval: 100, requestedLifetimeCount: 1000, requestedMaxKeepAliveCount: 10, maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 0,
});
const changes = [];
for (const [tag, nodeId] of found) {
  const item = await subscription.monitor({ nodeId, attributeId: AttributeIds.Value }, { samplingInterval: 0, queueSize: 1000, discardOldest: true },
    TimestampsToReturn.Both);
  item.on("changed", (data) => changes.push(row(tag, data)));
}
await new Promise((done) => setTimeout(done, seconds * 1000));
const [tag, nodeId] = found.find(([name]) => name.endsWith("/Temperature"));
const kept = await session.readHistoryValue(nodeId, new Date(Date.now() - 3600000), new Date(Date.now() + 3600000));
const history = kept.historyData.dataValues.map((data) => row(tag, data));
say(JSON.stringify({ changes, history }));
await subscription.terminate();
await session.close();
await client.disconnect();
process.exit(0);
