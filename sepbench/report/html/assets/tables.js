// Sorting by a click on a head, and the filters of the page. Tables are whole without it.
(function () {
  "use strict";
  function key(row, column, kind) {
    const cell = row.cells[column];
    if (!cell) { return null; }
    const given = cell.dataset.sort;
    if (kind === "number" || kind === "rank") {
      const text = given !== undefined ? given : cell.textContent.replace(/[,%]/g, "");
      const number = parseFloat(text);
      return Number.isFinite(number) ? number : null;
    }
    return cell.textContent.trim().toLowerCase() || null;
  }

  function sort(table, column, kind, direction) {
    for (const body of table.tBodies) {
      const rows = Array.from(body.rows).filter(function (row) { return !row.classList.contains("part"); });
      rows.forEach(function (row, place) { if (row.dataset.place === undefined) { row.dataset.place = place; } });
      rows.sort(function (a, b) {
        const x = key(a, column, kind), y = key(b, column, kind);
        if (x === null || y === null) { return x === y ? a.dataset.place - b.dataset.place : x === null ? 1 : -1; } // what has no value is last either way
        const order = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return direction * order || a.dataset.place - b.dataset.place;
      });
      rows.forEach(function (row) { body.append(row); });
    }
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      const button = head.querySelector("button");
      if (!button) { return; }
      button.addEventListener("click", function () {
        const now = head.getAttribute("aria-sort");
        const first = head.dataset.better === "high" ? "descending" : "ascending";
        const next = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
        heads.forEach(function (other) { if (other.hasAttribute("aria-sort")) { other.setAttribute("aria-sort", "none"); } });
        head.setAttribute("aria-sort", next);
        sort(table, column, head.dataset.kind, next === "ascending" ? 1 : -1);
        if (head.dataset.metric && table.dataset.board) { window.sepbenchCharts.set(table.dataset.board + "-forest", "metric", head.dataset.metric); }
      });
    });
  }

  const form = document.querySelector("[data-filters]");
  if (!form) { return; }
  const tables = Array.from(document.querySelectorAll("table.board"));

  function apply() {
    const data = new FormData(form);
    const text = (data.get("method") || "").trim().toLowerCase();
    const levels = new Set(data.getAll("supervision")), parts = new Set(data.getAll("part"));
    const task = data.get("task") || "", metric = data.get("metric") || "";
    let shown = 0, all = 0;
    for (const section of document.querySelectorAll("section.task")) { section.hidden = Boolean(task) && section.dataset.task !== task; }
    for (const table of tables) {
      const hidden = [];
      table.classList.toggle("intervals", data.get("intervals") !== null);
      for (const body of table.tBodies) {
        const part = body.dataset.part;
        const allowed = (part !== "bound" && part !== "paper") || parts.has(part);
        let left = 0;
        for (const row of body.rows) {
          if (row.classList.contains("part")) { continue; }
          const level = row.dataset.supervision;
          const visible = allowed && (!level || levels.has(level)) && row.dataset.method.toLowerCase().includes(text);
          row.hidden = !visible;
          left += visible;
          all += 1;
          if (!visible) { hidden.push(row.dataset.method); }
        }
        body.hidden = !left;
        shown += left;
      }
      for (const cell of table.querySelectorAll("[data-metric]")) {
        cell.hidden = Boolean(metric) && cell.dataset.metric !== metric;
        cell.classList.toggle("chosen", Boolean(metric) && cell.dataset.metric === metric);
      }
      const id = table.dataset.board;
      const names = Array.from(table.querySelectorAll("thead [data-metric]"), function (head) { return head.dataset.metric; });
      if (metric && names.includes(metric)) { window.sepbenchCharts.set(id + "-forest", "metric", metric); }
      for (const chart of ["-forest", "-spread-strips", "-spread-failures"]) { window.sepbenchCharts.set(id + chart, "hidden", hidden); }
      const section = table.closest("section.task");
      for (const card of section.querySelectorAll(".card[data-method]:not([data-reference])")) { card.hidden = hidden.includes(card.dataset.method); }
    }
    form.querySelector(".count").textContent = shown === all ? "" : shown + " of " + all + " rows";
  }

  form.addEventListener("input", apply);
  form.addEventListener("reset", function () { setTimeout(apply); });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  apply();
  for (const box of document.querySelectorAll("[data-show-errors]")) {
    box.addEventListener("change", function () { box.closest(".examples").classList.toggle("errors", box.checked); });
  }
})();
