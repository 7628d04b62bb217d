// An edge node on Eclipse Tahu's JavaScript client. Lines of JSON come in, what is done goes out:
//   {"do": "birth"} {"do": "data", "metrics": [...]} {"do": "device", "metrics": [...]} {"do": "dead"} {"do": "stop"}
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
const require = createRequire(import.meta.url);
const [url, group, edge, device] = process.argv.slice(2);
const sparkplug = require("sparkplug-client");
const Long = require("long");

const say = (what) => process.stdout.write(JSON.stringify(what, (key, v) => (v instanceof Long || Long.isLong(v) ? v.toString() : v)) + "\n");
const client = sparkplug.newClient({
  serverUrl: url, username: "", password: "", groupId: group, edgeNode: edge, clientId: `js-${edge}`, version: "spBv1.0", publishDeath: true,
});
let births = { node: [], device: [] };
const typed = (metrics) =>
  metrics.map((m) => ({ ...m, value: m.long ? Long.fromString(String(m.value), m.long === "u") : m.bytes ? Buffer.from(m.value, "hex") : m.value }));
const born = () => {
  client.publishNodeBirth({ timestamp: Date.now(), metrics: typed(births.node) });
  client.publishDeviceBirth(device, { timestamp: Date.now(), metrics: typed(births.device) });
};

client.on("birth", () => { if (births.node.length) born(); say({ connected: true }); });
client.on("ncmd", (payload) => {
  say({ ncmd: payload.metrics });
  if (payload.metrics.some((m) => m.name === "Node Control/Rebirth" && m.value === true)) born();
});
client.on("dcmd", (to, payload) => say({ dcmd: payload.metrics, device: to }));
client.on("error", (error) => say({ error: String(error) }));

createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  if (order.do === "births") births = order;
  if (order.do === "birth") born();
  if (order.do === "data") client.publishNodeData({ timestamp: Date.now(), metrics: typed(order.metrics) });
  if (order.do === "device") client.publishDeviceData(device, { timestamp: Date.now(), metrics: typed(order.metrics) });
  if (order.do === "dead") client.publishDeviceDeath(device, { timestamp: Date.now() });
  if (order.do === "stop") client.stop();
  say({ done: order.do });
});
