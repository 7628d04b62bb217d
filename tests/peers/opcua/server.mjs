// node-opcua as the plant of tests/contract/opcua_plant.py: the same commands and answers, one a line; settings as JSON in the first argument.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import {
  ContinuationPointManager, DataType,
  MessageSecurityMode, OPCUACertificateManager, OPCUAServer, SecurityPolicy, StatusCodes, Variant, VariantArrayType, coerceInt64, coerceUInt64,
} from "node-opcua";

const URI = "http://plant.example/line1";
const settings = JSON.parse(process.argv[2]);
const nodes = {};
const say = console.log;
console.log = console.info = console.warn = console.error; // its own words go to the log
let server, namespace, line, last = 0, lastAt = 0;

function variant(value, kind) {
  if (kind === "Int64") value = coerceInt64(value);
  if (kind === "UInt64") value = coerceUInt64(value);
  return new Variant({ dataType: DataType[kind], arrayType: VariantArrayType.Scalar, value });
}

function add(name, kind, value, parent = line) {
  nodes[name] = namespace.addVariable({
    componentOf: parent, browseName: name.split("/").pop(), nodeId: `s=Line1.${name}`, dataType: kind, minimumSamplingInterval: 0,
    accessLevel: "CurrentRead | CurrentWrite | HistoryRead", userAccessLevel: "CurrentRead | CurrentWrite | HistoryRead",
  });
  const at = stamp();
  nodes[name].setValueFromSource(variant(value, kind), StatusCodes.Good, at);
  if (settings.history) server.engine.addressSpace.installHistoricalDataNode(nodes[name], { maxOnlineValues: settings.history_count || 100000 });
}

function stamp() { // its clock counts milliseconds: two values never have the same
  lastAt = Math.max(Date.now(), lastAt + 1);
  return new Date(lastAt);
}

const commands = {
  async say({ first, count, every_s }) {
    const found = {};
    for (let n = first; n < first + count; n++) {
      const at = stamp();
      nodes.Count.setValueFromSource(variant(n, "Int64"), StatusCodes.Good, at);
      found[n] = at.toISOString().replace("Z", "+00:00");
      last = n;
      await new Promise((done) => setTimeout(done, Math.max(1, every_s * 1000)));
    }
    return found;
  },
  async last() { return last; },
  async add_many({ names, below }) {
    const parent = below ? namespace.addObject({ componentOf: line, browseName: below }) : line;
    for (let n = 0; n < names; n++) add(`${below ? `${below}/` : ""}V${n}`, "Int64", 0, parent);
    return names;
  },
  async many({ names, value }) {
    for (let n = 0; n < names; n++) nodes[`V${n}`].setValueFromSource(variant(value, "Int64"), StatusCodes.Good, stamp());
    return names;
  },
  async remove({ name }) {
    namespace.deleteNode(nodes[name].nodeId);
    return true;
  },
  async put_back({ name, value }) {
    add(name, "Int32", value);
    return true;
  },
  async write({ name, value, kind }) {
    const at = stamp();
    nodes[name].setValueFromSource(variant(value, kind), StatusCodes.Good, at);
    return at.toISOString().replace("Z", "+00:00");
  },
  async forget() {
    const sessions = Object.values(server.engine._sessions);
    for (const one of sessions) server.engine.closeSession(one.authenticationToken, true, "Terminated");
    return sessions.length;
  },
  async types() {
    const texts = { String: "00123", Boolean: true, Int32: -5, UInt32: 4294967295, Double: 1e300, Float: 0.1, SByte: -128, Byte: 255, Int16: -32768, UInt16: 65535 };
    for (const [kind, value] of Object.entries(texts)) add(kind, kind, value);
    add("Int64", "Int64", [0x80000000, 0]);
    add("UInt64", "UInt64", [0xffffffff, 0xffffffff]);
    add("Bytes", "ByteString", Buffer.from("00ff", "hex"));
    add("Time", "DateTime", new Date("2026-03-29T01:30:00.123Z"));
    return true;
  },
};

function fewReferences(most) { // in one answer, the others with a point where to go on
  const register = ContinuationPointManager.prototype.registerReferences;
  ContinuationPointManager.prototype.registerReferences = function (asked, values, data) {
    return register.call(this, asked || most, values, data);
  };
}

async function main() {
  if (settings.references) fewReferences(settings.references);
  const certificates = new OPCUACertificateManager({ rootFolder: settings.pki, automaticallyAcceptUnknownCertificate: !settings.strict });
  await certificates.initialize();
  if (settings.trusted) await certificates.trustCertificate(readFileSync(settings.trusted));
  const user = settings.user && { isValidUser: (name, word) => name === settings.user && word === settings.password };
  server = new OPCUAServer({
    port: settings.port, hostname: "127.0.0.1", resourcePath: "/plant", serverCertificateManager: certificates, userManager: user,
    allowAnonymous: !settings.user, disableDiscovery: !!settings.hidden, buildInfo: { productName: "node-opcua plant" },
    serverCapabilities: { // without the first it leaves out what changes faster than every 50 ms
      minSupportedSampleRate: 0, operationLimits: settings.limits, maxHistoryContinuationPoints: settings.points, maxBrowseContinuationPoints: settings.points,
    },
    defaultSecureTokenLifetime: settings.lifetime_ms,
    securityModes: [settings.security ? MessageSecurityMode.SignAndEncrypt : MessageSecurityMode.None],
    securityPolicies: [settings.security ? SecurityPolicy.Basic256Sha256 : SecurityPolicy.None],
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  for (let n = 0; n < (settings.before || 0); n++) space.registerNamespace(`http://other.example/${n}`);
  namespace = space.registerNamespace(URI);
  line = namespace.addObject({ organizedBy: space.rootFolder.objects, browseName: "Line1", nodeId: "s=Line1" });
  add("Count", "Int64", settings.number || 0);
  add("Idle", "Int32", 7);
  await server.start();
  say(JSON.stringify({ ready: true }));
  for await (const text of createInterface({ input: process.stdin })) {
    const { command, given } = JSON.parse(text);
    say(JSON.stringify(await commands[command](given)));
  }
  await server.shutdown(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
