"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 40;

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function written(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    let text;
    if (size === 0 || (size >= 0.01 && size < 10)) text = size.toFixed(2);
    else if (size >= 10) text = size < 1000 ? size.toFixed(1) : size.toPrecision(3);
    else if (size >= 0.0001) text = String(Number(size.toPrecision(2)));
    else text = size.toExponential(0);
    return (value < 0 ? "−" : "") + text;
  }

  // The removal battery: a line of its table opens the single facts behind it.
  const attacks = JSON.parse(document.getElementById("attacks").textContent);
  for (const button of document.querySelectorAll("table.attacks button.open")) {
    button.addEventListener("click", function () {
      const row = button.closest("tr");
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) { row.nextElementSibling.remove(); return; }
      const found = attacks[Number(row.closest("table").dataset.run)];
      const inner = make("table", "facts-known");
      const head = inner.createTHead().insertRow();
      for (const title of ["Question", "True answer", "This model", "Control", "Before"]) head.append(make("th", "", title));
      const body = inner.createTBody();
      for (const [fact, ...known] of found.attacks[button.dataset.attack] || []) {
        const line = body.insertRow();
        for (const text of [found.facts[fact][1], found.facts[fact][2]]) {
          const cell = make("td", "", text);
          cell.dir = "auto";
          line.append(cell);
        }
        for (const value of known) line.append(make("td", "value", written(value)));
      }
      const below = document.createElement("tr");
      const cell = make("td", "behind");
      cell.colSpan = 5;
      cell.append(inner);
      below.append(cell);
      row.after(below);
    });
  }

  // Tables: first click ascending, second descending, third as written; what was not measured stays last.
  for (const button of document.querySelectorAll("#headline th button")) {
    button.addEventListener("click", function () {
      const head = button.closest("th");
      const table = head.closest("table");
      const body = table.tBodies[0];
      if (!table.written) table.written = Array.from(body.rows);
      const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
      for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", next);
      const rows = table.written.slice();
      const sign = next === "descending" ? -1 : 1;
      const key = (row) => row.cells[head.cellIndex].dataset.sort;
      if (next !== "none") {
        rows.sort(function (a, b) {
          const x = key(a), y = key(b);
          if (x === "" || y === "") return (x === "" ? 1 : 0) - (y === "" ? 1 : 0);
          return sign * (Number(x) - Number(y));
        });
      }
      body.append(...rows);
    });
  }

  // Closed parts that belong on paper are opened for printing and closed again.
  let opened = [];
  window.addEventListener("beforeprint", function () {
    opened = Array.from(document.querySelectorAll("details[data-print]:not([open])"));
    for (const part of opened) part.open = true;
  });
  window.addEventListener("afterprint", function () {
    for (const part of opened) part.open = false;
  });

  const list = document.getElementById("list");
  if (!list) return;

  const control = {};
  for (const id of ["q", "split", "run", "number", "order"]) control[id] = document.getElementById(id);
  const count = document.getElementById("count");
  const more = document.getElementById("more");

  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const texts = data.strings;
  const folded = texts.map(() => undefined);
  const foldedText = (index) => (folded[index] === undefined ? (folded[index] = fold(texts[index])) : folded[index]);
  const rows = data.rows.map(function (row, index) {
    const answers = new Map(row[4].map((answer) => [answer[0], answer]));
    return { index, split: row[0], prompt: row[2], truth: row[3], answers };
  });

  function fill(select, options) {
    for (const [value, text] of options) {
      const option = make("option", "", text);
      option.value = value;
      select.append(option);
    }
  }
  fill(control.split, [["", "All sets"]].concat(data.splits.map((title, i) => [String(i), title])));
  fill(control.run, (data.runs.length > 1 ? [["", "All runs"]] : []).concat(data.runs.map((run, i) => [String(i), run.label])));
  fill(control.number, data.numbers.map((number, i) => [String(i), number.label]));
  fill(control.order, [
    ["data", "As in the data"],
    ["change", "Largest change first"],
    ["most", "Highest after first"],
    ["least", "Lowest after first"],
  ].concat(data.runs.some((run) => run.reference !== null) ? [["gold", "Farthest from gold first"]] : []));
  if (data.splits.length) control.split.value = "0";

  function shownRuns() {
    return control.run.value === "" ? data.runs : [data.runs[Number(control.run.value)]];
  }

  function mean(row, role, runs) {
    const place = Number(control.number.value) + 2;
    const seen = new Set();
    let sum = 0;
    for (const run of runs) {
      if (run[role] === null || seen.has(run[role]) || !row.answers.has(run[role])) continue;
      const value = row.answers.get(run[role])[place];
      if (value === null || value === undefined) continue;
      seen.add(run[role]);
      sum += value;
    }
    return seen.size ? sum / seen.size : null;
  }

  function rank(row, order, runs) {
    const after = mean(row, "run", runs);
    if (after === null) return null;
    if (order === "most") return after;
    if (order === "least") return -after;
    const other = mean(row, order === "gold" ? "reference" : "before", runs);
    return other === null ? null : Math.abs(after - other);
  }

  function matches(row, words, runs) {
    if (control.split.value !== "" && row.split !== Number(control.split.value)) return false;
    const models = runs.flatMap((run) => [run.run, run.before, run.reference]).filter((m) => row.answers.has(m));
    if (!runs.some((run) => row.answers.has(run.run) || row.answers.has(run.before))) return false;
    if (!words.length) return true;
    const places = [row.prompt, row.truth].concat(models.map((m) => row.answers.get(m)[1]).filter((t) => t !== null));
    return words.every((word) => places.some((place) => foldedText(place).includes(word)));
  }

  let found = [];
  let shown = 0;

  function update() {
    const runs = shownRuns();
    const words = fold(control.q.value).split(/\s+/).filter(Boolean);
    found = rows.filter((row) => matches(row, words, runs));
    const order = control.order.value;
    if (order !== "data") {
      const ranks = new Map(found.map((row) => [row, rank(row, order, runs)]));
      found.sort(function (a, b) {
        const x = ranks.get(a), y = ranks.get(b);
        if (x === null || y === null) return (x === null ? 1 : 0) - (y === null ? 1 : 0) || a.index - b.index;
        return y - x || a.index - b.index;
      });
    }
    list.replaceChildren();
    shown = 0;
    show();
    if (list.firstChild && !words.length && order === "data") list.firstChild.open = true;
  }

  function show() {
    const runs = shownRuns();
    const part = document.createDocumentFragment();
    for (const row of found.slice(shown, shown + PAGE)) part.append(item(row, runs));
    list.append(part);
    shown = Math.min(found.length, shown + PAGE);
    const averaged = runs.length > 1 ? ", mean of " + runs.length + " runs" : "";
    const number = data.numbers.length ? " On the right: " + data.numbers[Number(control.number.value)].label.toLowerCase() + " before → after" + averaged + "." : "";
    count.textContent = found.length + " of " + rows.length + " questions, " + shown + " shown." + (found.length ? number : "");
    more.hidden = shown >= found.length;
    more.textContent = "Show " + Math.min(PAGE, found.length - shown) + " more";
  }

  function item(row, runs) {
    const details = make("details", "q");
    const summary = make("summary");
    const prompt = make("span", "prompt", texts[row.prompt]);
    prompt.dir = "auto";
    const change = make("span", "change");
    if (data.numbers.length) {
      change.append(make("span", "was", written(mean(row, "before", runs)) + " → "), written(mean(row, "run", runs)));
    }
    summary.append(prompt, make("span", "set", control.split.value === "" ? data.splits[row.split] : ""), change);
    details.append(summary);
    details.addEventListener("toggle", function () {
      if (details.open && details.childElementCount === 1) details.append(answers(row, runs));
    });
    return details;
  }

  function answers(row, runs) {
    const box = make("div", "answers");
    const truth = words(texts[row.truth]).map((word) => word.text);
    box.append(answer("truth", "True answer", null, texts[row.truth], null, []));
    const order = new Set(runs.map((run) => run.before).concat(runs.map((run) => run.run), runs.map((run) => run.reference)));
    for (const index of order) {
      if (index === null) continue;
      const model = data.models[index];
      const given = row.answers.get(index);
      const text = given && given[1] !== null ? texts[given[1]] : null;
      box.append(answer(model.role, model.label, model.run, text, given || null, truth));
    }
    return box;
  }

  function answer(role, label, run, text, given, truth) {
    const box = make("div", "answer " + role);
    const who = make("div", "who");
    if (run !== null) {
      const dot = make("span", "dot");
      dot.style.background = "var(--run-" + (run % 8) + ")";
      who.append(dot);
    }
    const name = make("span", "", label);
    name.dir = "auto";
    who.append(name);
    const said = make("div", "said" + (text === null ? " quiet" : ""));
    said.dir = "auto";
    if (text === null) said.textContent = given ? "No answer was stored." : "Not measured on this question.";
    else if (text === "") said.append(make("span", "quiet", "(empty answer)"));
    else said.append(highlighted(text, truth));
    box.append(who, said);
    if (given && data.numbers.length) {
      const line = make("div", "numbers");
      data.numbers.forEach(function (number, i) {
        const value = given[i + 2];
        const entry = make("span", "", number.label + " " + (value === null ? "not scored" : written(value)));
        entry.title = number.meaning;
        line.append(entry);
      });
      box.append(line);
    }
    return box;
  }

  function words(text) {
    const out = [];
    for (const match of text.matchAll(/[\p{L}\p{N}\p{M}]+/gu)) {
      out.push({ text: fold(match[0]), start: match.index, end: match.index + match[0].length });
    }
    return out;
  }

  // The longest common subsequence of words, which is what ROUGE-L counts.
  function common(left, right) {
    const n = left.length, m = right.length;
    const table = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        table[i][j] = left[i] === right[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
      }
    }
    const hits = new Set();
    for (let i = 0, j = 0; i < n && j < m; ) {
      if (left[i] === right[j]) { hits.add(i); i++; j++; }
      else if (table[i][j + 1] >= table[i + 1][j]) j++;
      else i++;
    }
    return hits;
  }

  function highlighted(text, truth) {
    const part = document.createDocumentFragment();
    const own = words(text).slice(0, 2000);
    const hits = truth.length ? common(own.map((word) => word.text), truth.slice(0, 2000)) : new Set();
    let at = 0;
    let i = 0;
    while (i < own.length) {
      if (!hits.has(i)) { i++; continue; }
      let last = i;
      while (hits.has(last + 1) && /^\s+$/.test(text.slice(own[last].end, own[last + 1].start))) last++;
      part.append(text.slice(at, own[i].start), make("mark", "", text.slice(own[i].start, own[last].end)));
      at = own[last].end;
      i = last + 1;
    }
    part.append(text.slice(at));
    return part;
  }

  let timer = 0;
  control.q.addEventListener("input", function () {
    clearTimeout(timer);
    timer = setTimeout(update, 120);
  });
  for (const id of ["split", "run", "number", "order"]) control[id].addEventListener("change", update);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", function () {
    const first = shown;
    show();
    const next = list.children[first];
    if (next) next.querySelector("summary").focus();
  });
  update();
})();
