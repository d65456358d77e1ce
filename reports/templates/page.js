"use strict";
// Operators: which are shown, which are open, and in which order the overview lists them.
(() => {
  const sections = [...document.querySelectorAll(".operator > details")];
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = target && target.querySelector(":scope > details");
    if (details) details.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
  document.addEventListener("click", (event) => {
    if (event.target.closest('a[href="' + location.hash + '"]')) reveal();
  });
  for (const [id, open] of [["unfold", true], ["fold", false]]) {
    const button = document.getElementById(id);
    if (button) button.addEventListener("click", () => sections.forEach((each) => (each.open = open)));
  }
  const find = document.getElementById("find");
  const parts = [...document.querySelectorAll("[data-operator]")];
  const names = new Set(parts.map((each) => each.dataset.operator));
  if (find) {
    find.addEventListener("input", () => {
      const words = find.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
      const fits = (name) => !words.length || words.some((word) => name.toLowerCase().includes(word));
      for (const part of parts) part.hidden = !fits(part.dataset.operator);
      document.getElementById("found").textContent = words.length ? `${[...names].filter(fits).length} of ${names.size}` : "";
    });
  }
  for (const tools of document.querySelectorAll(".tools")) tools.hidden = false;

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const value = (row, place) => {
      const cell = row.cells[place];
      if (!cell || cell.colSpan > 1) return NaN;
      return "value" in cell.dataset ? (cell.dataset.value === "" ? NaN : Number(cell.dataset.value)) : cell.textContent;
    };
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.ariaSort === "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const keyed = [...body.rows].map((row) => [value(row, place), row]);
        keyed.sort(([a], [b]) => (a !== a) - (b !== b) || (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1) || 0);
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }
})();

// The table of all records: columns come compressed, rows are built as they are looked at.
(async () => {
  const PAGE = 200;
  const TROUBLE = new Set(["wrong", "crashed", "timeout", "suspect"]);
  const FACETS = ["operator", "implementation", "target", "isa", "dtype", "pass", "stress", "status"];
  const byId = (id) => document.getElementById(id);
  const columns = JSON.parse(byId("columns").textContent);
  const bytes = Uint8Array.from(atob(byId("data").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = await new Response(stream).json();

  const digits = (value, significant = 3) => {
    if (value === 0) return "0";
    const rounded = Number(value.toPrecision(significant));
    return rounded.toFixed(Math.max(0, significant - 1 - Math.floor(Math.log10(Math.abs(rounded)))));
  };
  const scaled = (value, prefixes) => {
    const [factor, name] = prefixes.find(([least]) => value >= least * 0.9995) || prefixes[prefixes.length - 1];
    return `${digits(value / factor)} ${name}`;
  };
  const show = {
    int: (value) => value.toLocaleString("en"),
    time: (value) => scaled(value, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]]),
    rate: (value) => digits(value / 1e9, value < 1e8 ? 2 : 3),
    percent: (value) => `${digits(100 * value, value < 0.1 ? 2 : 3)} %`,
    ratio: (value) => `${value.toFixed(2)} ×`,
    bytes: (value) => scaled(value, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]]),
    ulp: (value) => (value < 0 ? "NaN/∞" : value >= 1e5 ? value.toExponential(1) : value < 10 ? value.toFixed(2) : digits(value)),
  };

  const form = byId("filters");
  const [head, body] = [byId("table").tHead, byId("table").tBodies[0]];
  let kind, sort, order, limit;

  const size = (each) => {
    const first = data[each][0];
    return (first.codes || first).length;
  };
  // Numbers as they sort: missing ones last, an infinite error above all others.
  const rank = (column, row) => {
    const [, , form_] = columns[kind][column];
    if (form_ === "text") return data[kind][column].codes[row];
    const value = data[kind][column][row];
    return value === null ? NaN : form_ === "ulp" && value < 0 ? Infinity : value;
  };
  const text = (column, row) => {
    const values = data[kind][column];
    if (values.words) return values.words[values.codes[row]];
    return values[row] === null ? "" : show[columns[kind][column][2]](values[row]);
  };
  const select = (name, options) => {
    const element = document.createElement("select");
    element.name = name;
    for (const option of options) element.append(new Option(option || "any", option));
    return element;
  };

  function choose(next) {
    kind = next;
    sort = null;
    byId("facets").replaceChildren();
    columns[kind].forEach(([name, label], column) => {
      const words = data[kind][column].words;
      if (!FACETS.includes(name) || words.length < 2) return;
      const element = document.createElement("label");
      element.append(`${label} `, select(name, ["", ...words.filter(Boolean)]));
      byId("facets").append(element);
    });
    const row = document.createElement("tr");
    columns[kind].forEach(([, label, form_], column) => {
      const cell = document.createElement("th");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = form_ === "rate" && kind === "ceiling" ? `${label}, G` : label;
      button.addEventListener("click", () => turn(column));
      if (form_ !== "text") cell.className = "n";
      cell.append(button);
      row.append(cell);
    });
    head.replaceChildren(row);
    filter();
  }

  function turn(column) {
    sort = sort && sort.column === column ? { column, down: !sort.down } : { column, down: false };
    [...head.rows[0].cells].forEach((cell, index) => {
      if (index === column) cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    filter();
  }

  function filter() {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = columns[kind].flatMap(([name], column) => {
      const value = FACETS.includes(name) && form.elements[name] ? form.elements[name].value : "";
      return value ? [[column, data[kind][column].words.indexOf(value)]] : [];
    });
    const texts = columns[kind].flatMap(([, , form_], column) => (form_ === "text" ? [column] : []));
    order = [];
    for (let row = 0; row < size(kind); row++) {
      if (!chosen.every(([column, code]) => data[kind][column].codes[row] === code)) continue;
      if (words.length) {
        const line = texts.map((column) => text(column, row)).join(" ").toLowerCase();
        if (!words.every((word) => line.includes(word))) continue;
      }
      order.push(row);
    }
    if (sort) {
      const sign = sort.down ? -1 : 1;
      order.sort((a, b) => {
        const [left, right] = [rank(sort.column, a), rank(sort.column, b)];
        if (left !== left || right !== right) return (left !== left) - (right !== right) || a - b;
        return left < right ? -sign : left > right ? sign : a - b;
      });
    }
    limit = PAGE;
    body.replaceChildren();
    grow();
  }

  function grow() {
    const fragment = document.createDocumentFragment();
    for (const row of order.slice(body.rows.length, limit)) {
      const line = document.createElement("tr");
      columns[kind].forEach(([name, , form_], column) => {
        const cell = document.createElement("td");
        cell.textContent = text(column, row);
        if (form_ !== "text") cell.className = "n";
        else if (cell.textContent.length > 30) cell.title = cell.textContent;
        if (name === "status" && TROUBLE.has(cell.textContent)) cell.className = "trouble";
        line.append(cell);
      });
      fragment.append(line);
    }
    body.append(fragment);
    byId("more").hidden = body.rows.length >= order.length;
    byId("shown").textContent = `${body.rows.length.toLocaleString("en")} of ${order.length.toLocaleString("en")} rows`;
  }

  const kinds = Object.keys(columns).filter((each) => size(each));
  for (const each of kinds) form.elements.kind.append(new Option(each, each));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => (event.target.name === "kind" ? choose(event.target.value) : filter()));
  byId("more").addEventListener("click", () => {
    limit += PAGE;
    grow();
  });
  byId("browser").hidden = false;
  if (kinds.length) choose(kinds[0]);
})();
