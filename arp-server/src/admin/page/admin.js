// The page of the admin port: asks the relay every few seconds and draws. No library, nothing from elsewhere.
"use strict";

const TEXTS = {
  en: {
    key: "Admin key", enter: "Open", leave: "Lock", where: "It is in the file admin-key of the relay's data directory; on the relay's machine: sudo cat /var/lib/arps/admin-key",
    lost: "The relay does not answer; trying again.", now_requests: "Requests a second, last ten minutes (orange: refused)",
    now_bytes: "Bytes a second, last ten minutes (blue: to visitors, orange: from them)", days: "Bytes a day, last thirty days (UTC)",
    clients: "Clients", client: "Client", state: "State", from: "From", tunnels: "Tunnels idle / used / waiting", requests: "Requests",
    traffic: "Traffic in / out", refused: "Refused, by reason", bans: "Bans", none: "none", settings: "settings",
    edges: "edge agents online", visitors: "visitor connections", idle: "tunnels idle", used: "tunnels in use", waiting: "requests waiting",
    hits: "found a tunnel at once", timeouts: "waited in vain", failed: "failed handshakes", memory: "memory", descriptors: "descriptors",
    today: "requests today", store: "store", writable: "writable", broken: "CANNOT BE WRITTEN", online: "online", offline: "offline",
    kick: "Disconnect", ban: "Ban", forget: "Forget", unban: "End", up: "up", stopping: "stopping", denied: "That key is wrong.",
    sure_kick: "Disconnect this client? It will come back by itself.", sure_ban: "Ban this client, by its id and its key?",
    sure_forget: "Free this client's names? Whoever registers them next has them.", language: "中文", other: "could not be done",
    more: "further clients; arps clients lists all",
  },
  zh: {
    key: "管理密钥", enter: "进入", leave: "锁定", where: "密钥在中继数据目录的 admin-key 文件里；在中继所在的机器上：sudo cat /var/lib/arps/admin-key",
    lost: "中继没有响应，正在重试。", now_requests: "每秒请求数，最近十分钟（橙色：被拒绝）",
    now_bytes: "每秒字节数，最近十分钟（蓝色：发给访客，橙色：来自访客）", days: "每日字节数，最近三十天（UTC）",
    clients: "客户端", client: "客户端", state: "状态", from: "来自", tunnels: "隧道 空闲 / 使用 / 等待", requests: "请求",
    traffic: "流量 入 / 出", refused: "拒绝原因", bans: "封禁", none: "无", settings: "配置文件",
    edges: "在线边缘代理", visitors: "访客连接", idle: "空闲隧道", used: "使用中的隧道", waiting: "等待中的请求",
    hits: "立即得到隧道", timeouts: "等待超时", failed: "失败的握手", memory: "内存", descriptors: "文件描述符",
    today: "今日请求", store: "存储", writable: "可写", broken: "无法写入", online: "在线", offline: "离线",
    kick: "断开", ban: "封禁", forget: "遗忘", unban: "解除", up: "已运行", stopping: "正在停止", denied: "密钥不对。",
    sure_kick: "断开这个客户端？它会自己重新连接。", sure_ban: "按 ID 和密钥封禁这个客户端？",
    sure_forget: "释放这个客户端的名字？下一个注册者将得到它们。", language: "English", other: "未能完成",
    more: "个其他客户端；arps clients 列出全部",
  },
};
const EVERY = 3000;
const SHOWN = 500; // clients
const SPAN = 600; // seconds of the charts of now
const store = (kind, name, value) => {
  // Where a browser keeps nothing, the page works all the same.
  try { return value === undefined ? window[kind].getItem(name) : window[kind].setItem(name, value); } catch { return null; }
};
let language = store("localStorage", "language") || (navigator.language.startsWith("zh") ? "zh" : "en");
let key = store("sessionStorage", "key") || "";
let timer = 0;
const $ = (id) => document.getElementById(id);
const t = (name) => TEXTS[language][name] || name;

function make(tag, fields = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, fields);
  element.append(...children);
  return element;
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  $("language").textContent = t("language");
}

function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (n >= 1000 && at < units.length - 1) { n /= 1000; at += 1; }
  return `${n < 10 && at > 0 ? n.toFixed(1) : Math.round(n)} ${units[at]}`;
}

const number = (n) => n.toLocaleString(language === "zh" ? "zh-CN" : "en");

function time(s) {
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

async function ask(path, method = "GET") {
  const answer = await fetch(path, { method, headers: { authorization: `Bearer ${key}` }, cache: "no-store" });
  if (answer.status === 401 || answer.status === 429) throw { denied: true };
  const body = await answer.json();
  if (!answer.ok) throw { message: body.message };
  return body;
}

function shape(tag, fields) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(fields)) element.setAttribute(name, value);
  return element;
}

// A label at the top says what the full height is.
function label(svg, text) {
  const element = shape("text", { x: 4, y: 12 });
  element.textContent = text;
  svg.append(element);
  svg.setAttribute("aria-label", text);
}

// The newest at the right; what there is not yet, at the left, stays empty.
function lines(svg, rows, step, unit) {
  svg.replaceChildren();
  const [width, height] = [svg.clientWidth || 300, svg.clientHeight || 96];
  const top = Math.max(1e-9, ...rows.flatMap(([, values]) => values));
  for (const [name, values] of rows) {
    const x = (i) => width - ((values.length - 1 - i) * step * width) / SPAN;
    const points = values.map((v, i) => `${x(i).toFixed(1)},${(height - 2 - (v / top) * (height - 18)).toFixed(1)}`);
    svg.append(shape("polyline", { class: name, points: points.join(" ") }));
  }
  label(svg, unit(top < 1e-8 ? 0 : top));
}

function bars(svg, values, titles, unit) {
  svg.replaceChildren();
  const [width, height] = [svg.clientWidth || 300, svg.clientHeight || 96];
  const top = Math.max(1, ...values);
  const each = width / Math.max(values.length, 1);
  values.forEach((v, i) => {
    const h = (v / top) * (height - 18);
    const bar = shape("rect", { x: i * each + 1, y: height - h, width: Math.max(each - 2, 1), height: h });
    const title = shape("title", {});
    title.textContent = titles[i];
    bar.append(title);
    svg.append(bar);
  });
  label(svg, unit(Math.max(...values, 0)));
}

function cards(status, traffic) {
  const today = traffic.days.at(-1) || { requests: 0 };
  const { checkouts: c, failed: f } = status;
  const asked = c.hit + c.miss + c.timeout;
  const rows = [
    [`${status.edges.online} / ${status.edges.known}`, "edges"], [number(status.visitors), "visitors"],
    [number(today.requests), "today"], [number(status.tunnels.idle), "idle"], [number(status.tunnels.used), "used"],
    [status.tunnels.waiting, "waiting", status.tunnels.waiting > 0],
    [asked ? `${((100 * c.hit) / asked).toFixed(1)} %` : "–", "hits"], [number(c.timeout), "timeouts", c.timeout > 0],
    [number(f.control + f.proxy + f.public), "failed"],
    [status.memory ? bytes(status.memory) : "–", "memory"], [status.descriptors ? number(status.descriptors) : "–", "descriptors"],
    [status.store_writable ? t("writable") : t("broken"), "store", !status.store_writable],
  ];
  $("cards").replaceChildren(...rows.map(([value, name, bad]) =>
    make("div", { className: bad ? "card bad" : "card" }, make("b", {}, String(value)), make("span", {}, t(name)))));
}

function action(name, of, run, question) {
  const button = make("button", { type: "button" }, t(name));
  button.dataset.act = `${name} ${of}`;
  button.addEventListener("click", async () => {
    if (question && !window.confirm(t(question))) return;
    try { await run(); } catch (e) { if (e.message) window.alert(`${t("other")}: ${e.message}`); }
    look();
  });
  return button;
}

// A button that is about to be pressed stays where it is, and one that has the focus keeps it.
let pressed = false;
function redraw(body, rows) {
  if (pressed) return;
  const held = document.activeElement?.dataset?.act;
  body.replaceChildren(...rows);
  if (held) [...body.querySelectorAll("[data-act]")].find((button) => button.dataset.act === held)?.focus();
}

function clients(rows) {
  const order = (a, b) => Number(b.online) - Number(a.online) || a.id.localeCompare(b.id, undefined, { numeric: true });
  const body = rows.slice().sort(order).slice(0, SHOWN).map((c) => {
    const at = `/api/clients/${encodeURIComponent(c.id)}/`;
    const actions = make("td", { className: "actions" });
    if (c.online) actions.append(action("kick", c.id, () => ask(`${at}kick`, "POST"), "sure_kick"));
    actions.append(action("ban", c.id, () => ask(`${at}ban`, "POST"), "sure_ban"));
    if (!c.online) actions.append(action("forget", c.id, () => ask(`${at}forget`, "POST"), "sure_forget"));
    // On a narrow screen each cell says itself what it is.
    const cell = (name, text) => {
      const element = make("td", {}, text);
      element.dataset.label = t(name);
      return element;
    };
    const cells = [
      make("td", { title: c.key || "" }, c.id),
      cell("state", c.online ? `${t("online")} ${time(c.since)}` : t("offline")),
      cell("from", c.online ? `${c.peer} ${c.agent || ""}` : "–"),
      cell("tunnels", c.online ? `${c.idle} / ${c.used} / ${c.waiting}` : "–"),
      cell("requests", number(c.traffic.requests)),
      cell("traffic", `${bytes(c.traffic.bytes_in)} / ${bytes(c.traffic.bytes_out)}`),
      actions,
    ];
    return make("tr", { className: c.online ? "" : "off" }, ...cells);
  });
  if (rows.length > SHOWN) body.push(make("tr", {}, make("td", { colSpan: 7 }, `${number(rows.length - SHOWN)} ${t("more")}`)));
  redraw($("clients").tBodies[0], body);
}

function table(id, rows) {
  const empty = [make("tr", {}, make("td", {}, t("none")))];
  redraw($(id).tBodies[0], rows.length ? rows : empty);
}

let busy = false;
async function look() {
  if (busy || !key) return;
  busy = true;
  clearTimeout(timer);
  const asked = key;
  try {
    const [status, rows, traffic, bans] = await Promise.all(
      ["status", "clients", "traffic", "bans"].map((what) => ask(`/api/${what}`)));
    // Locked meanwhile: what comes late opens nothing.
    if (key !== asked) { busy = false; if (key) look(); return; }
    $("door").hidden = true;
    $("key").value = "";
    $("main").hidden = $("leave").hidden = false;
    $("lost").hidden = true;
    $("about").textContent = `${status.version} · ${status.serving ? t("up") : t("stopping")} ${time(status.uptime)} · ${status.public} · ${status.fingerprint}`;
    cards(status, traffic);
    const each = (of) => traffic.samples.map((s) => s[of] / traffic.step);
    lines($("requests"), [["a", each("requests")], ["b", each("refused")]], traffic.step, (n) => `${n.toFixed(1)} /s`);
    lines($("bytes"), [["a", each("bytes_out")], ["b", each("bytes_in")]], traffic.step, (n) => `${bytes(n)}/s`);
    const days = traffic.days.slice(-30);
    const of = (d) => d.bytes_in + d.bytes_out;
    const date = (d) => new Date(d.day * 86400000).toISOString().slice(0, 10);
    bars($("days"), days.map(of), days.map((d) => `${date(d)}: ${bytes(of(d))}, ${d.requests} ${t("requests")}`), bytes);
    clients(rows);
    const refused = status.refused.slice().sort((a, b) => b.count - a.count);
    table("refused", refused.map((r) => make("tr", {}, make("td", {}, `${r.what}: ${r.code}`), make("td", {}, number(r.count)))));
    table("bans", [
      ...bans.given.map((b) => make("tr", {}, make("td", {}, b), make("td", { className: "actions" },
        action("unban", b, () => ask(`/api/bans/${encodeURIComponent(b)}`, "DELETE"))))),
      ...bans.settings.map((b) => make("tr", {}, make("td", {}, b), make("td", {}, t("settings")))),
    ]);
  } catch (e) {
    if (key !== asked) { busy = false; if (key) look(); return; }
    if (e.denied) { lock(true); busy = false; return; }
    $("lost").hidden = false;
  }
  busy = false;
  // Nobody sees a page in the background.
  if (!document.hidden) timer = setTimeout(look, EVERY);
}

function lock(denied) {
  clearTimeout(timer);
  key = "";
  store("sessionStorage", "key", "");
  $("main").hidden = $("leave").hidden = true;
  $("door").hidden = false;
  $("denied").textContent = denied ? t("denied") : "";
  $("about").textContent = "";
  $("key").value = "";
  $("key").focus();
}

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  store("sessionStorage", "key", key);
  look();
});
$("leave").addEventListener("click", () => lock(false));
$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  store("localStorage", "language", language);
  translate();
  if (key) look();
});
document.addEventListener("visibilitychange", () => { if (key && !document.hidden) look(); });
document.addEventListener("pointerdown", () => { pressed = true; });
for (const end of ["pointerup", "pointercancel", "blur"]) window.addEventListener(end, () => { pressed = false; });
translate();
if (key) look(); else lock(false);
