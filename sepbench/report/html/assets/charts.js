// Draws the charts of the page when they come into view; sets what tables, selects and the theme say.
(function () {
  "use strict";
  const views = new Map();
  const specs = new Map();
  const wanted = new Map(); // id -> what was set before the chart was drawn
  window.sepbenchCharts = { set: set, data: data, views: views };

  function style(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // columns: of the legend.
  function config(width, columns) {
    const text = style("--text"), faint = style("--faint"), line = style("--line");
    return {
      background: "transparent",
      font: style("--font"),
      axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: faint, tickColor: faint, titleFontWeight: "normal", labelFontSize: 11 },
      legend: { labelColor: text, titleColor: text, columns: columns, labelLimit: width < 560 ? 100 : 170 },
      title: { color: text, fontWeight: "normal" },
      header: { labelColor: text, titleColor: text, labelFontWeight: "normal" },
      text: { color: text },
      view: { stroke: "transparent" }
    };
  }

  // A legend that is wider than its chart is drawn again in fewer columns.
  function draw(element, most) {
    const id = element.id, columns = most || Math.max(2, Math.floor(element.clientWidth / 170));
    if (!specs.has(id)) {
      specs.set(id, JSON.parse(document.querySelector('[data-spec="' + CSS.escape(id) + '"]').textContent));
    }
    element.dataset.drawn = "yes";
    // ast: expressions are interpreted, never compiled, so that the page's policy may forbid eval.
    const options = { actions: false, renderer: "svg", ast: true, logLevel: 1, config: config(element.clientWidth, columns), tooltip: { theme: document.documentElement.dataset.theme } };
    return window.vegaEmbed(element, asked(id), options).then(function (result) {
      const old = views.get(id);
      if (old) { old.finalize(); }
      views.set(id, result.view);
      if (columns > 1 && beyond(element)) { return draw(element, columns - 1); }
      apart(element);
      result.view.addResizeListener(function () { setTimeout(apart, 100, element); });
    }).catch(function (error) {
      element.textContent = "This chart cannot be drawn: " + error.message;
      console.error(error);
    });
  }

  function beyond(element) {
    const right = element.querySelector("svg").getBoundingClientRect().right + 1;
    return Array.from(element.querySelectorAll("g.role-legend")).some(function (legend) { return legend.getBoundingClientRect().right > right; });
  }

  // Names of points: one that would lie over another is hidden, and is told on hovering.
  function apart(element) {
    const kept = [];
    for (const text of element.querySelectorAll("g.mark-text.role-mark text")) {
      const box = text.getBoundingClientRect();
      const covers = kept.some(function (other) { return box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom; });
      text.style.visibility = covers ? "hidden" : "visible";
      if (!covers) { kept.push(box); }
    }
  }

  // The specification with what was set meanwhile.
  function asked(id) {
    const spec = Object.assign({}, specs.get(id)), settings = wanted.get(id) || {};
    const signals = settings.signals || {};
    spec.params = (spec.params || []).map(function (one) { return one.name in signals ? Object.assign({}, one, { value: signals[one.name] }) : one; });
    if (settings.data) { spec.datasets = Object.assign({}, spec.datasets, settings.data); }
    return spec;
  }

  function remember(id, kind, name, value) {
    const settings = wanted.get(id) || {};
    settings[kind] = Object.assign(settings[kind] || {}, { [name]: value });
    wanted.set(id, settings);
  }

  function set(id, name, value) {
    remember(id, "signals", name, value);
    const view = views.get(id);
    if (view) {
      try { view.signal(name, value).resize().runAsync().then(function () { apart(document.getElementById(id)); }); } catch (error) { return; } // a chart without this parameter
    }
  }

  function data(id, name, rows) {
    remember(id, "data", name, rows);
    const view = views.get(id);
    if (view) { view.data(name, rows).runAsync(); }
  }

  const all = Array.from(document.querySelectorAll("[data-chart]"));
  const seen = new IntersectionObserver(function (entries) {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        if (!entry.target.dataset.drawn) { draw(entry.target); }
      }
    }
  }, { rootMargin: "300px" });
  all.forEach(function (element) { seen.observe(element); });

  document.addEventListener("sepbench:theme", function () {
    all.filter(function (element) { return element.dataset.drawn; }).forEach(function (element) { draw(element); });
  });
  addEventListener("beforeprint", function () {
    document.querySelectorAll("img[loading=lazy]").forEach(function (image) { image.loading = "eager"; });
    all.filter(function (element) { return !element.dataset.drawn; }).forEach(function (element) { draw(element); });
  });
  for (const select of document.querySelectorAll("[data-group-of]")) {
    select.addEventListener("change", function () { set(select.dataset.groupOf, "group", select.value); });
  }
})();
