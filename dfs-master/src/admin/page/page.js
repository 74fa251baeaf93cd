// Shows what /api/v1/events says, each second. Whatever comes from the cluster is put in as text, never as markup: names
// of files, servers and mounts are any text that somebody chose.
"use strict";

const byId = (id) => document.getElementById(id);
// As many samples as the master keeps.
const HISTORY = 900;

function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1024 && unit + 1 < units.length) { count /= 1024; unit += 1; }
  return `${unit > 0 && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

function span(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 1) return `${ms} ms`;
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}

const took = (us) => us < 1000 ? `${us} us` : us < 1e6 ? `${(us / 1000).toFixed(1)} ms` : `${(us / 1e6).toFixed(1)} s`;
const cost = (milli) => `${(milli / 1000).toFixed(milli < 10000 ? 1 : 0)}/s`;
const sum = (list, of) => list.reduce((all, one) => all + of(one), 0);

// A list of [label, text, class].
function tiles(id, rows) {
  byId(id).replaceChildren(...rows.map(([label, text, name]) => {
    const tile = make("div");
    tile.append(make("dt", label), make("dd", text, name));
    return tile;
  }));
}

function fill(id, rows) {
  document.querySelector(`#${id} tbody`).replaceChildren(...rows);
}

function row(head, cells) {
  const line = make("tr");
  const first = make("th");
  first.scope = "row";
  first.append(head);
  line.append(first);
  for (const cell of cells) {
    const at = make("td");
    if (cell instanceof Node) at.append(cell); else at.textContent = cell;
    line.append(at);
  }
  return line;
}

function alerts(list) {
  if (list.length === 0) {
    byId("alerts").replaceChildren(make("li", "Nothing.", "none"));
    return;
  }
  byId("alerts").replaceChildren(...list.map((alert) => {
    const item = make("li", undefined, alert.level);
    item.append(make("strong", alert.what), make("small", alert.todo));
    return item;
  }));
}

function serverState(server) {
  if (server.maintenance_ms !== null) return make("span", `${server.up ? "up" : "down"}, maintenance for ${span(server.maintenance_ms)}`, "warn");
  const heard = server.silent_ms === null ? "never heard" : `heard ${span(server.silent_ms)} ago`;
  if (!server.up && server.removable && server.given_up === 0) return make("span", "drained, gone");
  if (!server.up) return make("span", `down, ${heard}`, "bad");
  if (server.draining) return make("span", server.removable ? "drained" : "draining", "warn");
  return make("span", "up", "good");
}

function disks(list) {
  const all = make("span");
  for (const disk of list) {
    const used = disk.total_bytes - disk.free_bytes;
    const line = make("span", undefined, "disk");
    const meter = make("meter");
    meter.max = Math.max(disk.total_bytes, 1);
    meter.high = meter.max * 0.9;
    meter.value = used;
    meter.textContent = `${bytes(used)} used`;
    line.append(meter, ` ${bytes(disk.free_bytes)} free of ${bytes(disk.total_bytes)} `, make("span", disk.path, "faint"));
    if (disk.failed !== null) line.append(make("span", ` failed: ${disk.failed}`, "bad"));
    all.append(line);
  }
  return all;
}

function servers(list) {
  fill("server-table", list.map((server) => {
    const name = make("span", server.name);
    name.append(make("span", ` ${server.addr.tcp}`, "faint"));
    const up = server.up;
    return row(name, [
      serverState(server),
      up ? `${Math.round(server.utilisation_permille / 10)} %` : "",
      up ? server.queue : "",
      up ? `${bytes(server.traffic.bytes_in_per_s)}/s` : "",
      up ? `${bytes(server.traffic.bytes_out_per_s)}/s` : "",
      up ? took(server.traffic.service_p50_us) : "",
      up ? took(server.traffic.service_p99_us) : "",
      server.replicas,
      disks(server.disks),
    ]);
  }));
}

function chunkTiles(status) {
  const trouble = (label, count) => [label, String(count), count > 0 ? "bad" : ""];
  tiles("chunk-tiles", [
    ["Chunks", String(status.chunks)],
    ["Goal", `${status.goal} replicas`],
    trouble("Below goal", status.chunks_below_goal),
    trouble("Recovering", status.chunks_recovering),
    trouble("Unavailable", status.chunks_unavailable),
    trouble("Damaged blocks", status.blocks_damaged),
    trouble("Without a good copy", status.blocks_hopeless),
    trouble("Quarantined replicas", status.replicas_unknown),
    trouble("Replicas that differed", status.replicas_diverged),
    ["Open for writing", String(status.chunks_open)],
    ["Moving", String(status.moving)],
    ["To be deleted", String(status.tombstones)],
  ]);
}

function masterTiles(status, master) {
  tiles("master-tiles", [
    ["On hold", status.hold === null ? "no" : status.hold, status.hold === null ? "good" : "bad"],
    ["Up", span(status.uptime_ms)],
    ["Term", String(status.term)],
    ["Log", `record ${status.last_index}`],
    ["Not on the disk yet", `${status.last_index - status.durable_index} records`],
    ["Since the snapshot", `${status.last_index - status.snapshot_index} records, ${span(master.snapshot_age_ms)}`],
    ["Answers, p50 and p99", `${took(master.answer_p50_us)}, ${took(master.answer_p99_us)}`],
    ["Log syncs, p50 and p99", `${took(master.sync_p50_us)}, ${took(master.sync_p99_us)}`],
    ["Waiting requests", String(master.queue)],
  ]);
  fill("copy-table", status.copies.map((copy) =>
    row(copy.server, [`record ${copy.index}`, `${copy.behind} records`, make("span", copy.trouble ?? "", "bad")])));
}

function mounts(sessions) {
  fill("mount-table", sessions.map((session) => row(session.name, [
    session.connected ? make("span", "connected", "good") : make("span", "no connection", "bad"),
    `${span(session.silent_ms)} ago`,
    session.open_files,
  ])));
}

function changes(list) {
  if (list.length === 0) {
    byId("change-list").replaceChildren(make("li", "Nothing was raised or lowered since this master leads.", "faint"));
    return;
  }
  byId("change-list").replaceChildren(...list.map((change) => {
    const item = make("li");
    const when = make("time", new Date(change.unix_s * 1000).toLocaleTimeString());
    item.append(when, " ", make("strong", change.path === "" ? `chunk ${change.chunk}` : change.path), ` ${change.what}`);
    return item;
  }));
}

// What was sampled each few seconds, the oldest first.
let history = [];

function polyline(values, most, name) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  // The newest is at the right end, and a young master's few samples don't fill the width.
  const room = Math.max(values.length, 60);
  const step = 600 / (room - 1);
  const from = room - values.length;
  line.setAttribute("points", values.map((value, at) => `${((from + at) * step).toFixed(1)},${(118 - 114 * value / most).toFixed(1)}`).join(" "));
  line.setAttribute("class", name);
  return line;
}

function charts() {
  const out = history.map((sample) => sample.bytes_out_per_s);
  const into = history.map((sample) => sample.bytes_in_per_s);
  const most = Math.max(1, ...out, ...into);
  byId("throughput").replaceChildren(polyline(out, most, "line-a"), polyline(into, most, "line-b"));
  const slow = history.map((sample) => sample.p99_us);
  byId("latency").replaceChildren(polyline(slow, Math.max(1, ...slow), "line-a"));
}

function chartWords(servers) {
  const up = servers.filter((server) => server.up);
  const into = sum(up, (server) => server.traffic.bytes_in_per_s);
  const out = sum(up, (server) => server.traffic.bytes_out_per_s);
  byId("throughput-now").replaceChildren(make("span", `${bytes(out)}/s out`, "key-a"), ", ", make("span", `${bytes(into)}/s in`, "key-b"));
  byId("latency-now").textContent = took(Math.max(0, ...up.map((server) => server.traffic.service_p99_us)));
}

function heat(report) {
  byId("heat-note").textContent = report.chunks.length === 0
    ? "Nothing is read or written."
    : `A replica is hot from a cost of ${cost(report.max_milli)} on: one a request, and one for each 64 KiB.`;
  const most = Math.max(report.max_milli, 1);
  fill("heat-table", report.chunks.map((chunk) => {
    const name = make("span", `${chunk.path}, chunk ${chunk.index}`);
    const replicas = `${chunk.replicas.length} of goal ${chunk.goal}${chunk.to_come > 0 ? `, ${chunk.to_come} to come` : ""}: ${chunk.replicas.join(", ")}`;
    const cells = make("span", undefined, "cells");
    const past = history.slice(-60).map((sample) => sample.hot.find((hot) => hot.chunk === chunk.chunk)?.milli ?? 0);
    cells.setAttribute("role", "img");
    cells.setAttribute("aria-label", `from ${cost(past[0] ?? 0)} to ${cost(past[past.length - 1] ?? 0)}`);
    for (const milli of past) {
      const cell = make("i");
      cell.style.setProperty("--share", Math.min(1, milli / most / Math.max(chunk.replicas.length, 1)).toFixed(2));
      cells.append(cell);
    }
    const line = row(name, [cost(chunk.read_milli), cost(chunk.write_milli), replicas, cells]);
    return line;
  }));
}

function show(view) {
  const { status, servers: reports } = view;
  byId("about").textContent = `cluster ${status.cluster}, version ${status.version}`;
  document.title = view.alerts.length === 0 ? "dfs" : `(${view.alerts.length}) dfs`;
  alerts(view.alerts);
  const used = status.total_bytes - status.free_bytes;
  tiles("tiles", [
    ["Servers up", `${status.servers_up} of ${status.servers_known}`, status.servers_up === status.servers_known ? "good" : "bad"],
    ["Used", `${bytes(used)} of ${bytes(status.total_bytes)}`],
    ["Free", bytes(status.free_bytes)],
    ["Files and directories", String(status.inodes)],
    ["Mounts", String(status.sessions)],
    ["Replicas raised, lowered", `${view.policy.raising} to come, ${view.policy.lowering} to go`],
  ]);
  servers(reports.servers);
  chunkTiles(status);
  chartWords(reports.servers);
  if (view.sample !== null) {
    history = [...history.filter((sample) => sample.at_ms < view.sample.at_ms), view.sample].slice(-HISTORY);
    charts();
  }
  heat(view.heat);
  changes(view.changes.changes);
  mounts(view.sessions.sessions);
  masterTiles(status, view.master);
}

function live(text, lost) {
  byId("live").textContent = text;
  byId("live").className = lost ? "lost" : "";
}

async function start() {
  try {
    const past = await fetch("/api/v1/history");
    if (past.ok) history = (await past.json()).samples;
  } catch { /* What is to come is shown without it. */ }
  charts();
  const events = new EventSource("/api/v1/events");
  events.addEventListener("view", (event) => {
    show(JSON.parse(event.data));
    live(`live, ${new Date().toLocaleTimeString()}`, false);
    document.body.dataset.ready = "yes";
  });
  events.addEventListener("refused", (event) => live(`the master does not answer: ${JSON.parse(event.data)}`, true));
  events.onerror = () => live("no connection to the master; what is shown is old", true);
}

start();
