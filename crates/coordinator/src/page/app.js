// The live page: sweeps, the chosen one's runs, curves and law, the workers. It reads /api/v1 like any client, changes
// nothing, and puts every text in as text.

import { chart, count, power } from "/chart.js";

const POLL_MS = 2000;
const RUNS_AT_POLL = 200; // sweeps with more runs are looked at less often in proportion
const FIT_MS_MIN = 15000; // a fit costs the coordinator seconds: not more often than this
const FIT_RESAMPLES = 100; // while runs are live; the law of an ended sweep is the report's
const ARMS = 6;
const RUNS_MANY = 2000; // of a sweep with more the page shows the first runs as rows, without curves
const ROWS_SHOWN = 500;

const byId = (id) => document.getElementById(id);
const state = { sweep: null, fit: null, fitFor: "", fitAt: 0, drawn: new Map(), runs: 0 };

/** An element with properties and children; strings become text nodes. */
const h = (name, properties = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "style") Object.assign(element.style, value); else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
};

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `status ${status}`);
    this.status = status;
  }
}

const get = async (path) => {
  const token = sessionStorage.getItem("token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(`/api/v1${path}`, { headers, cache: "no-store" });
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer.json();
};

/** Every page of a list. */
const list = async (path, key) => {
  const all = [];
  let after = "";
  do {
    const page = await get(`${path}${after}`);
    all.push(...page[key]);
    after = page.next ? `?after=${encodeURIComponent(page.next)}` : "";
  } while (after);
  return all;
};

const duration = (seconds) => {
  if (seconds === undefined || seconds === null) return "";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
};
const bits = (value) => (value === undefined ? "" : value.toFixed(3));
const total = (counts) => Object.values(counts).reduce((sum, number) => sum + number, 0);
const words = (counts) => Object.entries(counts).filter(([, number]) => number > 0).map(([name, number]) => `${number} ${name}`).join(", ");

/** Replaces what an element holds, only when the data behind it changed: selections and scrolling survive. */
const show = (id, data, build) => {
  const text = JSON.stringify(data);
  if (state.drawn.get(id) === text) return;
  state.drawn.set(id, text);
  byId(id).replaceChildren(...build().filter(Boolean));
};

const bar = (share, kind = "") => {
  const fill = h("i", { className: kind, style: { width: `${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%` } });
  return h("div", { className: "bar" }, fill);
};

// Sweeps

const empty = (workers) => h("div", { className: "empty" },
  h("p", {}, h("b", {}, "No sweep yet.")),
  h("p", {}, "Hand one in; it shows up here by itself:"),
  h("pre", {}, "isoloss submit sweeps/quickstart.toml"),
  workers.length ? null : h("p", {}, "No worker has called either. On any machine that can reach this one:"),
  workers.length ? null : h("pre", {}, `isoloss worker --server ${location.origin}`),
  h("p", { className: "muted" }, "Or do both on one machine at once:"),
  h("pre", {}, "isoloss up"));

const sweepCard = (row) => h("a", {
  className: row.sweep_id === state.sweep ? "card here" : "card",
  href: `#${row.sweep_id}`,
},
  h("div", { className: "row" }, h("b", {}, row.name), h("span", { className: "muted" }, row.phase)),
  bar(row.progress_ratio, row.phase === "ended" ? "ended" : ""),
  h("div", { className: "row" }, h("span", {}, words(row.counts)), h("span", {}, row.eta_seconds ? duration(row.eta_seconds) : "")));

const drawSweeps = (sweeps, surveys, workers) => show("sweeps", [sweeps, surveys, workers.length, state.sweep], () => [
  ...surveys.map((survey) => h("p", { className: "note" }, `${survey.file}: ${survey.phase}, ${duration(survey.seconds)}`)),
  sweeps.length === 0 && surveys.length === 0 ? empty(workers) : h("div", { className: "cards" }, sweeps.map(sweepCard)),
]);

// One sweep

const number = (name, value, note = "") => h("div", {}, h("span", {}, name), h("b", {}, value), h("span", {}, note));

const summary = (row) => h("div", { className: "numbers" },
  number("runs ended", `${total(row.counts) - row.counts.pending - row.counts.blocked - row.counts.leased} of ${total(row.counts)}`, words(row.counts)),
  number("done", `${(100 * row.progress_ratio).toFixed(0)} %`, row.eta_seconds ? `${duration(row.eta_seconds)} left` : row.phase),
  number("speed", row.tokens_per_second > 0 ? `${count(row.tokens_per_second)}/s` : "idle", "tokens per second"),
  number("best", row.best_bits_per_byte === undefined ? "none yet" : bits(row.best_bits_per_byte), "bits per byte"));

const lawNumbers = (fit, preliminary) => {
  const law = fit && fit.laws.find((one) => one.name === fit.chosen);
  if (!law) return null;
  const verdict = law.identified ? "identified" : `the runs do not identify it yet: ${law.reasons.join("; ")}`;
  const head = [h("h3", {}, preliminary ? "The law so far, intervals preliminary" : "The law"), h("p", { className: "note" }, `${law.name}, L(N, D) = ${law.formula}; ${verdict}`)];
  // Numbers that the data do not pin down would be read all the same.
  if (!law.identified) return head;
  const range = (name) => (law.intervals[name] ? `[${law.intervals[name].map((end) => end.toFixed(3)).join(", ")}]` : "");
  const cells = Object.entries(law.parameters)
    .filter(([name]) => ["E", "alpha", "beta", "q"].includes(name))
    .map(([name, value]) => number(name, value.toFixed(3), range(name)));
  const best = fit.allocation;
  if (best && best.identified) {
    cells.push(number("tokens per param", best.tokens_per_param.toFixed(1), `optimal at ${power(best.flops)} FLOPs`));
  }
  for (const arm of fit.experts) {
    if (arm.effective_over_active) cells.push(number(arm.arm, `${arm.effective_over_active.toFixed(2)}×`, "effective dense over active"));
  }
  return [...head, h("div", { className: "numbers" }, cells)];
};

const lossOf = (law, n, d) => {
  const { E = 0, A, alpha, B, q = 1 } = law.parameters;
  const beta = law.parameters.beta ?? alpha;
  return E + ((A * n ** -alpha) ** (1 / q) + (B * d ** -beta) ** (1 / q)) ** q;
};

const figure = (name, svg) => svg && h("figure", {}, h("figcaption", {}, name), svg);

const figures = (detail, results, fit) => {
  const colour = (arm) => `--arm${Math.max(0, detail.arms.indexOf(arm)) % ARMS}`;
  const runs = results.filter((one) => one.row.kind === "run");
  const part = detail.manifests[0] && detail.manifests[0].validation;
  const truth = part && part.true_bits ? [{ y: part.true_bits / part.bytes, colour: "--truth", name: "true entropy" }] : [];
  const name = (one) => `${one.row.arm} ${one.row.run_id.slice(0, 12)}, ${count(one.row.params_active_non_embedding)} active params`;
  const curves = runs.filter((one) => one.curve.length > 1).map((one) => ({
    points: one.curve.map((point) => [point.tokens, point.bits_per_byte]),
    colour: colour(one.row.arm), line: true, faint: one.row.state !== "leased", title: name(one),
  }));
  const scored = runs.filter((one) => one.row.bits_per_byte !== undefined);
  const points = (at) => scored.map((one) => ({
    points: [[at(one.row), one.row.bits_per_byte]], colour: colour(one.row.arm), title: `${name(one)}, ${bits(one.row.bits_per_byte)}`,
  }));
  const law = fit && fit.laws.find((one) => one.name === fit.chosen);
  const lines = law && law.parameters.A && law.parameters.B ? lawLines(law, scored.filter((one) => fit.arms.includes(one.row.arm))) : [];
  return h("div", { className: "figures" },
    figure("Live curves", chart(curves, truth, { x: "tokens", y: "bits per byte", word: count })),
    figure("Loss against size", chart([...lines, ...points((row) => row.params_active_non_embedding)], truth,
      { x: "active non-embedding params", y: "bits per byte", word: count })),
    figure("Loss against budget", chart(points((row) => row.flops), truth, { x: "training FLOPs", y: "bits per byte", word: power })));
};

/** The law at each budget of tokens that several sizes share. */
const lawLines = (law, done) => {
  const sizes = done.map((one) => one.row.params_active_non_embedding);
  const groups = [...new Set(done.map((one) => one.row.tokens))];
  if (groups.length > 8 || sizes.length === 0) return [];
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)];
  const axis = Array.from({ length: 41 }, (_, i) => low * (high / low) ** (i / 40));
  return groups.map((tokens) => ({ points: axis.map((n) => [n, lossOf(law, n, tokens)]), colour: "--law", line: true, faint: true,
    bare: true, width: 1, title: `${law.name} law at ${count(tokens)} tokens` }));
};

/** Share of a live run's steps; a child that has not spoken yet knows of none. */
const done = (live) => (live.steps > 0 ? live.step / live.steps : 0);

const runRow = (row) => {
  const live = row.live;
  const progress = live ? [bar(done(live)), live.steps ? ` ${live.step}/${live.steps}` : " starting"] : [];
  return h("tr", {},
    h("td", {}, h("code", {}, row.run_id.slice(0, 12)), row.kind === "trunk" ? " trunk" : ""), h("td", {}, row.arm),
    h("td", { className: `state-${row.state}`, title: row.reason ?? "" }, row.state), h("td", {}, ...progress),
    h("td", { className: "n" }, count(row.params_active_non_embedding)), h("td", { className: "n" }, count(row.tokens)),
    h("td", { className: "n" }, power(row.flops)), h("td", { className: "n" }, bits(row.bits_per_byte ?? (live && live.bits_per_byte))),
    h("td", { className: "n" }, live && live.tokens_per_second ? count(live.tokens_per_second) : ""),
    h("td", { className: "n" }, duration(row.seconds ?? (live && live.seconds))), h("td", {}, device(live ?? row)));
};

/** Where a run is or was: the slot, and of a GPU how it is called and whether through MPS. */
const device = ({ device, gpu }) => {
  const said = gpu ? [gpu.name, gpu.mps ? "through MPS" : null].filter(Boolean).join(", ") : "";
  return said ? `${device ?? gpu.uuid} (${said})` : device ?? "";
};

const runTable = (rows) => h("div", { className: "scroll" }, h("table", {},
  h("thead", {}, h("tr", {}, ["run", "arm", "state", "step", "active params", "tokens", "FLOPs", "bits/byte", "tokens/s", "time", "device"]
    .map((name, i) => h("th", { className: i > 3 && i < 10 ? "n" : "" }, name)))),
  h("tbody", {}, rows.map(runRow))));

const drawSweep = (detail, results, fit, refusal, preliminary) => show("sweep", [detail.sweep, results, fit, refusal, preliminary], () => [
  h("h2", {}, detail.sweep.name),
  detail.arms.length > 1 ? h("p", {}, detail.arms.map((arm, i) =>
    h("span", { className: "key" }, h("i", { style: { background: `var(--arm${i % ARMS})` } }), arm))) : null,
  summary(detail.sweep), figures(detail, results, fit),
  ...(lawNumbers(fit, preliminary) ?? [refusal ? h("p", { className: "note" }, `No law yet: ${refusal}`) : null]),
  h("h3", {}, "Runs"),
  total(detail.sweep.counts) > RUNS_MANY
    ? h("p", { className: "note" }, `The first ${results.length} of ${total(detail.sweep.counts)}; isoloss status ${detail.sweep.name} lists all.`)
    : null,
  runTable(results.map((one) => one.row)),
]);

/** The fit, asked for again only when a run has ended since, and not too often. */
const refreshFit = async (id, row) => {
  const live = row.phase === "active" || row.phase === "paused";
  const key = `${id} ${row.counts.finished} ${live}`;
  if (key === state.fitFor || row.counts.finished < 4 || Date.now() - state.fitAt < FIT_MS_MIN) return;
  state.fitAt = Date.now();
  state.fitFor = key;
  try {
    state.fit = { id, record: await get(`/sweeps/${id}/fit${live ? `?resamples=${FIT_RESAMPLES}` : ""}`), refusal: "", preliminary: live };
  } catch (error) {
    state.fit = { id, record: null, refusal: error.message };
  }
};

// Workers

const slot = (worker, one, rows) => {
  const run = rows.find((row) => row.live && row.live.worker === worker.worker && row.live.device === one.name);
  const doing = run ? `${run.arm}, ${(100 * done(run.live)).toFixed(0)} %` : "idle";
  return h("div", { className: run ? "slot busy" : "slot" }, h("div", {}, one.name),
    worker.gpu_names?.[one.gpu] ? h("div", { className: "muted" }, worker.gpu_names[one.gpu]) : null, h("div", { className: "muted" }, doing));
};

/** GPUs that were not to be had for a run, as it said when it was heard last. */
const resting = (worker) => (worker.silent_seconds > 15 ? [] : worker.gpus_resting ?? []).map((rest) => h("p", { className: "note" },
  `${rest.gpu} was not to be had and ${rest.seconds > 0 ? `rests for ${duration(rest.seconds)}` : "gets one run at a time until one trains"}: ${rest.reason}`));

const drawWorkers = (workers, rows) => show("workers", [workers.map((w) => ({ ...w, silent_seconds: w.silent_seconds > 15, held_back_seconds: w.held_back_seconds > 0 })), rows], () => workers.length === 0 ? [] : [
  h("h3", {}, "Workers"),
  ...workers.flatMap((worker) => [
    h("p", {}, worker.worker, h("span", { className: "muted" }, ` ${worker.busy} of ${worker.slots.length} busy, isoloss ${worker.code_version}` +
      (worker.draining ? ", draining: it gets no more runs" : "") +
      (worker.resting ? `, asks for no work: ${worker.resting}` : "") +
      (worker.held_back_seconds ? ", held back: one run after the other failed there" : "") +
      (worker.silent_seconds > 15 ? `, silent for ${duration(worker.silent_seconds)}` : ""))),
    ...resting(worker),
    h("div", { className: "slots" }, worker.slots.map((one) => slot(worker, one, rows))),
  ]),
]);

// The loop

/** Runs with their curves; of a sweep of many runs the first rows alone, which is what a page can show. */
const resultsOf = async (id, row) => {
  if (total(row.counts) <= RUNS_MANY) return list(`/sweeps/${id}/results`, "results");
  const { runs } = await get(`/sweeps/${id}/runs?limit=${ROWS_SHOWN}`);
  return runs.map((one) => ({ row: one, curve: [] }));
};

const look = async () => {
  const lists = ["sweeps", "workers", "surveys"].map((name) => list(`/${name}`, name));
  const [sweeps, workers, surveys] = await Promise.all(lists);
  const wanted = location.hash.slice(1);
  const chosen = sweeps.find((row) => row.sweep_id === wanted) ?? sweeps[0];
  state.sweep = chosen ? chosen.sweep_id : null;
  drawSweeps(sweeps, surveys, workers);
  const speed = sweeps.reduce((sum, row) => sum + row.tokens_per_second, 0);
  byId("pulse").textContent = speed > 0 ? `${count(speed)} tokens/s` : "live";
  if (!chosen) {
    show("sweep", null, () => []);
    return drawWorkers(workers, []);
  }
  const id = chosen.sweep_id;
  const [detail, results] = await Promise.all([get(`/sweeps/${id}`), resultsOf(id, chosen)]);
  state.runs = results.length;
  const fit = state.fit && state.fit.id === id ? state.fit : { record: null, refusal: "" };
  drawSweep(detail, results, fit.record, fit.refusal, fit.preliminary);
  drawWorkers(workers, results.map((one) => one.row).filter((row) => row.live));
  // Not waited for: a fit may take longer than a look.
  refreshFit(id, chosen);
};

const loop = async () => {
  const pulse = byId("pulse");
  try {
    if (!document.hidden) await look();
    pulse.className = "live";
    byId("token").hidden = true;
  } catch (error) {
    pulse.className = "lost";
    pulse.textContent = error instanceof Refused ? error.message : "the coordinator does not answer";
    byId("token").hidden = !(error instanceof Refused && error.status === 401);
  }
  setTimeout(loop, POLL_MS * Math.max(1, state.runs / RUNS_AT_POLL));
};

byId("token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", event.target.token.value.trim());
});
addEventListener("hashchange", () => look().catch(() => {}));
loop();
